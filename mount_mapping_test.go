package snapfs_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// counterAt reads a counter of the counter role from a file.
func counterAt(t testing.TB, path string, page int) uint64 {
	t.Helper()
	f, err := os.Open(path)
	need(t, err)
	defer f.Close()
	var b [8]byte
	_, err = f.ReadAt(b[:], int64(page)*4096)
	need(t, err)
	return binary.NativeEndian.Uint64(b[:])
}

// TestSharedMappings: two processes share a mapping, and what they stored before the snapshot command is in it, by each
// way of taking one.
func TestSharedMappings(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []func(*mounted)
	}{
		{"write-through", nil},
		{"writeback", []func(*mounted){writeback}},
	} {
		t.Run(c.name, func(t *testing.T) { testSharedMappings(t, newMount(t, c.options...)) })
	}
}

func testSharedMappings(t *testing.T, m *mounted) {
	path := m.live("counters")
	writeFile(t, path, "")
	need(t, unix.Truncate(path, counterBytes))
	one, two := startRole(t, "counter", path), startRole(t, "counter", path)
	const step = 1000
	for round := 1; round <= 6; round++ {
		one.say(fmt.Sprint("1 ", step))
		two.say(fmt.Sprint("2 ", step))
		want := fmt.Sprint("added ", round*step)
		if a, b := one.hear(), two.hear(); a != want || b != want {
			t.Fatalf("the processes say %q and %q, want %q", a, b, want)
		}
		name := fmt.Sprint("round", round)
		if round%2 == 0 {
			m.snapshot(name)
		} else {
			need(t, os.Mkdir(m.frozen(name), 0o755))
		}
		if round == 3 {
			need(t, os.Rename(path, m.live("renamed"))) // the way through the mount is not its path
			path = m.live("renamed")
		}
	}
	for round := 1; round <= 6; round++ {
		name := "counters"
		if round > 3 {
			name = "renamed"
		}
		frozen := m.frozen(fmt.Sprint("round", round), name)
		got := [3]uint64{counterAt(t, frozen, 0), counterAt(t, frozen, 1), counterAt(t, frozen, 2)}
		n := uint64(round * step)
		if want := [3]uint64{2 * n, n, n}; got != want {
			t.Errorf("round %d: the snapshot holds %v, want %v", round, got, want)
		}
	}
	one.end()
	two.end()
	if got := counterAt(t, path, 0); got != 12*step {
		t.Errorf("the live counter is %d, want %d", got, 12*step)
	}
}

// TestSharedMappingOfUnlinkedFile: an inode without a name is pushed like any other.
func TestSharedMappingOfUnlinkedFile(t *testing.T) {
	m := newMount(t)
	path := m.live("counters")
	writeFile(t, path, "")
	need(t, unix.Truncate(path, counterBytes))
	need(t, os.Link(path, m.live("link")))
	a := startRole(t, "counter", path)
	a.say("1 5")
	a.hear()
	need(t, os.Remove(path))
	m.snapshot("linked")
	if got := counterAt(t, m.frozen("linked", "link"), 1); got != 5 {
		t.Errorf("the snapshot holds %d, want 5", got)
	}
	need(t, os.Remove(m.live("link")))
	a.say("1 5")
	a.hear()
	m.snapshot("unlinked")
	wantNames(t, m.frozen("unlinked"))
	a.say("1 5")
	if got := a.hear(); got != "added 15" {
		t.Errorf("the mapping of an unlinked file says %q", got)
	}
	a.end()
	wantNames(t, filepath.Dir(path))
}

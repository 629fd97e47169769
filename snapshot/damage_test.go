package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A damaged store either is refused, or answers EIO, or the damage is without effect: its snapshots never show wrong bytes, nothing
// panics, and nothing hangs. Base files are left alone but for their length: they have no checksums.

// frozenFiles are the bytes of every file by snapshot and name.
type frozenFiles map[string]map[string][]byte

// makeDamageable makes a store with all kinds of files in it: metadata in tables and in a log, undo logs with several batches.
func makeDamageable(t *testing.T, dir string) frozenFiles {
	t.Helper()
	want := frozenFiles{}
	for life := range 3 {
		s, err := Open(dir, Options{Create: true, quiet: true})
		if err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			for i := range 6 {
				must(t, putFile(s, fmt.Sprint("file", i), byte(life*16+round*8+i+1), (i+1)*9000))
			}
			name := fmt.Sprintf("s%d%d", life, round)
			if _, err := s.Snapshot(Request{Name: name}); err != nil {
				t.Fatal(err)
			}
			want[name] = readFrozen(t, s, name)
		}
		for i := range 60 {
			if _, err := s.Live().Create(Root, fmt.Sprint(life, "-", i), Spec{Mode: syscall.S_IFREG | 0o600}); err != nil {
				t.Fatal(err)
			}
		}
		must(t, s.Close())
	}
	return want
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// putFile overwrites parts of a file, and syncs it.
func putFile(s *Store, name string, b byte, n int) error {
	ent, err := s.Live().Lookup(Root, name)
	ino := ent.Ino
	if errors.Is(err, syscall.ENOENT) {
		var a Attr
		a, err = s.Live().Create(Root, name, Spec{Mode: syscall.S_IFREG | 0o600})
		ino = a.Ino
	}
	if err != nil {
		return err
	}
	h, err := s.Live().OpenFile(ino)
	if err != nil {
		return err
	}
	_, err = h.WriteAt(bytes.Repeat([]byte{b}, n), 0, false)
	return errors.Join(err, h.Sync(false), h.Close())
}

// readFrozen reads a snapshot as far as it can be read; anything but EIO fails the test.
func readFrozen(t *testing.T, s *Store, name string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	info, err := s.Find(name)
	if err != nil {
		return files
	}
	v, err := s.View(info.Epoch)
	if err != nil {
		return files
	}
	defer v.Release()
	err = v.ReadDir(Root, 0, func(ent Dirent) bool {
		a, err := v.Stat(ent.Ino)
		var c Content
		if err == nil {
			c, err = v.Open(ent.Ino)
		}
		if err == nil {
			b := make([]byte, a.Size)
			_, err = c.ReadAt(b, 0)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			if err == nil {
				files[ent.Name] = b
			}
			_ = c.Close()
		}
		if err != nil && !errors.Is(err, syscall.EIO) {
			t.Errorf("snapshot %s, %s: %v", name, ent.Name, err)
		}
		return true
	})
	if err != nil && !errors.Is(err, syscall.EIO) {
		t.Errorf("snapshot %s: %v", name, err)
	}
	return files
}

// harms are the kinds of damage; each returns the new bytes of a file.
var harms = []struct {
	name   string
	length bool // changes nothing but the length: what is noticed of base files
	do     func(b []byte, r *rand.Rand) []byte
}{
	{"flipped at the beginning", false, func(b []byte, r *rand.Rand) []byte { b[r.IntN(min(len(b), 64))] ^= 1 << r.IntN(8); return b }},
	{"flipped", false, func(b []byte, r *rand.Rand) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b }},
	{"flipped again", false, func(b []byte, r *rand.Rand) []byte { b[r.IntN(len(b))] ^= 0xff; return b }},
	{"flipped at the end", false, func(b []byte, _ *rand.Rand) []byte { b[len(b)-1] ^= 0x80; return b }},
	{"emptied", true, func([]byte, *rand.Rand) []byte { return nil }},
	{"halved", true, func(b []byte, _ *rand.Rand) []byte { return b[:len(b)/2] }},
	{"cut", true, func(b []byte, _ *rand.Rand) []byte { return b[:len(b)-1] }},
	{"cut somewhere", true, func(b []byte, r *rand.Rand) []byte { return b[:r.IntN(len(b))] }},
	{"zeroed in part", false, func(b []byte, r *rand.Rand) []byte {
		at := r.IntN(len(b))
		clear(b[at:min(len(b), at+4096)])
		return b
	}},
	{"overwritten by noise", false, func(b []byte, r *rand.Rand) []byte {
		at := r.IntN(len(b))
		for i := at; i < min(len(b), at+512); i++ {
			b[i] = byte(r.Uint32())
		}
		return b
	}},
	{"removed", true, nil},
	{"longer", true, func(b []byte, _ *rand.Rand) []byte { return append(b, bytes.Repeat([]byte("more"), 1024)...) }},
}

// partsOf returns the files of a store that can be damaged, relative to it; of the undo logs three.
func partsOf(t *testing.T, store string) (parts []string) {
	t.Helper()
	err := filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != lockFile && d.Name() != ballastFile && !strings.HasSuffix(path, "undo/2") && !strings.HasSuffix(path, "undo/4") {
			rel, _ := filepath.Rel(store, path)
			parts = append(parts, rel)
		}
		return err
	})
	must(t, err)
	return parts
}

// TestDamage damages every file of a store in every way.
func TestDamage(t *testing.T) {
	source := filepath.Join(scratch(t), "store")
	want := makeDamageable(t, source)
	outcomes := map[string]int{}
	for i, part := range partsOf(t, source) {
		for k, harm := range harms {
			if (i+k)%5 > 0 && os.Getenv("SNAPFS_DAMAGE") != "all" {
				continue // each part in some ways, each way to some parts
			}
			if strings.HasPrefix(part, "base/") && !harm.length {
				continue
			}
			if info, err := os.Stat(filepath.Join(source, part)); err != nil || info.Size() == 0 && harm.name != "longer" && harm.name != "removed" {
				continue
			}
			what := part + " " + harm.name
			r := rand.New(rand.NewPCG(1, uint64(len(what))))
			store := copyStore(t, source)
			path := filepath.Join(store, part)
			b, err := os.ReadFile(path)
			must(t, err)
			if harm.do == nil {
				err = os.Remove(path)
			} else {
				err = os.WriteFile(path, harm.do(b, r), 0o600)
			}
			must(t, err)
			damaged := copyStore(t, store)
			outcomes[kindOfPart(part)+": "+surviveDamage(t, store, what, want)]++
			if _, err := Repair(damaged); err != nil {
				t.Errorf("%s: repair: %v", what, err)
			}
			outcomes[kindOfPart(part)+" repaired: "+surviveDamage(t, damaged, what+", repaired", want)]++
			must(t, errors.Join(os.RemoveAll(store), os.RemoveAll(damaged)))
		}
	}
	for _, outcome := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%s: %d", outcome, outcomes[outcome])
	}
}

func kindOfPart(part string) string {
	dir, name := filepath.Split(part)
	if dir == "meta/" {
		return "meta/" + strings.TrimLeft(name, "0123456789")
	}
	return strings.SplitAfter(part, "/")[0]
}

// surviveDamage opens and uses a damaged store and returns what came of it.
func surviveDamage(t *testing.T, store, what string, want frozenFiles) (outcome string) {
	t.Helper()
	done := make(chan string, 1)
	go func() { done <- useDamaged(t, store, what, want) }()
	select {
	case outcome = <-done:
		return outcome
	case <-time.After(time.Minute):
		t.Fatalf("%s: hangs", what)
	}
	return ""
}

func useDamaged(t *testing.T, store, what string, want frozenFiles) string {
	s, err := Open(store, Options{quiet: true})
	if err != nil {
		var errno syscall.Errno
		if !errors.As(err, &errno) && !errors.Is(err, errNoStore) {
			t.Errorf("%s: refused without an errno: %v", what, err)
		}
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Errorf("%s: refused, but not as damaged: %v", what, err)
		}
		return "refused"
	}
	outcome := "no effect"
	for name, files := range want {
		got := readFrozen(t, s, name)
		for file, b := range files {
			g, ok := got[file]
			if !ok {
				outcome = "EIO"
			} else if !bytes.Equal(g, b) {
				t.Errorf("%s: wrong bytes of %s in snapshot %s", what, file, name)
			}
		}
		for file := range got {
			if _, ok := files[file]; !ok {
				t.Errorf("%s: snapshot %s has got a file %s", what, name, file)
			}
		}
		if _, err := s.Find(name); err != nil {
			outcome = "lost snapshots"
		}
	}
	report, err := s.Check()
	if err != nil && !errors.Is(err, syscall.EIO) {
		t.Errorf("%s: check: %v", what, err)
	}
	if outcome == "EIO" && err == nil && len(report.Problems) == 0 {
		t.Errorf("%s: check finds nothing", what)
	}
	if err == nil && len(report.Problems) > 0 {
		outcome += ", found by check"
	}
	_, _ = s.Snapshot(Request{Name: "after"})
	_, _ = s.Delete([]string{"s10"}, false, nil)
	_ = s.Close()
	return outcome
}

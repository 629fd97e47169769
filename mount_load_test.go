package snapfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// loadSize is n, or n times what SNAPFS_LOAD says: scripts/soak.sh has more time than .ci/run.
func loadSize(n int) int {
	if factor, err := strconv.Atoi(os.Getenv("SNAPFS_LOAD")); err == nil {
		return n * factor
	}
	return n
}

// TestOpenAndClose opens and closes files for reading and for writing, again and again: nothing of that stays in the daemon.
func TestOpenAndClose(t *testing.T) {
	m := newMount(t)
	const files = 50
	for i := range files {
		writeFile(t, m.live(fmt.Sprint(i)), "text")
	}
	m.snapshot("s")
	cycle := func(n int) {
		for i := range n {
			path := m.live(fmt.Sprint(i % files))
			if i%3 == 0 {
				path = m.frozen("s", fmt.Sprint(i%files))
			}
			flags := unix.O_RDONLY
			if i%3 == 1 {
				flags = unix.O_RDWR
			}
			fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
			need(t, err)
			need(t, unix.Close(fd))
		}
	}
	cycle(2 * files)
	before := footprint(t)
	cycle(loadSize(5000))
	after := footprint(t)
	if after.heap > before.heap+4<<20 || after.fds > before.fds+10 || after.goroutines > before.goroutines+10 {
		t.Errorf("%d cycles made %+v of %+v", loadSize(5000), after, before)
	}
}

// TestHugeSparseFile: a file of 100 GiB costs what is written in it, in the live tree and in snapshots.
func TestHugeSparseFile(t *testing.T) {
	m := newMount(t)
	const size, pages = 100 << 30, 64
	f, err := os.Create(m.live("f"))
	need(t, err)
	defer f.Close()
	need(t, f.Truncate(size))
	write := func(b byte) {
		for i := range int64(pages) {
			_, err := f.WriteAt(bytes.Repeat([]byte{b}, 4096), i*(size/pages))
			need(t, err)
		}
		need(t, f.Sync())
	}
	write('a')
	m.snapshot("s")
	write('b')
	frozen, err := os.Open(m.frozen("s", "f"))
	need(t, err)
	defer frozen.Close()
	for name, of := range map[byte]*os.File{'a': frozen, 'b': f} {
		var st unix.Stat_t
		need(t, unix.Fstat(int(of.Fd()), &st))
		if st.Size != size || st.Blocks*512 > 16<<20 {
			t.Errorf("%c: %d bytes, %d blocks", name, st.Size, st.Blocks)
		}
		got := make([]byte, 3*4096)
		for i := range int64(pages) {
			off := max(0, i*(size/pages)-4096)
			_, err := of.ReadAt(got, off)
			need(t, err)
			want := make([]byte, len(got))
			at := int(i*(size/pages) - off)
			copy(want[at:], bytes.Repeat([]byte{name}, 4096))
			if !bytes.Equal(got, want) {
				t.Fatalf("%c at %d differs", name, off)
			}
		}
		if at, err := unix.Seek(int(of.Fd()), 1<<20, unix.SEEK_DATA); err != nil || at != size/pages {
			t.Errorf("%c: data follows at %d, %v", name, at, err)
		}
	}
	need(t, errors.Join(frozen.Close(), os.Remove(m.frozen("s"))))
}

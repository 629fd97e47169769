package snapfs_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// openData opens a file of the mount by its descriptor, until the end of the test.
func openData(t testing.TB, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	need(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// TestSeekOfUnwrittenData: data that only the kernel has is no hole, or cp(1) would leave it out.
func TestSeekOfUnwrittenData(t *testing.T) {
	m := newMount(t, writeback)
	fd := openData(t, m.live("f"), unix.O_RDWR|unix.O_CREAT)
	const at = 1 << 20
	_, err := unix.Pwrite(fd, []byte("data"), at)
	need(t, err)
	reader := openData(t, m.live("f"), unix.O_RDONLY)
	if got, err := unix.Seek(reader, 0, unix.SEEK_DATA); got != at || err != nil {
		t.Errorf("data is at %d, %v; want %d", got, err, at)
	}
	if got, err := unix.Seek(reader, at, unix.SEEK_HOLE); got != at+4 || err != nil {
		t.Errorf("it ends at %d, %v; want %d", got, err, at+4)
	}
}

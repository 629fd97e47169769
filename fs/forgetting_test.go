package fs

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// TestLateForget: a FORGET from before an inode was looked up again does not take it from who has it open.
func TestLateForget(t *testing.T) {
	m := newTestMount(t)
	path := filepath.Join(m.opt.MountPoint, "fifo")
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0) // which is no OPEN for us
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unlink(path); err != nil {
		t.Fatal(err)
	}
	late := snapshot.Ino(st.Ino)
	newFace(m).Forget(st.Ino, 1)
	for range 50 { // whatever comes of it comes beside
		if err := unix.Fstat(fd, &st); err != nil || st.Nlink != 0 {
			t.Fatalf("fstat of an unlinked file that is open: %v, %d links", err, st.Nlink)
		}
		time.Sleep(time.Millisecond)
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); m.store.Live().Nameless(late); time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the file was closed and is still there")
		}
	}
}

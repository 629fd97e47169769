package cow

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// xfsImage mounts a small xfs, whose files can share blocks, until the end of the test.
func xfsImage(t *testing.T) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount images")
	}
	top := tempDir(t)
	image, dir := filepath.Join(top, "image"), filepath.Join(top, "mnt")
	must(t, os.Mkdir(dir, 0o700))
	for _, args := range [][]string{{"truncate", "-s", "320M", image}, {"mkfs.xfs", "-q", "-f", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir
}

// TestWriteToClone (I6): a write to a page whose block is shared with another file is only accepted where the block that it will take is
// there. Both files of a clone are written, on a disk that has not enough room.
func TestWriteToClone(t *testing.T) {
	dir := xfsImage(t)
	t.Setenv("SNAPFS_TEST_DIR", dir)
	w := newWorld(t, Options{})
	const size = 12 << 20
	src, dst := w.create(), w.create()
	must(t, w.write(src, 0, fill(1, size)))
	must(t, w.copy(dst, w.file(src), w.live[src], 0, 0, size))
	must(t, w.pool.SyncBase())
	must(t, w.pool.base.use(dst, func(fd int) error {
		if unsharedUpTo(fd, 0, size) == size {
			t.Error("the copy is no clone")
		}
		return nil
	}))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	filler, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	defer filler.Close()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	must(t, unix.Fallocate(int(filler.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-55<<20))
	refused := 0
	for off := int64(0); off < size; off += 1 << 20 {
		for _, id := range []ID{src, dst} {
			if err := w.write(id, off, fill(byte(off>>20)+2, 1<<20)); errors.Is(err, unix.ENOSPC) {
				refused++
			} else {
				must(t, err)
			}
		}
	}
	if refused == 0 {
		t.Error("the disk was never full")
	}
	if err := w.pool.Flush(); err != nil {
		t.Errorf("what was accepted does not fit: %v", err)
	}
	w.verify()
	w.check()
	must(t, w.sync(src))
	must(t, w.sync(dst))
	w.closeFile(src)
	w.closeFile(dst)
	must(t, w.pool.Close())
}

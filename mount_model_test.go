package snapfs_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// The model of the live tree is a directory of the native file system that goes through the same system calls. The model
// of a snapshot is what could be read of the live tree when it was taken.

// twin is the mount and its model.
type twin struct {
	*mounted
	model     string
	snapshots map[string]tree
	next      int
	count     aspects // what of a snapshot is compared
}

// do makes the same call in both trees; both fail alike or not at all.
func (w *twin) do(t *rapid.T, what string, call func(root string) error) {
	want, got := call(w.model), call(w.mnt)
	var wantErrno, gotErrno unix.Errno
	errors.As(want, &wantErrno)
	errors.As(got, &gotErrno)
	if (want == nil) != (got == nil) || wantErrno != gotErrno {
		t.Fatalf("%s: got %v, the native file system says %v", what, got, want)
	}
}

// compare compares everything there is.
func (w *twin) compare(t *rapid.T) {
	live := readTree(w.t, w.mnt)
	if diffs := differences(readTree(w.t, w.model), live, portable); len(diffs) > 0 {
		t.Fatalf("the live tree differs: %s", diffs)
	}
	for name, want := range w.snapshots {
		if diffs := differences(want, readTree(w.t, w.frozen(name)), w.count); len(diffs) > 0 {
			t.Fatalf("snapshot %s differs: %s", name, diffs)
		}
	}
}

// Few names, so that calls meet.
var modelPaths = []string{"a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/c"}

func drawPath(t *rapid.T, label string) string { return rapid.SampledFrom(modelPaths).Draw(t, label) }

// drawOffset draws a place in a small file: around page limits, or anywhere.
func drawOffset(t *rapid.T, label string) int64 {
	return rapid.OneOf(
		rapid.SampledFrom([]int64{0, 1, 4095, 4096, 4097, 8192, 3 * 4096, 65536}),
		rapid.Int64Range(0, 80_000),
	).Draw(t, label)
}

// modelStep is one kind of call.
type modelStep struct {
	name   string
	weight int
	do     func(w *twin, t *rapid.T)
}

func modelSteps() []modelStep {
	return []modelStep{
		{"write", 6, stepWrite}, {"create", 3, stepCreate}, {"truncate", 3, stepTruncate}, {"fallocate", 3, stepFallocate},
		{"copy", 2, stepCopy}, {"mkdir", 3, stepMkdir}, {"remove", 3, stepRemove}, {"rename", 4, stepRename},
		{"link", 2, stepLink}, {"symlink", 1, stepSymlink}, {"mknod", 1, stepMknod}, {"attributes", 2, stepAttributes},
		{"xattr", 2, stepXattr}, {"sync", 1, stepSync}, {"snapshot", 4, stepSnapshot}, {"delete", 2, stepDelete},
		{"remount", 1, func(w *twin, _ *rapid.T) { w.remount() }},
	}
}

// withFile opens a file in each tree for one call.
func (w *twin) withFile(t *rapid.T, what, path string, flags int, call func(fd int) error) {
	w.do(t, what+" "+path, func(root string) error {
		fd, err := unix.Open(filepath.Join(root, path), flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return errors.Join(err, unix.Close(fd))
		}
		return errors.Join(call(fd), unix.Close(fd))
	})
}

func stepWrite(w *twin, t *rapid.T) {
	path, off := drawPath(t, "path"), drawOffset(t, "off")
	n := int(drawOffset(t, "n"))
	seed := rapid.Byte().Draw(t, "seed")
	data := make([]byte, n)
	for i := range data {
		data[i] = seed + byte(i/7)
	}
	flags := rapid.SampledFrom([]int{0, unix.O_APPEND, unix.O_TRUNC, unix.O_CREAT}).Draw(t, "flags")
	w.withFile(t, fmt.Sprintf("write %d at %d, flags %#x,", n, off, flags), path, unix.O_RDWR|flags, func(fd int) error {
		written, err := unix.Pwrite(fd, data, off)
		if err == nil && written != n {
			err = unix.EIO
		}
		return err
	})
}

func stepCreate(w *twin, t *rapid.T) {
	path := drawPath(t, "path")
	mode := rapid.SampledFrom([]uint32{0o644, 0o600, 0o4755, 0o666}).Draw(t, "mode")
	w.do(t, "create "+path, func(root string) error {
		fd, err := unix.Open(filepath.Join(root, path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, mode)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
}

func stepTruncate(w *twin, t *rapid.T) {
	path, size := drawPath(t, "path"), drawOffset(t, "size")
	w.withFile(t, fmt.Sprintf("truncate to %d", size), path, unix.O_WRONLY, func(fd int) error {
		return unix.Ftruncate(fd, size)
	})
}

func stepFallocate(w *twin, t *rapid.T) {
	path, off, n := drawPath(t, "path"), drawOffset(t, "off"), 1+drawOffset(t, "n")
	mode := rapid.SampledFrom([]uint32{
		0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
	}).Draw(t, "mode")
	w.withFile(t, fmt.Sprintf("fallocate %#x of %d at %d", mode, n, off), path, unix.O_RDWR, func(fd int) error {
		return unix.Fallocate(fd, mode, off, n)
	})
}

// stepCopy copies within the live tree, by copy_file_range(2).
func stepCopy(w *twin, t *rapid.T) {
	from, to := drawPath(t, "from"), drawPath(t, "to")
	off, at, n := drawOffset(t, "off"), drawOffset(t, "at"), int(drawOffset(t, "n"))
	if from == to {
		return // overlaps are for another test
	}
	w.withFile(t, fmt.Sprintf("copy %d at %d to %s at %d from", n, off, to, at), from, unix.O_RDONLY, func(in int) error {
		dir := "/proc/self/fd/" + fmt.Sprint(in)
		path, err := os.Readlink(dir)
		if err != nil {
			return err
		}
		root := path[:len(path)-len(from)]
		out, err := unix.Open(root+to, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(out)
		var a, b unix.Stat_t
		if unix.Fstat(in, &a) != nil || unix.Fstat(out, &b) != nil || a.Ino == b.Ino || b.Mode&unix.S_IFMT != unix.S_IFREG {
			return nil
		}
		src, dst := off, at
		for done := 0; done < n; {
			k, err := unix.CopyFileRange(in, &src, out, &dst, n-done, 0)
			if err != nil || k == 0 {
				return err
			}
			done += k
		}
		return nil
	})
}

func stepMkdir(w *twin, t *rapid.T) {
	path := drawPath(t, "path")
	w.do(t, "mkdir "+path, func(root string) error { return unix.Mkdir(filepath.Join(root, path), 0o755) })
}

func stepRemove(w *twin, t *rapid.T) {
	path := drawPath(t, "path")
	flags := rapid.SampledFrom([]int{0, unix.AT_REMOVEDIR}).Draw(t, "flags")
	w.do(t, fmt.Sprintf("remove %s, flags %d", path, flags), func(root string) error {
		return unix.Unlinkat(unix.AT_FDCWD, filepath.Join(root, path), flags)
	})
}

func stepRename(w *twin, t *rapid.T) {
	from, to := drawPath(t, "from"), drawPath(t, "to")
	flags := rapid.SampledFrom([]uint{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(t, "flags")
	w.do(t, fmt.Sprintf("rename %s to %s, flags %d", from, to, flags), func(root string) error {
		return rename(filepath.Join(root, from), filepath.Join(root, to), flags)
	})
}

func stepLink(w *twin, t *rapid.T) {
	from, to := drawPath(t, "from"), drawPath(t, "to")
	w.do(t, "link "+from+" to "+to, func(root string) error {
		return unix.Link(filepath.Join(root, from), filepath.Join(root, to))
	})
}

func stepSymlink(w *twin, t *rapid.T) {
	path := drawPath(t, "path")
	w.do(t, "symlink "+path, func(root string) error { return unix.Symlink("target of "+path, filepath.Join(root, path)) })
}

func stepMknod(w *twin, t *rapid.T) {
	path := drawPath(t, "path")
	mode := rapid.SampledFrom([]uint32{unix.S_IFIFO | 0o600, unix.S_IFSOCK | 0o644, unix.S_IFREG | 0o640}).Draw(t, "mode")
	w.do(t, "mknod "+path, func(root string) error { return unix.Mknod(filepath.Join(root, path), mode, 0) })
}

func stepAttributes(w *twin, t *rapid.T) {
	path := drawPath(t, "path")
	mode := rapid.SampledFrom([]uint32{0o755, 0o700, 0o7777, 0o644}).Draw(t, "mode")
	w.do(t, "chmod "+path, func(root string) error {
		return unix.Fchmodat(unix.AT_FDCWD, filepath.Join(root, path), mode, 0)
	})
	if os.Geteuid() == 0 {
		uid := rapid.SampledFrom([]int{-1, 0, 7}).Draw(t, "uid")
		gid := rapid.SampledFrom([]int{-1, 0, 8}).Draw(t, "gid")
		w.do(t, "chown "+path, func(root string) error { return unix.Lchown(filepath.Join(root, path), uid, gid) })
	}
}

func stepXattr(w *twin, t *rapid.T) {
	path := drawPath(t, "path")
	name := rapid.SampledFrom([]string{"user.a", "user.b"}).Draw(t, "name")
	value := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "value")
	flags := rapid.SampledFrom([]int{0, unix.XATTR_CREATE, unix.XATTR_REPLACE, -1}).Draw(t, "flags")
	w.do(t, fmt.Sprintf("xattr %s of %s, flags %d", name, path, flags), func(root string) error {
		if flags < 0 {
			return unix.Lremovexattr(filepath.Join(root, path), name)
		}
		return unix.Lsetxattr(filepath.Join(root, path), name, value, flags)
	})
}

func stepSync(w *twin, t *rapid.T) {
	w.withFile(t, "fsync", drawPath(t, "path"), unix.O_RDONLY, unix.Fsync)
}

func stepSnapshot(w *twin, t *rapid.T) {
	if len(w.snapshots) >= 5 {
		return
	}
	w.next++
	name := fmt.Sprint("s", w.next)
	want := readTree(w.t, w.mnt)
	if rapid.Bool().Draw(t, "mkdir") {
		need(w.t, os.Mkdir(w.frozen(name), 0o755))
	} else {
		w.snapshot(name)
	}
	w.snapshots[name] = want
}

func stepDelete(w *twin, t *rapid.T) {
	var names []string
	for name := range w.snapshots {
		names = append(names, name)
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	name := rapid.SampledFrom(names).Draw(t, "snapshot")
	need(w.t, os.Remove(w.frozen(name)))
	delete(w.snapshots, name)
}

// TestModel goes through random calls and compares. Each check mounts: fewer of them, unless -rapid.checks says otherwise.
func TestModel(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		need(t, checks.Value.Set("30"))
	}
	t.Run("write-through", func(t *testing.T) { rapid.Check(t, modelCheck(t, everything)) })
	// With writeback the kernel also holds back the times of files, even of those that nobody has open.
	t.Run("writeback", func(t *testing.T) { rapid.Check(t, modelCheck(t, everything&^(aspectTimes|aspectAtime), writeback)) })
}

func modelCheck(t *testing.T, count aspects, options ...func(*mounted)) func(*rapid.T) {
	var weighted []modelStep
	for _, s := range modelSteps() {
		for range s.weight {
			weighted = append(weighted, s)
		}
	}
	names := make([]int, len(weighted))
	for i := range names {
		names[i] = i
	}
	return func(rt *rapid.T) {
		w := &twin{mounted: newMount(t, options...), model: t.TempDir(), snapshots: make(map[string]tree), count: count}
		defer w.stop()
		need(t, os.Chmod(w.model, 0o755))
		for range rapid.IntRange(1, 100).Draw(rt, "steps") {
			step := weighted[rapid.SampledFrom(names).Draw(rt, "step")]
			rt.Log(step.name)
			step.do(w, rt)
		}
		w.compare(rt)
	}
}

package snapfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func rename(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
}

func TestRename(t *testing.T) {
	m := newMount(t)
	for i, path := range []string{"a", "b", "d/x"} {
		need(t, os.MkdirAll(filepath.Dir(m.live(path)), 0o755))
		writeFile(t, m.live(path), fmt.Sprint(i))
	}
	need(t, os.Mkdir(m.live("e"), 0o755))
	m.snapshot("before")

	wantErrno(t, "noreplace over a file", rename(m.live("a"), m.live("b"), unix.RENAME_NOREPLACE), unix.EEXIST)
	need(t, rename(m.live("a"), m.live("c"), unix.RENAME_NOREPLACE))
	wantFile(t, m.live("c"), "0")
	need(t, rename(m.live("b"), m.live("d"), unix.RENAME_EXCHANGE)) // a file and a directory
	wantFile(t, m.live("d"), "1")
	wantFile(t, m.live("b/x"), "2")
	wantErrno(t, "exchange with nothing", rename(m.live("b"), m.live("none"), unix.RENAME_EXCHANGE), unix.ENOENT)
	wantErrno(t, "directory over file", rename(m.live("b"), m.live("d"), 0), unix.ENOTDIR)
	wantErrno(t, "file over directory", rename(m.live("d"), m.live("e"), 0), unix.EISDIR)
	wantErrno(t, "directory over full one", rename(m.live("e"), m.live("b"), 0), unix.ENOTEMPTY)
	wantErrno(t, "directory into itself", rename(m.live("b"), m.live("b/y"), 0), unix.EINVAL)
	need(t, rename(m.live("b"), m.live("e"), 0)) // over an empty one
	need(t, rename(m.live("d"), m.live("c"), 0)) // over a file
	wantFile(t, m.live("c"), "1")
	wantNames(t, m.mnt, "c", "e")
	wantNames(t, m.live("e"), "x")

	wantFile(t, m.frozen("before", "a"), "0")
	wantFile(t, m.frozen("before", "b"), "1")
	wantFile(t, m.frozen("before", "d/x"), "2")
	wantNames(t, m.frozen("before"), "a", "b", "d", "e")
	live := readTree(t, m.mnt)
	m.remount()
	wantSameTree(t, "after a remount", live, readTree(t, m.mnt), everything)
}

func TestOpenFilesOutliveTheirNames(t *testing.T) {
	m := newMount(t)
	writeFile(t, m.live("file"), "kept")
	m.snapshot("named")
	f, err := os.OpenFile(m.live("file"), os.O_RDWR, 0)
	need(t, err)
	defer f.Close()
	writeFile(t, m.live("other"), "other")
	need(t, os.Rename(m.live("other"), m.live("file")))

	_, err = f.WriteAt([]byte("written after"), 0)
	need(t, err)
	m.snapshot("orphan")
	got, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
	need(t, err)
	if string(got) != "written after" {
		t.Errorf("the unlinked file holds %q", got)
	}
	need(t, f.Truncate(3))
	need(t, f.Chmod(0o600))
	need(t, f.Sync())
	info, err := f.Stat()
	need(t, err)
	if info.Size() != 3 || info.Mode() != 0o600 {
		t.Errorf("the unlinked file is %v of %d bytes", info.Mode(), info.Size())
	}
	wantFile(t, m.live("file"), "other")
	wantFile(t, m.frozen("named", "file"), "kept")
	wantFile(t, m.frozen("orphan", "file"), "other")

	frozen, err := os.Open(m.frozen("named", "file"))
	need(t, err)
	defer frozen.Close()
	need(t, os.Remove(m.frozen("named")))
	if got, err := io.ReadAll(frozen); err != nil || string(got) != "kept" {
		t.Errorf("an open file of a deleted snapshot reads %q, %v", got, err)
	}
}

func TestDeletedDirectoryInUse(t *testing.T) {
	m := newMount(t)
	need(t, os.Mkdir(m.live("d"), 0o755))
	dir, err := os.Open(m.live("d"))
	need(t, err)
	defer dir.Close()
	need(t, os.Remove(m.live("d")))
	if _, err := dir.Stat(); err != nil {
		t.Errorf("stat of a removed open directory: %v", err)
	}
	_, err = unix.Openat(int(dir.Fd()), "new", unix.O_CREAT|unix.O_WRONLY, 0o644)
	wantErrno(t, "create in a removed directory", err, unix.ENOENT)
}

// extents returns the data extents of a file as lseek(2) tells them.
func extents(t testing.TB, path string) (list [][2]int64) {
	t.Helper()
	f, err := os.Open(path)
	need(t, err)
	defer f.Close()
	for off := int64(0); ; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return list
		}
		need(t, err)
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		need(t, err)
		list = append(list, [2]int64{data, hole})
		off = hole
	}
}

func TestSparseFiles(t *testing.T) {
	m := newMount(t)
	const mib = 1 << 20
	f, err := os.Create(m.live("sparse"))
	need(t, err)
	defer f.Close()
	block := bytes.Repeat([]byte{7}, mib)
	for _, off := range []int64{0, 4 * mib} {
		_, err := f.WriteAt(block, off)
		need(t, err)
	}
	need(t, f.Truncate(8*mib))
	want := [][2]int64{{0, mib}, {4 * mib, 5 * mib}}
	if got := extents(t, m.live("sparse")); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("data at %v, want %v", got, want)
	}
	m.snapshot("full")
	need(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, mib/2))
	need(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, 4*mib, mib/2))
	need(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 8*mib, mib))
	need(t, unix.Fallocate(int(f.Fd()), 0, 9*mib, mib))
	need(t, f.Sync())

	wantBytes := make([]byte, 10*mib)
	copy(wantBytes[mib/2:mib], block)
	copy(wantBytes[4*mib+mib/2:5*mib], block)
	got, err := os.ReadFile(m.live("sparse"))
	need(t, err)
	if !bytes.Equal(got, wantBytes) {
		t.Errorf("punched file of %d bytes has wrong content", len(got))
	}
	if got := extents(t, m.frozen("full", "sparse")); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("data in the snapshot at %v, want %v", got, want)
	}
	wantBytes = make([]byte, 8*mib)
	copy(wantBytes, block)
	copy(wantBytes[4*mib:], block)
	if got, err := os.ReadFile(m.frozen("full", "sparse")); err != nil || !bytes.Equal(got, wantBytes) {
		t.Errorf("the snapshot of the file changed: %d bytes, %v", len(got), err)
	}
	wantErrno(t, "collapse", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096), unix.EOPNOTSUPP)
}

// TestAllocatedBlocks checks that st_blocks follows what a file occupies, live and with a warm attribute cache.
func TestAllocatedBlocks(t *testing.T) {
	m := newMount(t)
	blocks := func() int64 {
		var st unix.Stat_t
		need(t, unix.Stat(m.live("f"), &st))
		return st.Blocks * 512
	}
	f, err := os.Create(m.live("f"))
	need(t, err)
	defer f.Close()
	_, err = f.Write(make([]byte, 1<<20))
	need(t, err)
	need(t, f.Sync())
	if got := blocks(); got < 1<<20 || got > 1<<20+64<<10 {
		t.Errorf("1 MiB of zeros occupies %d bytes", got)
	}
	need(t, unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20))
	need(t, f.Sync())
	if got := blocks(); got > 64<<10 {
		t.Errorf("a file that is all hole occupies %d bytes", got)
	}
}

func TestCopyFileRange(t *testing.T) {
	m := newMount(t)
	text := strings.Repeat("0123456789abcdef", 10_000)
	writeFile(t, m.live("src"), text)
	m.snapshot("s")
	writeFile(t, m.live("src"), "changed")
	writeFile(t, m.live("dst"), "old content")

	src, err := os.Open(m.frozen("s", "src"))
	need(t, err)
	defer src.Close()
	dst, err := os.OpenFile(m.live("dst"), os.O_RDWR, 0)
	need(t, err)
	defer dst.Close()
	var from, to int64 = 16, 4
	for from < int64(len(text)) {
		n, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, len(text), 0)
		need(t, err)
		if n == 0 {
			t.Fatal("copy_file_range ends early")
		}
	}
	wantFile(t, m.live("dst"), "old "+text[16:])
	_, err = unix.CopyFileRange(int(dst.Fd()), nil, int(src.Fd()), nil, 10, 0)
	wantErrno(t, "copy into a file open for reading", err, unix.EBADF)
}

func TestXattrs(t *testing.T) {
	m := newMount(t)
	path := m.live("f")
	writeFile(t, path, "x")
	need(t, unix.Setxattr(path, "user.a", []byte("one"), unix.XATTR_CREATE))
	wantErrno(t, "create twice", unix.Setxattr(path, "user.a", nil, unix.XATTR_CREATE), unix.EEXIST)
	wantErrno(t, "replace none", unix.Setxattr(path, "user.b", nil, unix.XATTR_REPLACE), unix.ENODATA)
	m.snapshot("s")
	need(t, unix.Setxattr(path, "user.a", []byte("two"), unix.XATTR_REPLACE))
	need(t, unix.Setxattr(path, "user.b", bytes.Repeat([]byte{9}, 60_000), 0))
	value := make([]byte, 100)
	n, err := unix.Getxattr(path, "user.a", value)
	if err != nil || string(value[:n]) != "two" {
		t.Errorf("user.a is %q, %v", value[:n], err)
	}
	_, err = unix.Getxattr(path, "user.b", value)
	wantErrno(t, "short buffer", err, unix.ERANGE)
	if n, err := unix.Getxattr(path, "user.b", nil); n != 60_000 || err != nil {
		t.Errorf("size of user.b: %d, %v", n, err)
	}
	n, err = unix.Getxattr(m.frozen("s", "f"), "user.a", value)
	if err != nil || string(value[:n]) != "one" {
		t.Errorf("user.a in the snapshot is %q, %v", value[:n], err)
	}
	_, err = unix.Getxattr(m.frozen("s", "f"), "user.b", value)
	wantErrno(t, "later xattr in the snapshot", err, unix.ENODATA)
	need(t, unix.Removexattr(path, "user.a"))
	wantErrno(t, "remove twice", unix.Removexattr(path, "user.a"), unix.ENODATA)
}

func TestTimes(t *testing.T) {
	m := newMount(t)
	path := m.live("f")
	writeFile(t, path, "x")
	stat := func(path string) (st unix.Stat_t) {
		t.Helper()
		need(t, unix.Lstat(path, &st))
		return st
	}
	for _, ts := range []unix.Timespec{{Sec: 0, Nsec: 1}, {Sec: -1 << 33, Nsec: 999_999_999}, {Sec: 1 << 34, Nsec: 5}} {
		setTimes(t, path, ts, unix.Timespec{Sec: ts.Sec + 1, Nsec: ts.Nsec})
		if st := stat(path); st.Atim != ts || st.Mtim.Sec != ts.Sec+1 || st.Mtim.Nsec != ts.Nsec {
			t.Errorf("times set to %v are %v and %v", ts, st.Atim, st.Mtim)
		}
	}
	before := stat(path)
	setTimes(t, path, unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW})
	after := stat(path)
	if after.Atim != before.Atim || after.Mtim == before.Mtim || after.Ctim == before.Ctim {
		t.Errorf("omit and now: from %v to %v", before, after)
	}
	dir := stat(m.mnt)
	writeFile(t, m.live("new"), "")
	if now := stat(m.mnt); now.Mtim == dir.Mtim || now.Ctim == dir.Ctim {
		t.Error("a new name does not change the times of its directory")
	}
	var stx unix.Statx_t
	need(t, unix.Statx(unix.AT_FDCWD, m.live("new"), 0, unix.STATX_BTIME, &stx))
	if stx.Mask&unix.STATX_BTIME == 0 || stx.Btime.Sec < after.Mtim.Sec {
		t.Errorf("time of birth: mask %#x, %v", stx.Mask, stx.Btime)
	}
}

func TestPrivilegeBits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root to be somebody else")
	}
	m := newMount(t)
	need(t, os.Chmod(m.mnt, 0o777))
	path := m.live("suid")
	mode := func() uint32 {
		var st unix.Stat_t
		need(t, unix.Stat(path, &st))
		return st.Mode & 0o7777
	}
	reset := func() {
		need(t, os.Chown(path, 1000, 1000))
		need(t, unix.Chmod(path, 0o6777))
	}
	writeFile(t, path, "text")
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"write", func() error { return asUser(1000, func() error { return appendTo(path, "more") }) }},
		{"write by somebody else", func() error { return asUser(1001, func() error { return appendTo(path, "more") }) }},
		{"truncate", func() error { return asUser(1000, func() error { return unix.Truncate(path, 2) }) }},
		{"O_TRUNC", func() error { return asUser(1000, func() error { return os.WriteFile(path, nil, 0) }) }},
		{"chown", func() error { return os.Chown(path, 1001, 1001) }},
		{"chown to nobody else", func() error { return os.Chown(path, -1, -1) }},
		{"fallocate", func() error {
			return asUser(1000, func() error {
				return changeFile(path, func(fd int) error { return unix.Fallocate(fd, 0, 0, 100) })
			})
		}},
		{"fallocate by somebody else", func() error {
			return asUser(1001, func() error {
				return changeFile(path, func(fd int) error { return unix.Fallocate(fd, 0, 0, 100) })
			})
		}},
		{"copy_file_range", func() error {
			return asUser(1000, func() error {
				return changeFile(path, func(fd int) error {
					var to int64 = 50
					_, err := unix.CopyFileRange(fd, new(int64), fd, &to, 2, 0)
					return err
				})
			})
		}},
	} {
		reset()
		need(t, c.change())
		if got := mode(); got != 0o777 {
			t.Errorf("after %s the mode is %o, want 777", c.name, got)
		}
	}
	reset()
	need(t, appendTo(path, "root may"))
	if got := mode(); got != 0o6777 {
		t.Errorf("after a write of root the mode is %o, want 6777", got)
	}
}

// changeFile opens a file for one call.
func changeFile(path string, call func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(call(fd), unix.Close(fd))
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// asUser runs do as another user, for the file system: only this thread changes.
func asUser(uid int, do func() error) error {
	return onThread(func() error {
		if err := unix.Setfsgid(uid); err != nil {
			return err
		}
		if err := unix.Setfsuid(uid); err != nil { // drops the file capabilities of root, too
			return err
		}
		return do()
	})
}

func TestPermissions(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root to be somebody else")
	}
	m := newMount(t)
	writeFile(t, m.live("secret"), "s")
	need(t, os.Chmod(m.live("secret"), 0o600))
	need(t, os.Mkdir(m.live("shared"), 0o777))
	need(t, unix.Chmod(m.live("shared"), 0o2777))
	need(t, os.Chown(m.live("shared"), 0, 77))
	m.snapshot("s")
	need(t, asUser(1000, func() error {
		_, err := os.ReadFile(m.live("secret"))
		wantErrno(t, "read of a foreign file", err, unix.EACCES)
		_, err = os.ReadFile(m.frozen("s", "secret"))
		wantErrno(t, "read of a foreign file in a snapshot", err, unix.EACCES)
		wantErrno(t, "snapshot by a stranger", os.Mkdir(m.frozen("mine"), 0o755), unix.EACCES)
		wantErrno(t, "deletion by a stranger", os.Remove(m.frozen("s")), unix.EACCES)
		wantErrno(t, "renaming by a stranger", os.Rename(m.frozen("s"), m.frozen("t")), unix.EACCES)
		wantErrno(t, "create in the root", os.Mkdir(m.live("mine"), 0o755), unix.EACCES)
		if err := os.Mkdir(m.live("shared/dir"), 0o755); err != nil {
			return err
		}
		return os.WriteFile(m.live("shared/file"), nil, 0o644)
	}))
	var st unix.Stat_t
	need(t, unix.Stat(m.live("shared/dir"), &st))
	if st.Uid != 1000 || st.Gid != 77 || st.Mode != unix.S_IFDIR|0o2755 {
		t.Errorf("a directory in a setgid one: owner %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
	}
	need(t, unix.Stat(m.live("shared/file"), &st))
	if st.Uid != 1000 || st.Gid != 77 || st.Mode != unix.S_IFREG|0o644 {
		t.Errorf("a file in a setgid directory: owner %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
	}
}

func TestNames(t *testing.T) {
	m := newMount(t)
	long := strings.Repeat("é", 128) // 256 bytes
	for _, call := range []struct {
		name string
		err  error
	}{
		{"mkdir", os.Mkdir(m.live(long), 0o755)},
		{"create", os.WriteFile(m.live(long), nil, 0o644)},
		{"symlink", os.Symlink("x", m.live(long))},
		{"stat", unix.Access(m.live(long), unix.F_OK)},
		{"mkdir in .snapshots", os.Mkdir(m.frozen(long), 0o755)},
	} {
		wantErrno(t, call.name+" of a name of 256 bytes", call.err, unix.ENAMETOOLONG)
	}
	need(t, os.Mkdir(m.live(long[:254]+"x"), 0o755))
}

// TestListingWhileChanging reads a directory in small steps while names come and go: those that stay are listed once.
func TestListingWhileChanging(t *testing.T) {
	m := newMount(t)
	const stay = 400
	for i := range stay {
		writeFile(t, m.live(fmt.Sprintf("stay%03d", i)), "")
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			path := m.live(fmt.Sprintf("come%d", i%50))
			if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Rename(path, path+"go"), os.Remove(path+"go")); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 20 {
		seen := make(map[string]int)
		dir, err := os.Open(m.mnt)
		need(t, err)
		for {
			names, err := dir.Readdirnames(7)
			for _, name := range names {
				seen[name]++
			}
			if err == io.EOF {
				break
			}
			need(t, err)
		}
		dir.Close()
		for i := range stay {
			if name := fmt.Sprintf("stay%03d", i); seen[name] != 1 {
				t.Errorf("%s is listed %d times", name, seen[name])
			}
		}
	}
	close(stop)
	wg.Wait()
}

func TestManyOpenFiles(t *testing.T) {
	var limit syscall.Rlimit
	need(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	n := min(2000, int(limit.Cur)-200)
	m := newMount(t)
	files := make([]*os.File, n)
	for i := range files {
		f, err := os.Create(m.live(fmt.Sprint(i)))
		need(t, err)
		defer f.Close()
		files[i] = f
	}
	for i, f := range files {
		_, err := fmt.Fprint(f, i)
		need(t, err)
	}
	m.snapshot("s")
	for i := range files {
		wantFile(t, m.frozen("s", fmt.Sprint(i)), fmt.Sprint(i))
	}
}

// tryLocks tries to lock a file in both ways and says what came of it.
func tryLocks(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Len: 10}
	fmt.Println(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock))
	fmt.Println(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	return nil
}

// TestLocks: locks exclude another process, of each kind, by range and until they are given back.
func TestLocks(t *testing.T) {
	m := newMount(t)
	path := m.live("f")
	writeFile(t, path, "some text")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	need(t, err)
	defer f.Close()
	other := func(fcntl, flock error) {
		t.Helper()
		a := startRole(t, "locker", path)
		got := [2]string{a.hear(), a.hear()}
		if want := [2]string{fmt.Sprint(fcntl), fmt.Sprint(flock)}; got != want {
			t.Errorf("another process gets %q, want %q", got, want)
		}
		a.end()
	}
	other(nil, nil)
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 5, Len: 10}
	need(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock))
	other(unix.EAGAIN, nil)
	need(t, unix.Flock(int(f.Fd()), unix.LOCK_SH))
	other(unix.EAGAIN, unix.EAGAIN)
	lock = unix.Flock_t{Type: unix.F_UNLCK, Len: 10}
	need(t, unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock))
	other(nil, unix.EAGAIN)
	need(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	other(nil, nil)
}

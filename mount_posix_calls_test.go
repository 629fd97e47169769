package snapfs_test

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The system calls of the scripts. Each makes its call, with a path relative to the place, and records it.

// openFile is what a script has open.
type openFile struct {
	p    *place
	fd   int
	name string
}

// brief shortens a path for the record.
func brief(path string) string {
	if len(path) > 60 {
		return fmt.Sprintf("%.20q...(%d bytes)", path, len(path))
	}
	if path == "" || strings.ContainsAny(path, " \n") {
		return fmt.Sprintf("%q", path)
	}
	return path
}

var openFlagNames = []struct {
	bits int
	name string
}{
	{unix.O_TMPFILE, "TMPFILE"}, {unix.O_SYNC, "SYNC"}, {unix.O_WRONLY, "WRONLY"}, {unix.O_RDWR, "RDWR"}, {unix.O_CREAT, "CREAT"},
	{unix.O_EXCL, "EXCL"}, {unix.O_TRUNC, "TRUNC"}, {unix.O_APPEND, "APPEND"}, {unix.O_NONBLOCK, "NONBLOCK"}, {unix.O_DSYNC, "DSYNC"},
	{unix.O_DIRECT, "DIRECT"}, {unix.O_DIRECTORY, "DIRECTORY"}, {unix.O_NOFOLLOW, "NOFOLLOW"}, {unix.O_NOATIME, "NOATIME"}, {unix.O_PATH, "PATH"},
}

func flagText(flags int) string {
	names := []string{}
	for _, f := range openFlagNames {
		if flags&f.bits == f.bits {
			names = append(names, f.name)
			flags &^= f.bits
		}
	}
	if len(names) == 0 {
		return "RDONLY"
	}
	return strings.Join(names, "|")
}

func (p *place) open(path string, flags int, mode uint32) *openFile {
	p.t.Helper()
	return p.openat(unix.AT_FDCWD, path, flags, mode)
}

func (p *place) openat(dirfd int, path string, flags int, mode uint32) *openFile {
	p.t.Helper()
	fd, err := openRetry(dirfd, path, flags, mode)
	p.did(fmt.Sprintf("open %s %s %#o", brief(path), flagText(flags), mode), err)
	return &openFile{p, fd, brief(path)}
}

// openRetry repeats what a signal interrupted: the runtime sends them to itself.
func openRetry(dirfd int, path string, flags int, mode uint32) (fd int, err error) {
	for {
		fd, err = unix.Openat(dirfd, path, flags|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// try opens and closes.
func (p *place) try(path string, flags int, mode uint32) {
	p.t.Helper()
	p.open(path, flags, mode).drop()
}

// drop closes without a record.
func (f *openFile) drop() {
	if f.fd >= 0 {
		unix.Close(f.fd)
	}
}

func (f *openFile) did(call string, err error, results ...any) {
	f.p.t.Helper()
	f.p.did(strings.Replace(call, "@", "@"+f.name, 1), err, results...)
}

func (f *openFile) close() { f.p.t.Helper(); f.did("close @", unix.Close(f.fd)) }

func (f *openFile) stat() {
	f.p.t.Helper()
	var st unix.Statx_t
	err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st)
	f.did("fstat @", err, statText(&st))
}

func (f *openFile) write(text string) {
	f.p.t.Helper()
	n, err := unix.Write(f.fd, []byte(text))
	f.did(fmt.Sprintf("write @ %.20q", text), err, n)
}

func (f *openFile) pwrite(text string, off int64) {
	f.p.t.Helper()
	n, err := unix.Pwrite(f.fd, []byte(text), off)
	f.did(fmt.Sprintf("pwrite @ %.20q %d", text, off), err, n)
}

func (f *openFile) pread(n int, off int64) {
	f.p.t.Helper()
	buf := make([]byte, n)
	n, err := unix.Pread(f.fd, buf, off)
	f.did(fmt.Sprintf("pread @ %d %d", len(buf), off), err, fmt.Sprintf("%q", buf[:max(n, 0)]))
}

func (f *openFile) seek(off int64, whence int) {
	f.p.t.Helper()
	at, err := unix.Seek(f.fd, off, whence)
	f.did(fmt.Sprintf("lseek @ %d %d", off, whence), err, at)
}

func (f *openFile) truncate(size int64) {
	f.p.t.Helper()
	f.did(fmt.Sprintf("ftruncate @ %d", size), unix.Ftruncate(f.fd, size))
}

func (f *openFile) fallocate(mode uint32, off, n int64) {
	f.p.t.Helper()
	f.did(fmt.Sprintf("fallocate @ %#x %d %d", mode, off, n), unix.Fallocate(f.fd, mode, off, n))
}

func (f *openFile) chmod(mode uint32) {
	f.p.t.Helper()
	f.did(fmt.Sprintf("fchmod @ %#o", mode), unix.Fchmod(f.fd, mode))
}

func (f *openFile) chown(uid, gid int) {
	f.p.t.Helper()
	f.did(fmt.Sprintf("fchown @ %d %d", uid, gid), unix.Fchown(f.fd, uid, gid))
}

func (f *openFile) sync() { f.p.t.Helper(); f.did("fsync @", unix.Fsync(f.fd)) }

// list records the names in an open directory, from where it stands.
func (f *openFile) list() {
	f.p.t.Helper()
	buf := make([]byte, 4096)
	names := []string{}
	for {
		ents, err := getdents(f.fd, buf)
		if err != nil || len(ents) == 0 {
			slices.Sort(names)
			f.did("getdents @", err, names)
			return
		}
		for _, e := range ents {
			names = append(names, e.name)
		}
	}
}

func (p *place) write(path, text string) {
	p.t.Helper()
	fd, err := openRetry(unix.AT_FDCWD, path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o644)
	if err == nil {
		_, err = unix.Write(fd, []byte(text))
		unix.Close(fd)
	}
	p.did(fmt.Sprintf("put %s %.20q", brief(path), text), err)
}

func (p *place) mkdir(path string, mode uint32) {
	p.t.Helper()
	p.did(fmt.Sprintf("mkdir %s %#o", brief(path), mode), unix.Mkdir(path, mode))
}

func (p *place) mknod(path string, mode uint32, major, minor uint32) {
	p.t.Helper()
	p.did(fmt.Sprintf("mknod %s %#o %d,%d", brief(path), mode, major, minor), unix.Mknod(path, mode, int(unix.Mkdev(major, minor))))
}

func (p *place) symlink(target, path string) {
	p.t.Helper()
	p.did(fmt.Sprintf("symlink %s %s", brief(target), brief(path)), unix.Symlink(target, path))
}

func (p *place) link(old, path string) { p.t.Helper(); p.linkat(old, path, 0) }

func (p *place) linkat(old, path string, flags int) {
	p.t.Helper()
	err := unix.Linkat(unix.AT_FDCWD, old, unix.AT_FDCWD, path, flags)
	p.did(fmt.Sprintf("link %s %s %#x", brief(old), brief(path), flags), err)
}

func (p *place) unlink(path string) {
	p.t.Helper()
	p.did("unlink "+brief(path), unix.Unlinkat(unix.AT_FDCWD, path, 0))
}

func (p *place) rmdir(path string) {
	p.t.Helper()
	p.did("rmdir "+brief(path), unix.Unlinkat(unix.AT_FDCWD, path, unix.AT_REMOVEDIR))
}

func (p *place) rename(from, to string, flags uint) {
	p.t.Helper()
	p.did(fmt.Sprintf("rename %s %s %#x", brief(from), brief(to), flags), rename(from, to, flags))
}

func (p *place) chmod(path string, mode uint32) {
	p.t.Helper()
	p.did(fmt.Sprintf("chmod %s %#o", brief(path), mode), unix.Chmod(path, mode))
}

func (p *place) chown(path string, uid, gid int) {
	p.t.Helper()
	p.did(fmt.Sprintf("lchown %s %d %d", brief(path), uid, gid), unix.Lchown(path, uid, gid))
}

func (p *place) truncate(path string, size int64) {
	p.t.Helper()
	p.did(fmt.Sprintf("truncate %s %d", brief(path), size), unix.Truncate(path, size))
}

// Times for utimes.
var (
	now  = unix.Timespec{Nsec: unix.UTIME_NOW}
	omit = unix.Timespec{Nsec: unix.UTIME_OMIT}
)

func timeText(ts unix.Timespec) string {
	switch ts {
	case now:
		return "NOW"
	case omit:
		return "OMIT"
	}
	return fmt.Sprintf("%d.%d", ts.Sec, ts.Nsec)
}

func (p *place) utimes(path string, atime, mtime unix.Timespec) {
	p.t.Helper()
	err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
	p.did(fmt.Sprintf("utimes %s %s %s", brief(path), timeText(atime), timeText(mtime)), err)
}

// times records the access and modification times, which are to be what was set.
func (p *place) times(path string) {
	p.t.Helper()
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	p.did("times of "+brief(path), err, timeText(st.Atim), timeText(st.Mtim))
}

func (p *place) stat(path string, flags int) {
	p.t.Helper()
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_BASIC_STATS, &st)
	p.did(fmt.Sprintf("statx %s %#x", brief(path), flags), err, statText(&st))
}

// same records whether two paths lead to one inode.
func (p *place) same(a, b string) {
	p.t.Helper()
	var x, y unix.Stat_t
	err := unix.Stat(a, &x)
	if err == nil {
		err = unix.Stat(b, &y)
	}
	p.did(fmt.Sprintf("same %s %s", a, b), err, x.Ino == y.Ino && x.Dev == y.Dev)
}

func (p *place) readlink(path string) {
	p.t.Helper()
	buf := make([]byte, 5000)
	n, err := unix.Readlink(path, buf)
	p.did("readlink "+brief(path), err, brief(string(buf[:max(n, 0)])))
}

func (p *place) access(path string, mode, flags uint32) {
	p.t.Helper()
	p.did(fmt.Sprintf("access %s %d %#x", brief(path), mode, flags), faccessat2(unix.AT_FDCWD, path, mode, flags))
}

func (p *place) chdir(path string) { p.t.Helper(); p.did("chdir "+brief(path), unix.Chdir(path)) }

func (p *place) setxattr(path, name, value string, flags int) {
	p.t.Helper()
	p.did(fmt.Sprintf("lsetxattr %s %s %.20q(%d) %d", brief(path), brief(name), value, len(value), flags),
		unix.Lsetxattr(path, name, []byte(value), flags))
}

func (p *place) getxattr(path, name string, room int) {
	p.t.Helper()
	buf := make([]byte, room)
	n, err := unix.Lgetxattr(path, name, buf)
	p.did(fmt.Sprintf("lgetxattr %s %s %d", brief(path), brief(name), room), err, n, fmt.Sprintf("%.20q", buf[:min(max(n, 0), room)]))
}

func (p *place) listxattr(path string, room int) {
	p.t.Helper()
	buf := make([]byte, room)
	n, err := unix.Llistxattr(path, buf)
	names := strings.Split(string(buf[:min(max(n, 0), room)]), "\x00")
	slices.Sort(names)
	p.did(fmt.Sprintf("llistxattr %s %d", brief(path), room), err, n, fmt.Sprintf("%.200q", names))
}

func (p *place) removexattr(path, name string) {
	p.t.Helper()
	p.did(fmt.Sprintf("lremovexattr %s %s", brief(path), brief(name)), unix.Lremovexattr(path, name))
}

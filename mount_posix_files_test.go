package snapfs_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Scripts about opening, data, special files and locks.

// scriptOpen opens everything in every way.
func scriptOpen(p *place) {
	combinations := []int{
		unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_ACCMODE,
		unix.O_CREAT, unix.O_RDWR | unix.O_CREAT, unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL, unix.O_EXCL,
		unix.O_TRUNC, unix.O_WRONLY | unix.O_TRUNC, unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC, unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC | unix.O_EXCL,
		unix.O_WRONLY | unix.O_APPEND | unix.O_TRUNC, unix.O_APPEND,
		unix.O_DIRECTORY, unix.O_DIRECTORY | unix.O_WRONLY, unix.O_DIRECTORY | unix.O_CREAT, unix.O_DIRECTORY | unix.O_CREAT | unix.O_RDWR | unix.O_EXCL,
		unix.O_NOFOLLOW, unix.O_NOFOLLOW | unix.O_WRONLY | unix.O_CREAT, unix.O_NOFOLLOW | unix.O_DIRECTORY,
		unix.O_PATH, unix.O_PATH | unix.O_NOFOLLOW, unix.O_PATH | unix.O_DIRECTORY, unix.O_PATH | unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC,
		unix.O_NOATIME, unix.O_SYNC | unix.O_WRONLY, unix.O_DSYNC | unix.O_RDWR, unix.O_DIRECT, unix.O_DIRECT | unix.O_RDWR | unix.O_CREAT,
	}
	make := func() {
		need(p.t, errors.Join(unix.Mknod("file", unix.S_IFREG|0o644, 0), unix.Truncate("file", 5), unix.Mkdir("dir", 0o755), unix.Symlink("file", "lf"),
			unix.Symlink("dir", "ld"), unix.Symlink("new", "dangling"), unix.Symlink("loop", "loop"), unix.Mkfifo("fifo", 0o644),
			unix.Mknod("sock", unix.S_IFSOCK|0o644, 0), unix.Mknod("chr", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3)))))
	}
	paths := []string{"none", "file", "dir", "lf", "ld", "dangling", "loop", "fifo", "sock", "chr"}
	for _, flags := range combinations {
		make()
		for _, path := range paths {
			p.look()
			p.tick()
			p.try(path, flags|unix.O_NONBLOCK, 0o640)
			_ = unix.Unlink("new")
			_ = unix.Unlink("none")
		}
		for _, path := range paths {
			_, _ = unix.Unlink(path), unix.Rmdir(path)
		}
	}
}

// scriptPathHandles uses descriptors of O_PATH.
func scriptPathHandles(p *place) {
	p.write("f", "text")
	p.symlink("f", "l")
	for _, f := range []*openFile{p.open("f", unix.O_PATH, 0), p.open("l", unix.O_PATH|unix.O_NOFOLLOW, 0), p.open(".", unix.O_PATH, 0)} {
		f.stat()
		f.pread(3, 0)
		f.write("x")
		f.truncate(0)
		f.chmod(0o600)
		f.chown(1, 1)
		f.seek(0, 0)
		f.sync()
		f.list()
		f.did("fchownat @ AT_EMPTY_PATH", unix.Fchownat(f.fd, "", 5, 6, unix.AT_EMPTY_PATH))
		f.did("utimensat @ AT_EMPTY_PATH", unix.UtimesNanoAt(f.fd, "", []unix.Timespec{{Sec: 1}, {Sec: 2}}, unix.AT_EMPTY_PATH))
		f.did("fgetxattr @", func() error { _, err := unix.Fgetxattr(f.fd, "user.x", nil); return err }())
		f.did("flock @", unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB))
		f.did("ioctl @", ioctlBytes(f.fd, unix.TIOCINQ, make([]byte, 8)))
		f.did("faccessat2 @", faccessat2(f.fd, "", unix.R_OK, unix.AT_EMPTY_PATH))
		buf := make([]byte, 10)
		n, err := unix.Readlinkat(f.fd, "", buf)
		f.did("readlinkat @", err, string(buf[:max(n, 0)]))
		p.try(".", unix.O_RDONLY, 0)
		f.close()
	}
	for _, how := range []uint64{unix.RESOLVE_BENEATH, unix.RESOLVE_NO_SYMLINKS, unix.RESOLVE_NO_XDEV, unix.RESOLVE_IN_ROOT} {
		for _, path := range []string{"f", "l", "../x", "./f"} {
			fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: how})
			if err == nil {
				unix.Close(fd)
			}
			p.did(fmt.Sprintf("openat2 %s %#x", path, how), err)
		}
	}
}

// scriptRun executes a program that is in the place.
func scriptRun(p *place) {
	program, err := os.ReadFile("/bin/sleep")
	need(p.t, err)
	p.did("copy", os.WriteFile("sleep", program, 0o644))
	exec := func() error {
		cmd := commandIn(p.dir, "sh", "-c", "exec ./sleep 0")
		if err := cmd.Run(); err != nil {
			return errors.New(err.Error())
		}
		return nil
	}
	p.did("run without x", exec())
	p.chmod("sleep", 0o755)
	p.did("run", exec())
	cmd := commandIn(p.dir, "./sleep", "100")
	need(p.t, cmd.Start())
	path := fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid)
	for exe := ""; exe != filepath.Join(p.dir, "sleep"); { // first it is env
		exe, err = os.Readlink(path)
		need(p.t, err)
		p.tick()
	}
	p.try("sleep", unix.O_WRONLY, 0)
	p.truncate("sleep", 5)
	p.unlink("sleep")
	need(p.t, cmd.Process.Kill())
	_ = cmd.Wait()
	w := p.open("busy", unix.O_WRONLY|unix.O_CREAT, 0o755)
	p.did("run what is open for writing", commandIn(p.dir, "sh", "-c", "exec ./busy 2>/dev/null").Run())
	w.close()
}

func scriptWrite(p *place) {
	p.blind = false
	f := p.open("f", unix.O_RDWR|unix.O_CREAT, 0o644)
	f.write("hello")
	f.write("")
	f.pwrite("HE", 0)
	f.pwrite("far", 9000)
	f.pwrite("x", -1)
	f.pread(4, -1)
	f.pread(4, 3)
	f.pread(4, 9003)
	f.pread(4, 1<<40)
	f.pread(0, 0)
	f.sync()
	a := p.open("f", unix.O_WRONLY|unix.O_APPEND, 0)
	a.write("end")
	a.pwrite("END", 0) // appends nevertheless, on Linux
	a.pread(3, 0)
	a.seek(0, unix.SEEK_CUR)
	a.close()
	r := p.open("f", unix.O_RDONLY, 0)
	r.write("x")
	r.truncate(0)
	r.fallocate(0, 0, 10)
	r.close()
	for _, c := range []struct {
		off    int64
		whence int
	}{{0, unix.SEEK_END}, {-5, unix.SEEK_END}, {-99999, unix.SEEK_END}, {3, unix.SEEK_CUR}, {math.MaxInt64, unix.SEEK_CUR}, {-1, unix.SEEK_SET},
		{1 << 43, unix.SEEK_SET}, {0, 17}, {0, unix.SEEK_DATA}, {0, unix.SEEK_HOLE}, {4096, unix.SEEK_DATA}, {4096, unix.SEEK_HOLE}, {9000, unix.SEEK_DATA},
		{-1, unix.SEEK_DATA}, {-1, unix.SEEK_HOLE}, {1 << 40, unix.SEEK_DATA}, {1 << 40, unix.SEEK_HOLE}} {
		f.seek(c.off, c.whence)
	}
	for _, iov := range [][][]byte{{[]byte("ab"), []byte("cd")}, {}, {nil}} {
		n, err := unix.Pwritev(f.fd, iov, 1)
		f.did(fmt.Sprintf("pwritev @ %q", iov), err, n)
	}
	buf := [][]byte{make([]byte, 2), make([]byte, 3)}
	n, err := unix.Preadv(f.fd, buf, 0)
	f.did("preadv @", err, n, fmt.Sprintf("%q", buf))
	for _, flags := range []int{unix.RWF_DSYNC, unix.RWF_SYNC, unix.RWF_APPEND, unix.RWF_HIPRI, 1 << 20} {
		n, err := unix.Pwritev2(f.fd, [][]byte{[]byte("zz")}, 2, flags)
		f.did(fmt.Sprintf("pwritev2 @ %#x", flags), err, n)
	}
	f.close()
	f.close()
	f.write("x")
	d := p.open("f", unix.O_RDWR|unix.O_DIRECT, 0)
	d.pwrite("odd", 1)
	d.close()
}

func scriptTruncate(p *place) {
	p.mkdir("d", 0o755)
	p.write("f", strings.Repeat("0123456789", 1000))
	p.symlink("f", "l")
	p.symlink("none", "dangling")
	p.mknod("fifo", unix.S_IFIFO|0o600, 0, 0)
	p.chmod("f", 0o444)
	for _, path := range []string{"f", "l", "d", "dangling", "fifo", "none", "f/x", ""} {
		for _, size := range []int64{9000, 9000, 4096, 5, 5, 0, 0, 10000, -1, math.MinInt64} {
			p.truncate(path, size)
		}
	}
	f := p.open("f", unix.O_WRONLY, 0)
	f.truncate(3)
	f.write("abc")
	f.truncate(10)
	f.pwrite("tail", 10)
	f.truncate(12)
	f.truncate(14) // shows zeros, not what was cut
	f.truncate(-1)
	f.close()
	p.try("f", unix.O_WRONLY|unix.O_TRUNC, 0)
	p.try("f", unix.O_WRONLY|unix.O_TRUNC, 0)
}

func scriptFallocate(p *place) {
	p.write("f", strings.Repeat("abcdefgh", 2048))
	f := p.open("f", unix.O_RDWR, 0)
	const keep, punch, zero = unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE
	for _, mode := range []uint32{0, keep, punch, punch | keep, zero, zero | keep, zero | punch, 1 << 20} {
		for _, r := range [][2]int64{{0, 0}, {0, -1}, {-1, 10}, {math.MaxInt64 - 1, 10}, {100, 50}, {4096, 4096}, {5000, 30000}, {50000, 100}} {
			f.fallocate(mode, r[0], r[1])
		}
		f.truncate(16384)
		f.pwrite(strings.Repeat("abcdefgh", 2048), 0)
	}
	f.close()
	p.mknod("fifo", unix.S_IFIFO|0o600, 0, 0)
	fifo := p.open("fifo", unix.O_RDWR|unix.O_NONBLOCK, 0)
	fifo.fallocate(0, 0, 10)
	fifo.seek(0, 0)
	fifo.truncate(0)
	fifo.sync()
	fifo.close()
}

// scriptTransfer copies between descriptors without user space.
func scriptTransfer(p *place) {
	p.rough = true // whether a copy of nothing is a write
	p.write("src", strings.Repeat("0123456789", 2000))
	p.write("dst", "")
	p.mkdir("d", 0o755)
	src, dst := p.open("src", unix.O_RDWR, 0), p.open("dst", unix.O_RDWR, 0)
	ro, app, dir := p.open("dst", unix.O_RDONLY, 0), p.open("dst", unix.O_WRONLY|unix.O_APPEND, 0), p.open("d", unix.O_RDONLY, 0)
	path := p.open("src", unix.O_PATH, 0)
	null, err := unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0)
	need(p.t, err)
	defer unix.Close(null)
	copyRange := func(name string, from, to int, off, toOff int64, n, flags int) {
		done, err := unix.CopyFileRange(from, &off, to, &toOff, n, flags)
		p.did("copy_file_range "+name, err, done, off, toOff)
	}
	copyRange("plain", src.fd, dst.fd, 0, 0, 5000, 0)
	copyRange("beyond the end", src.fd, dst.fd, 19990, 10000, 5000, 0)
	copyRange("at the end", src.fd, dst.fd, 20000, 0, 10, 0)
	copyRange("nothing", src.fd, dst.fd, 0, 0, 0, 0)
	copyRange("negative from", src.fd, dst.fd, -1, 0, 10, 0)
	copyRange("negative to", src.fd, dst.fd, 0, -1, 10, 0)
	copyRange("flags", src.fd, dst.fd, 0, 0, 10, 1)
	copyRange("overlap", src.fd, src.fd, 0, 100, 200, 0)
	copyRange("within", src.fd, src.fd, 0, 10000, 200, 0)
	copyRange("to read-only", src.fd, ro.fd, 0, 0, 10, 0)
	copyRange("to append", src.fd, app.fd, 0, 0, 10, 0)
	copyRange("from write-only", app.fd, dst.fd, 0, 0, 10, 0)
	copyRange("from directory", dir.fd, dst.fd, 0, 0, 10, 0)
	copyRange("to directory", src.fd, dir.fd, 0, 0, 10, 0)
	copyRange("from path", path.fd, dst.fd, 0, 0, 10, 0)
	copyRange("from device", null, dst.fd, 0, 0, 10, 0)
	copyRange("to device", src.fd, null, 0, 0, 10, 0)
	send := func(name string, to, from int, off int64, n int) {
		done, err := unix.Sendfile(to, from, &off, n)
		p.did("sendfile "+name, err, done, off)
	}
	send("plain", dst.fd, src.fd, 5, 100)
	send("beyond", dst.fd, src.fd, 19990, 100)
	send("negative", dst.fd, src.fd, -5, 100)
	send("to append", app.fd, src.fd, 0, 100)
	send("to read-only", ro.fd, src.fd, 0, 100)
	send("from directory", dst.fd, dir.fd, 0, 100)
	var pipe [2]int
	need(p.t, unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	splice := func(name string, from int, off *int64, to int, toOff *int64, n int) {
		done, err := unix.Splice(from, off, to, toOff, n, unix.SPLICE_F_NONBLOCK)
		p.did("splice "+name, err, done)
	}
	at := int64(10)
	splice("in", src.fd, &at, pipe[1], nil, 1000)
	at = 3
	splice("out", pipe[0], nil, dst.fd, &at, 1000)
	splice("file to file", src.fd, &at, dst.fd, nil, 10)
	splice("from directory", dir.fd, nil, pipe[1], nil, 10)
	splice("in again", src.fd, nil, pipe[1], nil, 10)
	splice("to read-only", pipe[0], nil, ro.fd, nil, 10)
	splice("to append", pipe[0], nil, app.fd, nil, 10)
	unix.Close(pipe[0])
	unix.Close(pipe[1])
	for _, f := range []*openFile{src, dst, ro, app, dir, path} {
		f.close()
	}
}

func scriptSpecial(p *place) {
	for _, c := range []struct {
		name         string
		mode         uint32
		major, minor uint32
	}{
		{"fifo", unix.S_IFIFO | 0o666, 0, 0}, {"sock", unix.S_IFSOCK | 0o777, 0, 0}, {"chr", unix.S_IFCHR | 0o620, 1, 3}, {"blk", unix.S_IFBLK | 0o660, 259, 65000},
		{"big", unix.S_IFCHR | 0o600, 4095, 1048575}, {"reg", unix.S_IFREG | 0o4755, 0, 0}, {"zero", 0o640, 0, 0}, {"regdev", unix.S_IFREG | 0o600, 3, 4},
		{"dir", unix.S_IFDIR | 0o755, 0, 0}, {"lnk", unix.S_IFLNK | 0o777, 0, 0}, {"odd", 0o170000, 0, 0}, {"sticky", unix.S_IFREG | 0o7777, 0, 0},
		{"white", unix.S_IFCHR, 0, 0},
	} {
		p.mknod(c.name, c.mode, c.major, c.minor)
		p.mknod(c.name, c.mode, c.major, c.minor)
		p.try(c.name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		p.try(c.name, unix.O_WRONLY|unix.O_NONBLOCK, 0)
		p.chmod(c.name, 0o600)
		p.chown(c.name, 3, 4)
		p.utimes(c.name, unix.Timespec{Sec: 7}, unix.Timespec{Sec: 8})
		p.setxattr(c.name, "user.x", "v", 0)
		p.setxattr(c.name, "trusted.x", "v", 0)
	}
	r := p.open("fifo", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	w := p.open("fifo", unix.O_WRONLY|unix.O_NONBLOCK, 0)
	w.write("through")
	n, err := unix.Read(r.fd, make([]byte, 10))
	r.did("read @", err, n)
	p.unlink("fifo")
	w.write("still")
	w.stat()
	w.close()
	r.close()
	p.bind("name")
	p.bind("name")
	p.unlink("name")
	p.bind(strings.Repeat("s", 80))
}

// bind makes a listening socket, connects to it and leaves its name behind.
func (p *place) bind(path string) {
	p.t.Helper()
	server, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	need(p.t, err)
	defer unix.Close(server)
	p.did("bind "+brief(path), unix.Bind(server, &unix.SockaddrUnix{Name: path}))
	_ = unix.Listen(server, 1)
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	need(p.t, err)
	defer unix.Close(client)
	p.did("connect "+brief(path), unix.Connect(client, &unix.SockaddrUnix{Name: path}))
}

// scriptLocks takes locks of every kind by two descriptors of one process.
func scriptLocks(p *place) {
	p.blind = true // looking opens files, which would break leases
	p.write("f", "text")
	p.mkdir("d", 0o755)
	a, b := p.open("f", unix.O_RDWR, 0), p.open("f", unix.O_RDWR, 0)
	ro, wo, dir := p.open("f", unix.O_RDONLY, 0), p.open("f", unix.O_WRONLY, 0), p.open("d", unix.O_RDONLY, 0)
	flock := func(f *openFile, how int) {
		f.did(fmt.Sprintf("flock @ %d", how), unix.Flock(f.fd, how|unix.LOCK_NB))
	}
	for _, how := range []int{unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_UN, unix.LOCK_EX, 0, 99} {
		flock(a, how)
		flock(b, unix.LOCK_SH)
		flock(b, unix.LOCK_EX)
		flock(b, unix.LOCK_UN)
		flock(ro, unix.LOCK_EX)
		flock(ro, unix.LOCK_UN)
		flock(dir, unix.LOCK_EX)
	}
	flock(a, unix.LOCK_UN)
	lock := func(f *openFile, cmd int, kind int16, whence int16, start, n int64) {
		l := unix.Flock_t{Type: kind, Whence: whence, Start: start, Len: n}
		err := unix.FcntlFlock(uintptr(f.fd), cmd, &l)
		f.did(fmt.Sprintf("lock @ cmd %d type %d %d %d %d", cmd, kind, whence, start, n), err, l.Type, l.Whence, l.Start, l.Len)
	}
	for _, f := range []*openFile{a, ro, wo, dir} {
		for _, cmd := range []int{unix.F_SETLK, unix.F_OFD_SETLK} {
			for _, kind := range []int16{unix.F_RDLCK, unix.F_WRLCK, 77} {
				lock(f, cmd, kind, 0, 5, 10)
				lock(b, unix.F_OFD_GETLK, unix.F_WRLCK, 0, 0, 0)
				lock(b, unix.F_OFD_SETLK, unix.F_RDLCK, 0, 0, 0)
				lock(b, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 14, 1)
				lock(b, unix.F_OFD_SETLK, unix.F_WRLCK, 0, 15, 1)
				lock(b, unix.F_OFD_SETLK, unix.F_UNLCK, 0, 0, 0)
			}
			lock(f, cmd, unix.F_UNLCK, 0, 0, 0)
		}
	}
	lock(a, unix.F_SETLK, unix.F_WRLCK, 0, -1, 5)
	lock(a, unix.F_SETLK, unix.F_WRLCK, 2, -3, 2)
	lock(a, unix.F_SETLK, unix.F_WRLCK, 0, 10, -5)
	lock(a, unix.F_SETLK, unix.F_WRLCK, 0, math.MaxInt64, math.MaxInt64)
	lock(a, unix.F_SETLK, unix.F_WRLCK, 9, 0, 0)
	lock(a, unix.F_GETLK, unix.F_WRLCK, 0, 0, 0)
	wo.close()
	b.close()
	ro.close()
	lease := func(f *openFile, kind int) {
		_, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETLEASE, kind)
		f.did(fmt.Sprintf("lease @ %d", kind), err)
		now, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETLEASE, 0)
		f.did("lease of @", err, now)
	}
	for _, f := range []*openFile{a, dir} {
		for _, kind := range []int{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK, 99} {
			lease(f, kind)
		}
	}
	a.close()
	reader := p.open("f", unix.O_RDONLY, 0)
	lease(reader, unix.F_RDLCK)
	p.try("f", unix.O_WRONLY|unix.O_NONBLOCK, 0) // has to wait for the lease
	lease(reader, unix.F_UNLCK)
	p.try("f", unix.O_WRONLY|unix.O_NONBLOCK, 0)
	reader.close()
	dir.close()
}

// dnCreate is DN_CREATE of fcntl(2).
const dnCreate = 4

// scriptWatch lets inotify and dnotify watch what is done.
func scriptWatch(p *place) {
	p.blind = true
	p.write("f", "text")
	p.mkdir("d", 0o755)
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	need(p.t, err)
	defer unix.Close(fd)
	for _, path := range []string{".", "f", "d", "none"} {
		_, err := unix.InotifyAddWatch(fd, path, unix.IN_ALL_EVENTS)
		p.did("watch "+path, err)
	}
	events := func(what string) {
		buf := make([]byte, 8192)
		n, _ := unix.Read(fd, buf)
		var masks []string
		for b := buf[:max(n, 0)]; len(b) > 0; {
			size := 16 + int(b[12]) // a name has less than 256 bytes here
			masks = append(masks, fmt.Sprintf("%d:%#x:%s", b[0], uint32(b[4])|uint32(b[5])<<8|uint32(b[6])<<16|uint32(b[7])<<24, strings.TrimRight(string(b[16:size]), "\x00")))
			b = b[size:]
		}
		p.did("events of "+what, nil, masks)
	}
	do := func(what string, call func() error) {
		p.did(what, call())
		events(what)
	}
	d := p.open("d", unix.O_RDONLY, 0)
	_, err = unix.FcntlInt(uintptr(d.fd), unix.F_NOTIFY, dnCreate)
	d.did("F_NOTIFY @", err)
	_, err = unix.FcntlInt(uintptr(d.fd), unix.F_NOTIFY, 0)
	d.did("no F_NOTIFY @", err)
	d.close()
	do("write", func() error { return appendTo("f", "more") })
	do("chmod", func() error { return unix.Chmod("f", 0o600) })
	do("truncate", func() error { return unix.Truncate("f", 1) })
	do("setxattr", func() error { return unix.Setxattr("f", "user.x", nil, 0) })
	do("mkdir", func() error { return unix.Mkdir("d/e", 0o755) })
	do("rename", func() error { return unix.Rename("f", "d/g") })
	do("link", func() error { return unix.Link("d/g", "h") })
	do("unlink", func() error { return unix.Unlink("h") })
	do("last unlink", func() error { return unix.Unlink("d/g") })
	do("rmdir", func() error { return unix.Rmdir("d/e") })
	do("rmdir of the watched", func() error { return unix.Rmdir("d") })
}

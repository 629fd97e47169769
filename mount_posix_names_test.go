package snapfs_test

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Scripts about names, links and directories.

func scriptNames(p *place) {
	long, longer := strings.Repeat("n", 255), strings.Repeat("n", 256)
	p.write("f", "text")
	for _, name := range []string{long, longer, strings.Repeat("é", 128)[:255], "d/" + longer, longer + "/x", ""} {
		p.write(name, "x")
		p.unlink(name)
		p.mkdir(name, 0o755)
		p.rmdir(name)
		p.symlink("f", name)
		p.unlink(name)
		p.link("f", name)
		p.unlink(name)
		p.mknod(name, unix.S_IFIFO|0o600, 0, 0)
		p.unlink(name)
		p.rename("f", name, 0)
		p.rename(name, "f", 0)
		p.stat(name, 0)
		p.readlink(name)
		p.chmod(name, 0o600)
		p.truncate(name, 0)
		p.getxattr(name, "user.x", 10)
		p.setxattr(name, "user.x", "v", 0)
		p.access(name, unix.R_OK, 0)
		p.chdir(name)
	}
	for _, name := range []string{"\n", " ", "\xff\xfe", "\x01", "-rf", "*", "..a", "...", "a\\b", "."} {
		p.write(name, "x")
	}
}

// scriptBytes makes a file of every byte that a name may have.
func scriptBytes(p *place) {
	p.blind = true
	for b := 1; b < 256; b++ {
		p.did(fmt.Sprintf("create %q", []byte{byte(b)}), unix.Mknod(string([]byte{byte(b)}), unix.S_IFREG|0o644, 0))
	}
	d := p.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	d.list()
	d.close()
	for b := 1; b < 256; b++ {
		p.did(fmt.Sprintf("remove %q", []byte{byte(b)}), unix.Unlink(string([]byte{byte(b)})))
	}
}

// scriptPaths goes to the longest path and deeper.
func scriptPaths(p *place) {
	p.blind = true
	p.write("f", "x")
	for _, n := range []int{4094, 4095, 4096} {
		path := strings.Repeat("/", n-1) + "f"
		p.stat("."+path[1:], 0)
		p.unlink("none" + path[4:])
		p.rename("f", "."+path[1:], 0)
	}
	name := strings.Repeat("d", 255)
	fd, err := unix.Open(".", unix.O_PATH|unix.O_DIRECTORY, 0)
	need(p.t, err)
	const depth = 300 // far beyond PATH_MAX
	for i := range depth {
		err := unix.Mkdirat(fd, name, 0o755)
		next, failed := openRetry(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		fd = next
		if i%60 == 0 || err != nil || failed != nil {
			p.did(fmt.Sprintf("mkdir at depth %d", i), err, failed)
		}
	}
	p.did("chdir to the end", unix.Fchdir(fd))
	p.write("deep", "x")
	p.stat("deep", 0)
	p.rename("deep", "deeper", 0)
	p.stat("..", 0)
	p.unlink("deeper")
	unix.Close(fd)
	for i := range depth {
		err := unix.Chdir("..")
		if failed := unix.Rmdir(name); i%60 == 0 || err != nil || failed != nil {
			p.did(fmt.Sprintf("rmdir at depth %d", depth-i), err, failed)
		}
	}
	d := p.open(".", unix.O_RDONLY, 0)
	d.list()
	d.close()
}

func scriptDots(p *place) {
	p.mkdir("d", 0o755)
	p.mkdir("d/sub", 0o755)
	p.write("f", "text")
	p.symlink("d", "ld")
	p.symlink("f", "lf")
	p.symlink("nowhere", "dangling")
	for _, path := range []string{"f/", "d/", "d/.", "d/..", ".", "..", "ld/", "lf/", "dangling/", "f/.", "f/..", "none/", "d//sub//", "ld/sub/.", "none/..", "dangling/.."} {
		p.stat(path, 0)
		p.stat(path, unix.AT_SYMLINK_NOFOLLOW)
		p.mkdir(path, 0o755)
		p.try(path, unix.O_RDONLY, 0)
		p.try(path, unix.O_WRONLY|unix.O_CREAT, 0o644)
		p.try(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o644)
		p.mknod(path, unix.S_IFREG|0o644, 0, 0)
		p.symlink("f", path)
		p.link("f", path)
		p.link(path, "new")
		p.unlink(path)
		p.rename("f", path, 0)
		p.rename(path, "f", 0)
		p.rename("d/sub", path, unix.RENAME_NOREPLACE)
		p.rename(path, "new", unix.RENAME_NOREPLACE)
		p.rename("new", strings.TrimRight(path, "/"), unix.RENAME_NOREPLACE)
		p.rename(path, "d/sub", unix.RENAME_EXCHANGE)
		p.readlink(path)
		p.truncate(path, 3)
		p.rmdir(path)
		p.mkdir("d", 0o755)
		p.mkdir("d/sub", 0o755)
	}
	p.mkdir("e/", 0o755) // a new directory may be named like this
	p.rename("e/", "g/", 0)
	p.rmdir("g/")
}

func scriptLinks(p *place) {
	p.mkdir("d", 0o755)
	p.write("f", "text")
	p.symlink("f", "lf")
	p.symlink("nowhere", "dangling")
	p.mknod("fifo", unix.S_IFIFO|0o600, 0, 0)
	p.mknod("sock", unix.S_IFSOCK|0o600, 0, 0)
	p.mknod("chr", unix.S_IFCHR|0o600, 1, 3)
	for _, old := range []string{"f", "lf", "dangling", "fifo", "sock", "chr", "d", "none", "d/none/x", "f/x"} {
		p.link(old, "d/"+strings.ReplaceAll(old, "/", "_"))
		p.linkat(old, "d/followed", unix.AT_SYMLINK_FOLLOW)
		p.unlink("d/followed")
		p.link(old, "f")
		p.link(old, "d")
		p.link(old, "none/x")
		p.link(old, "f/x")
	}
	p.linkat("f", "x", 1<<20)
	f := p.open("f", unix.O_RDWR, 0)
	p.linkat(fmt.Sprintf("/proc/thread-self/fd/%d", f.fd), "by-fd", unix.AT_SYMLINK_FOLLOW)
	p.did("linkat AT_EMPTY_PATH", unix.Linkat(f.fd, "", unix.AT_FDCWD, "by-empty", unix.AT_EMPTY_PATH))
	for _, name := range []string{"f", "d/f", "by-fd", "by-empty", "d/followed"} {
		p.unlink(name)
		f.stat()
	}
	p.unlink("d/lf")
	f.stat()
	p.did("linkat of what has no name", unix.Linkat(f.fd, "", unix.AT_FDCWD, "again", unix.AT_EMPTY_PATH))
	f.write("more")
	f.truncate(2)
	f.chmod(0o640)
	f.pread(10, 0)
	f.stat()
	f.close()
	p.symlink("", "empty")
	p.symlink(strings.Repeat("t", 4095), "longest")
	p.readlink("longest")
	p.symlink(strings.Repeat("t", 4096), "too long")
	p.symlink("loop2", "loop1")
	p.symlink("loop1", "loop2")
	p.stat("loop1", 0)
	p.try("loop1", unix.O_RDONLY, 0)
	p.try("loop1", unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	p.try("loop1/x", unix.O_RDONLY, 0)
	for i := range 41 {
		p.symlink(fmt.Sprint("chain", i+1), fmt.Sprint("chain", i))
	}
	p.write("chain41", "end")
	p.stat("chain0", 0)
	p.stat("chain1", 0)
	p.stat("chain2", 0)
	p.readlink("chain41")
	p.readlink("d")
	p.readlink("none")
	p.readlink("chain41/x")
}

// renameKinds are what a name can lead to; the functions make it.
var renameKinds = []struct {
	name string
	make func(p *place, path string)
}{
	{"none", func(*place, string) {}},
	{"file", func(p *place, path string) { need(p.t, unix.Mknod(path, unix.S_IFREG|0o644, 0)) }},
	{"empty", func(p *place, path string) { need(p.t, unix.Mkdir(path, 0o755)) }},
	{"full", func(p *place, path string) {
		need(p.t, unix.Mkdir(path, 0o755))
		need(p.t, unix.Mkdir(path+"/in", 0o755))
	}},
	{"link to file", func(p *place, path string) { need(p.t, unix.Symlink("f", path)) }},
	{"link to dir", func(p *place, path string) { need(p.t, unix.Symlink("d", path)) }},
	{"dangling", func(p *place, path string) { need(p.t, unix.Symlink("nowhere", path)) }},
	{"fifo", func(p *place, path string) { need(p.t, unix.Mkfifo(path, 0o644)) }},
}

// scriptRenameMatrix renames everything over everything, in one directory and between two.
func scriptRenameMatrix(p *place) {
	p.rough = true
	need(p.t, unix.Mknod("f", unix.S_IFREG|0o644, 0))
	need(p.t, unix.Mkdir("d", 0o755))
	flags := []uint{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE, 1 << 5,
		unix.RENAME_WHITEOUT, unix.RENAME_WHITEOUT | unix.RENAME_NOREPLACE, unix.RENAME_WHITEOUT | unix.RENAME_EXCHANGE}
	n := 0
	for _, from := range renameKinds {
		for _, to := range renameKinds {
			for _, flag := range flags {
				n++
				a, b := fmt.Sprint("a", n), fmt.Sprint("d/b", n)
				if n%2 == 0 {
					b = fmt.Sprint("b", n)
				}
				from.make(p, a)
				to.make(p, b)
				p.look()
				p.did(fmt.Sprintf("rename %s over %s, %#x", from.name, to.name, flag), rename(a, b, flag))
				for _, path := range []string{a, b} {
					_, _ = unix.Unlink(path+"/in"), unix.Rmdir(path+"/in")
					_, _ = unix.Unlink(path), unix.Rmdir(path)
				}
				p.look()
			}
		}
	}
}

func scriptRename(p *place) {
	for _, dir := range []string{"a", "b", "a/d", "a/d/e", "a/d/e/f"} {
		p.mkdir(dir, 0o755)
	}
	p.write("a/file", "text")
	for _, flags := range []uint{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE} {
		p.rename("a", "a/d/x", flags)
		p.rename("a/d", "a/d/e/f/x", flags)
		p.rename("a/d", "a/d", flags)
		p.rename("a/d/e/f", "a/d", flags) // over its own ancestor
		p.rename("a/d", "a/d/e", flags)
		p.rename("a/file", "a/file/x", flags)
		p.rename("a/file", "a/file", flags)
		p.rename(".", "b/x", flags)
		p.rename("b", ".", flags)
		p.rename("a/file", "a", flags)
	}
	p.chdir("a/d/e")
	p.same("..", "../../d")
	p.rename("../../../a/d", "../../../b/d", 0) // what we are in moves
	p.same("..", "../../../b/d")
	p.stat("../..", 0)
	p.stat("../../../a", 0)
	p.chdir("../../..")
	p.link("a/file", "a/twin")
	p.rename("a/file", "a/twin", 0) // nothing: both stay
	p.rename("a/file", "a/twin", unix.RENAME_NOREPLACE)
	p.rename("a/file", "a/twin", unix.RENAME_EXCHANGE)
	p.rename("a/file", "b/file", 0)
	p.rename("b/file", "b/d", unix.RENAME_EXCHANGE) // a file and a directory change places
	p.mkdir("a/full", 0o755)
	p.mkdir("a/full/in", 0o755)
	p.rename("a/full", "b/file", unix.RENAME_EXCHANGE) // two directories between two parents
	p.stat("a", 0)
	p.stat("b", 0)
	p.rename("/proc/self", "x", 0)
	p.rename("b", "/tmp/nothing/x", 0)
	p.write("w", "text")
	p.rename("w", "a/w", unix.RENAME_WHITEOUT)
	p.write("w", "text")
	p.rename("a", "b/white", unix.RENAME_WHITEOUT)
	p.rename("b/white", "a", unix.RENAME_WHITEOUT)
	p.unlink("b/white")
	p.unlink("a")
	p.rename("none", "a", 0)
	p.rename("none/x", "y", 0)
	p.rename("a", "none/x", 0)
	p.rename("a", "b/d/x", 0) // b/d is a file by now
	p.mkdir("empty", 0o700)
	p.rename("a", "empty", 0)
	p.rename("b", "empty", 0)
}

// scriptInUse removes and renames what is open.
func scriptInUse(p *place) {
	p.write("f", "first")
	p.write("g", "second")
	f := p.open("f", unix.O_RDWR, 0)
	p.rename("g", "f", 0)
	f.stat()
	f.pread(10, 0)
	f.pwrite("FIRST", 2)
	f.chmod(0o600)
	f.chown(7, 8)
	f.did("futimes @", unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/thread-self/fd/%d", f.fd), []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0))
	f.did("fsetxattr @", unix.Fsetxattr(f.fd, "user.x", []byte("v"), 0))
	f.truncate(3)
	f.stat()
	f.sync()
	f.close()
	p.mkdir("d", 0o755)
	p.mkdir("d/sub", 0o755)
	d := p.open("d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	sub := p.open("d/sub", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	p.rmdir("d/sub")
	d.stat()
	sub.stat()
	p.rmdir("d")
	for _, dir := range []*openFile{d, sub} {
		dir.stat()
		dir.list()
		dir.did("mkdirat @", unix.Mkdirat(dir.fd, "x", 0o755))
		dir.did("mknodat @", unix.Mknodat(dir.fd, "x", unix.S_IFREG|0o644, 0))
		dir.did("symlinkat @", unix.Symlinkat("x", dir.fd, "x"))
		dir.did("linkat @", unix.Linkat(unix.AT_FDCWD, "f", dir.fd, "x", 0))
		dir.did("renameat into @", unix.Renameat(unix.AT_FDCWD, "f", dir.fd, "x"))
		dir.did("unlinkat @", unix.Unlinkat(dir.fd, "x", 0))
		dir.did("rmdirat @", unix.Unlinkat(dir.fd, "..", unix.AT_REMOVEDIR))
		p.openat(dir.fd, "x", unix.O_CREAT|unix.O_RDWR, 0o644)
		p.openat(dir.fd, ".", unix.O_RDONLY, 0).drop()
		dir.did("fchdir @", unix.Fchdir(dir.fd))
		p.did("getcwd of nothing", func() error { _, err := unix.Getcwd(make([]byte, 4096)); return err }())
		p.stat(".", 0)
		p.stat("..", 0)
		p.did("back", unix.Chdir(p.dir))
		dir.chmod(0o700)
		dir.did("fsetxattr @", unix.Fsetxattr(dir.fd, "user.x", []byte("v"), 0))
		dir.sync()
		dir.stat()
		dir.close()
	}
	p.mkdir("over", 0o755)
	p.mkdir("new", 0o755)
	over := p.open("over", unix.O_RDONLY, 0)
	p.rename("new", "over", 0)
	over.stat()
	over.list()
	over.did("mkdirat @", unix.Mkdirat(over.fd, "x", 0o755))
	over.close()
}

func scriptDirectories(p *place) {
	p.mkdir("d", 0o777)
	p.mkdir("d", 0o777)
	p.mkdir("d/a/b", 0o777)
	for i := range 10 {
		p.mkdir(fmt.Sprint("d/", i), 0o1777)
		p.write(fmt.Sprint("d/f", i), "x")
	}
	p.rmdir("d")
	p.rmdir("d/f1")
	p.rmdir("none")
	p.rmdir("d/f1/x")
	p.unlink("d")
	p.unlink("d/1")
	p.unlink("none")
	p.unlink("d/f1/x")
	d := p.open("d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	d.list()
	d.list() // at its end
	d.seek(0, unix.SEEK_SET)
	d.list()
	d.write("x")
	d.did("pread @", func() error { _, err := unix.Pread(d.fd, make([]byte, 9), 0); return err }())
	d.truncate(0)
	d.fallocate(0, 0, 10)
	d.seek(0, unix.SEEK_SET)
	_, err := getdents(d.fd, make([]byte, 10)) // no room for one entry
	d.did("getdents @ 10", err)
	d.seek(-1, unix.SEEK_SET)
	d.sync()
	d.did("fdatasync @", unix.Fdatasync(d.fd))
	d.did("syncfs @", unix.Syncfs(d.fd))
	d.close()
	p.try("d", unix.O_WRONLY, 0)
	p.truncate("d", 0)
	f := p.open("d/f1", unix.O_RDONLY, 0)
	_, err = getdents(f.fd, make([]byte, 100))
	f.did("getdents @", err)
	f.close()
	p.chdir("d/f1")
	p.chdir("none")
	for i := range 10 {
		p.rmdir(fmt.Sprint("d/", i))
		p.unlink(fmt.Sprint("d/f", i))
	}
	p.rmdir("d")
}

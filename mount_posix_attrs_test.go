package snapfs_test

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Scripts about attributes, rights and extended attributes.

// kinds makes one of everything.
func (p *place) kinds() []string {
	p.t.Helper()
	p.mkdir("d", 0o755)
	p.write("f", "text")
	p.symlink("f", "l")
	p.symlink("none", "dangling")
	p.mknod("fifo", unix.S_IFIFO|0o644, 0, 0)
	p.mknod("chr", unix.S_IFCHR|0o644, 1, 3)
	return []string{"d", "f", "l", "dangling", "fifo", "chr"}
}

func scriptAttributes(p *place) {
	for _, path := range append(p.kinds(), "none", "f/x", "") {
		for _, mode := range []uint32{0, 0o777, 0o7777, 0o4711, 0o2644, 0o170644} {
			p.chmod(path, mode)
		}
		p.did(fmt.Sprintf("fchmodat2 %s", brief(path)), fchmodat2(path, 0o640, unix.AT_SYMLINK_NOFOLLOW))
		for _, owner := range [][2]int{{1, 2}, {-1, 3}, {4, -1}, {-1, -1}, {1 << 30, 4_000_000_000}, {0, 0}} {
			p.chown(path, owner[0], owner[1])
		}
		p.chmod(path, 0o6755)
		p.chown(path, 1, 2)
		p.chmod(path, 0o6755)
		p.chown(path, -1, -1)
		p.chmod(path, 0o2644) // mandatory locking once: kept by chown
		p.chown(path, -1, 9)
		for _, ts := range [][2]unix.Timespec{{{Sec: 1, Nsec: 999999999}, {Sec: -1}}, {omit, {Sec: 5}}, {{Sec: 6}, omit}, {omit, omit}, {now, omit}, {omit, now},
			{now, now}, {{Sec: 1 << 33, Nsec: 1}, {Sec: 1 - (1 << 31), Nsec: 5}}, {{Nsec: -1}, {}}, {{}, {Nsec: 1_000_000_000}}} {
			p.utimes(path, ts[0], ts[1])
			if ts[0] != now && ts[1] != now {
				p.times(path)
			}
		}
		p.did("statx reserved mask", unix.Statx(unix.AT_FDCWD, path, 0, -0x80000000, new(unix.Statx_t)))
		p.did("statx bad flags", unix.Statx(unix.AT_FDCWD, path, 1<<30, unix.STATX_ALL, new(unix.Statx_t)))
		for _, flags := range []int{0, unix.AT_SYMLINK_NOFOLLOW, unix.AT_STATX_FORCE_SYNC, unix.AT_STATX_DONT_SYNC, unix.AT_EMPTY_PATH} {
			p.stat(path, flags)
		}
	}
}

func fchmodat2(path string, mode uint32, flags int) error {
	return unix.Fchmodat(unix.AT_FDCWD, path, mode, flags)
}

const (
	alice = 1001
	bob   = 1002
	team  = 2000
)

// scriptRights tries what a stranger, a member and the owner may do, for every class of mode bits.
func scriptRights(p *place) {
	p.rough = true
	p.chmod(".", 0o777)
	p.mkdir("d", 0o755)
	p.write("f", "text")
	p.write("d/in", "text")
	p.chown("f", alice, team)
	p.chown("d", alice, team)
	p.chown("d/in", alice, team)
	for _, mode := range []uint32{0o000, 0o777, 0o700, 0o070, 0o007, 0o444, 0o222, 0o111, 0o644, 0o750, 0o1777, 0o6777} {
		p.chmod("f", mode)
		p.chmod("d", mode)
		for _, who := range [][2]int{{alice, alice}, {bob, team}, {bob, bob}} {
			p.as(who[0], who[1], func() {
				p.did(fmt.Sprintf("-- %d:%d with mode %#o", who[0], who[1], mode), nil)
				for _, want := range []uint32{unix.F_OK, unix.R_OK, unix.W_OK, unix.X_OK, unix.R_OK | unix.W_OK | unix.X_OK, 8} {
					p.access("f", want, 0)
					p.access("d", want, unix.AT_EACCESS)
					p.access("d/in", want, 0)
				}
				p.try("f", unix.O_RDONLY, 0)
				p.try("f", unix.O_WRONLY, 0)
				p.try("f", unix.O_RDONLY|unix.O_NOATIME, 0)
				p.try("d", unix.O_RDONLY, 0)
				p.try("d/new", unix.O_CREAT|unix.O_WRONLY, 0o666)
				p.truncate("f", 4)
				p.rename("d/in", "d/out", 0)
				p.rename("d/out", "d/in", 0)
				p.link("f", "d/hard")
				p.unlink("d/hard")
				p.unlink("d/new")
				p.setxattr("f", "user.x", fmt.Sprint(mode, who), 0)
				p.getxattr("f", "user.x", 10)
				p.setxattr("f", "trusted.x", "v", 0)
				p.getxattr("f", "trusted.x", 10)
				p.setxattr("f", "security.x", "v", 0)
				p.chdir("d")
			})
		}
	}
}

// scriptOwners: who may change what of whom.
func scriptOwners(p *place) {
	p.chmod(".", 0o777)
	for _, who := range [][2]int{{alice, alice}, {bob, bob}, {bob, team}} {
		for _, path := range []string{"f", "d"} {
			p.write("f", "text")
			p.mkdir("d", 0o755)
			p.chown(path, alice, alice)
			p.chmod(path, 0o6777)
			p.as(who[0], who[1], func() {
				p.did(fmt.Sprintf("-- %d:%d", who[0], who[1]), nil)
				p.chmod(path, 0o6777)
				p.chown(path, -1, -1)
				p.chmod(path, 0o6777)
				p.chown(path, who[0], -1)
				p.chown(path, bob, -1)
				p.chown(path, -1, who[1])
				p.chown(path, -1, 0)
				p.utimes(path, unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6})
				p.utimes(path, now, now)
				p.utimes(path, omit, now)
				p.utimes(path, omit, omit)
				p.chmod(path, 0o2666)
			})
			p.chown(path, alice, team) // alice is no member of the group
			p.as(alice, alice, func() {
				p.chmod(path, 0o2775)
				p.chmod(path, 0o4775)
				p.chmod(path, 0o1775)
			})
			p.unlink("f")
			p.rmdir("d")
		}
	}
}

// scriptSticky: what others may remove from a directory like /tmp.
func scriptSticky(p *place) {
	for _, owner := range []int{0, bob} {
		p.mkdir("tmp", 0o755)
		p.chmod("tmp", 0o1777)
		p.chown("tmp", owner, owner)
		for _, name := range []string{"a", "b", "c"} {
			p.write("tmp/"+name, name)
			p.chown("tmp/"+name, alice, alice)
		}
		p.mkdir("tmp/d", 0o777)
		p.chown("tmp/d", alice, alice)
		for _, who := range []int{bob, alice} {
			p.as(who, who, func() {
				p.write("tmp/mine", "mine")
				p.rename("tmp/mine", "tmp/a", 0)
				p.rename("tmp/b", "tmp/x", 0)
				p.rename("tmp/mine", "tmp/c", unix.RENAME_EXCHANGE)
				p.link("tmp/c", "tmp/hard")
				p.unlink("tmp/hard")
				p.unlink("tmp/a")
				p.rmdir("tmp/d")
				p.unlink("tmp/mine")
				p.try("tmp/b", unix.O_CREAT|unix.O_RDWR, 0o644)
			})
		}
		for _, name := range []string{"a", "b", "c", "x", "mine", "hard"} {
			p.unlink("tmp/" + name)
		}
		p.rmdir("tmp/d")
		p.rmdir("tmp")
	}
}

// scriptSetgid: the group of what is made in a setgid directory, and the umask.
func scriptSetgid(p *place) {
	p.rough = true
	p.mkdir("d", 0o755)
	p.chown("d", 0, team)
	p.chmod("d", 0o2777)
	for _, who := range [][2]int{{alice, alice}, {bob, team}} {
		p.as(who[0], who[1], func() {
			for _, mask := range []int{0, 0o022, 0o077, 0o777} {
				unix.Umask(mask)
				p.did(fmt.Sprintf("-- %d with umask %#o", who[0], mask), nil)
				for i, mode := range []uint32{0o777, 0o2777, 0o2755, 0o6711, 0o1666} {
					name := fmt.Sprintf("d/%d-%o-%d", who[0], mask, i)
					p.mkdir(name+"d", mode)
					p.mknod(name+"n", unix.S_IFREG|mode, 0, 0)
					p.mknod(name+"p", unix.S_IFIFO|mode, 0, 0)
					p.try(name+"f", unix.O_CREAT|unix.O_RDWR, mode)
				}
				p.symlink("x", fmt.Sprintf("d/%d-%o-l", who[0], mask))
			}
		})
		for _, e := range listing(p.t, "d") {
			need(p.t, os.RemoveAll("d/"+e.name))
		}
		p.look()
	}
	p.mkdir("plain", 0o777)
	p.rename("plain", "d/plain", 0) // keeps its group
	p.write("d/of root", "x")
}

func scriptXattrs(p *place) {
	for _, path := range append(p.kinds(), "none") {
		p.rough = path != "f"
		for _, name := range []string{"user.a", "trusted.a", "security.a", "system.a", "other.a", "user.", "user", "", ".", "user." + strings.Repeat("x", 250),
			"user." + strings.Repeat("x", 251), "user.\xff \n"} {
			p.setxattr(path, name, "one", unix.XATTR_REPLACE)
			p.setxattr(path, name, "two", unix.XATTR_CREATE)
			p.setxattr(path, name, "three", unix.XATTR_CREATE)
			p.setxattr(path, name, "four", 0)
			p.setxattr(path, name, "five", unix.XATTR_CREATE|unix.XATTR_REPLACE)
			p.setxattr(path, name, "six", 1<<5)
			p.setxattr(path, name, "", 0)
			p.getxattr(path, name, 10)
			p.setxattr(path, name, "value", 0)
			p.getxattr(path, name, 0)
			p.getxattr(path, name, 3)
			p.getxattr(path, name, 100)
			p.listxattr(path, 0)
			p.listxattr(path, 3)
			p.listxattr(path, 1000)
			p.removexattr(path, name)
			p.removexattr(path, name)
		}
	}
	for _, n := range []int{100, 4000, 20_000, 65_536, 65_537} {
		p.setxattr("f", "user.big", strings.Repeat("v", n), 0)
		p.getxattr("f", "user.big", n)
	}
	for i := range 30 {
		p.setxattr("d", fmt.Sprint("user.", i), strings.Repeat("v", i), 0)
	}
	p.listxattr("d", 10_000)
	p.rough = false
	p.setxattr("f", "user.same", "value", 0)
	p.setxattr("f", "user.same", "value", 0)
}

package snapfs_test

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// aclEntry is one of an access control list: a tag, its rights, and whom it is for.
type aclEntry struct{ tag, perm, id int }

// Tags of entries, linux/posix_acl_xattr.h.
const (
	aclOwner  = 0x01
	aclUser   = 0x02
	aclGroup  = 0x04
	aclNamed  = 0x08
	aclMask   = 0x10
	aclOther  = 0x20
	aclNobody = 0xffffffff
)

// acl is the extended attribute of an access control list.
func acl(entries ...aclEntry) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e.tag))
		b = binary.LittleEndian.AppendUint16(b, uint16(e.perm))
		id := uint32(aclNobody)
		if e.tag == aclUser || e.tag == aclNamed {
			id = uint32(e.id)
		}
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return string(b)
}

// lists are access control lists, some of which are none.
var lists = []struct{ name, value string }{
	{"minimal", acl(aclEntry{aclOwner, 6, 0}, aclEntry{aclGroup, 4, 0}, aclEntry{aclOther, 0, 0})},
	{"user", acl(aclEntry{aclOwner, 7, 0}, aclEntry{aclUser, 6, bob}, aclEntry{aclGroup, 5, 0}, aclEntry{aclMask, 7, 0}, aclEntry{aclOther, 1, 0})},
	{"masked", acl(aclEntry{aclOwner, 7, 0}, aclEntry{aclUser, 7, bob}, aclEntry{aclGroup, 7, 0}, aclEntry{aclNamed, 7, team}, aclEntry{aclMask, 4, 0}, aclEntry{aclOther, 0, 0})},
	{"forbidding", acl(aclEntry{aclOwner, 7, 0}, aclEntry{aclUser, 0, bob}, aclEntry{aclGroup, 7, 0}, aclEntry{aclMask, 7, 0}, aclEntry{aclOther, 7, 0})},
	{"without mask", acl(aclEntry{aclOwner, 7, 0}, aclEntry{aclUser, 7, bob}, aclEntry{aclGroup, 7, 0}, aclEntry{aclOther, 0, 0})},
	{"without owner", acl(aclEntry{aclGroup, 7, 0}, aclEntry{aclOther, 0, 0})},
	{"out of order", acl(aclEntry{aclOther, 7, 0}, aclEntry{aclGroup, 7, 0}, aclEntry{aclOwner, 0, 0})},
	{"twice", acl(aclEntry{aclOwner, 7, 0}, aclEntry{aclUser, 7, bob}, aclEntry{aclUser, 6, bob}, aclEntry{aclGroup, 7, 0}, aclEntry{aclMask, 7, 0}, aclEntry{aclOther, 0, 0})},
	{"bad tag", acl(aclEntry{aclOwner, 7, 0}, aclEntry{0x40, 7, 0}, aclEntry{aclGroup, 7, 0}, aclEntry{aclOther, 0, 0})},
	{"bad rights", acl(aclEntry{aclOwner, 8, 0}, aclEntry{aclGroup, 7, 0}, aclEntry{aclOther, 0, 0})},
	{"of nothing", acl()},
	{"empty", ""},
	{"short", "\x02\x00"},
	{"other version", "\x01\x00\x00\x00"},
	{"uneven", acl(aclEntry{aclOwner, 7, 0}, aclEntry{aclGroup, 7, 0}, aclEntry{aclOther, 0, 0}) + "x"},
}

const (
	accessList  = "system.posix_acl_access"
	defaultList = "system.posix_acl_default"
)

// setACL sets a list and records it by name.
func (p *place) setACL(path, kind string, list struct{ name, value string }, flags int) {
	p.t.Helper()
	p.did(fmt.Sprintf("set %s of %s to %s %d", kind, path, list.name, flags), unix.Lsetxattr(path, kind, []byte(list.value), flags))
}

// getACLs records both lists.
func (p *place) getACLs(path string) {
	p.t.Helper()
	for _, kind := range []string{accessList, defaultList} {
		buf := make([]byte, 1000)
		n, err := unix.Lgetxattr(path, kind, buf)
		p.did(fmt.Sprintf("get %s of %s", kind, path), err, fmt.Sprintf("%x", buf[:max(n, 0)]))
	}
}

// scriptLists sets access control lists, good ones and bad ones, on everything, and changes modes under them.
func scriptLists(p *place) {
	p.kinds()
	for _, path := range []string{"d", "f", "l", "fifo", "none"} {
		for i, list := range lists {
			if path != "d" && path != "f" && i > 3 {
				break
			}
			another := lists[1+i%2]
			for _, kind := range []string{accessList, defaultList} {
				p.chmod(path, 0o2751)
				p.setACL(path, kind, list, 0)
				p.getACLs(path)
				p.setACL(path, kind, another, unix.XATTR_REPLACE)
				p.setACL(path, kind, list, unix.XATTR_CREATE)
				p.chmod(path, 0o640)
				p.getACLs(path)
				p.chmod(path, 0o4777)
				p.getACLs(path)
				p.chown(path, alice, bob)
				p.listxattr(path, 1000)
				p.removexattr(path, kind)
				p.removexattr(path, kind)
				p.chown(path, 0, 0)
			}
		}
	}
}

// scriptInherit makes everything below directories with default lists, with different masks.
func scriptInherit(p *place) {
	p.rough = true
	for i, list := range lists[:4] {
		for _, mask := range []int{0, 0o027, 0o777}[:1+i%3] {
			dir := fmt.Sprintf("d%d-%o", i, mask)
			p.mkdir(dir, 0o2777)
			p.setACL(dir, defaultList, list, 0)
			p.as(0, 0, func() {
				unix.Umask(mask)
				for _, mode := range []uint32{0o777, 0o640, 0o2700} {
					at := fmt.Sprintf("%s/%o", dir, mode)
					p.mkdir(at+"d", mode)
					p.mknod(at+"n", unix.S_IFREG|mode, 0, 0)
					p.mknod(at+"p", unix.S_IFIFO|mode, 0, 0)
					p.try(at+"f", unix.O_CREAT|unix.O_WRONLY, mode)
					p.symlink("x", at+"l")
					p.bind(at + "s")
					f := p.open(dir, unix.O_TMPFILE|unix.O_RDWR, mode)
					f.stat()
					f.did("linkat @", unix.Linkat(f.fd, "", unix.AT_FDCWD, at+"t", unix.AT_EMPTY_PATH))
					f.drop()
					for _, kind := range []string{"d", "n", "p", "f", "l", "t"} {
						p.getACLs(at + kind)
					}
				}
			})
			p.clear(dir) // a small tree is looked at quickly
		}
	}
}

// scriptListRights: who may do what by access control lists.
func scriptListRights(p *place) {
	p.rough = true
	p.chmod(".", 0o777)
	p.write("f", "text")
	p.mkdir("d", 0o755)
	p.write("d/in", "text")
	for _, list := range lists[:4] {
		for _, path := range []string{"f", "d"} {
			p.chown(path, alice, alice)
			p.setACL(path, accessList, list, 0)
		}
		for _, who := range [][2]int{{alice, alice}, {bob, bob}, {1003, team}, {1003, 1003}} {
			p.as(who[0], who[1], func() {
				p.did(fmt.Sprintf("-- %d:%d with %s", who[0], who[1], list.name), nil)
				for _, path := range []string{"f", "d", "d/in"} {
					for _, want := range []uint32{unix.R_OK, unix.W_OK, unix.X_OK} {
						p.access(path, want, unix.AT_EACCESS)
					}
					p.try(path, unix.O_RDONLY, 0)
					p.try(path, unix.O_WRONLY, 0)
				}
				p.try("d/new", unix.O_CREAT|unix.O_WRONLY, 0o600)
				p.unlink("d/new")
				p.setACL("f", accessList, list, 0)
				p.setACL("d", defaultList, list, 0)
				p.removexattr("d", defaultList)
				p.getACLs("f")
			})
		}
	}
}

// scriptNameless makes files without a name and gives them one.
func scriptNameless(p *place) {
	p.mkdir("d", 0o755)
	p.write("file", "x")
	for _, flags := range []int{unix.O_RDWR, unix.O_WRONLY, unix.O_RDONLY, unix.O_RDWR | unix.O_EXCL, unix.O_RDWR | unix.O_CREAT, unix.O_RDWR | unix.O_TRUNC} {
		for _, dir := range []string{"d", ".", "file", "none"} {
			p.try(dir, flags|unix.O_TMPFILE, 0o640)
		}
		f := p.open("d", flags|unix.O_TMPFILE, 0o6755)
		f.stat()
		f.write("nameless")
		f.truncate(3)
		f.did("fsetxattr @", unix.Fsetxattr(f.fd, "user.x", []byte("v"), 0))
		f.sync()
		f.did("linkat @ AT_EMPTY_PATH", unix.Linkat(f.fd, "", unix.AT_FDCWD, "d/one", unix.AT_EMPTY_PATH))
		p.did("linkat by /proc", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/thread-self/fd/%d", f.fd), unix.AT_FDCWD, "d/two", unix.AT_SYMLINK_FOLLOW))
		f.stat()
		p.unlink("d/one")
		p.unlink("d/two")
		f.did("linkat @ again", unix.Linkat(f.fd, "", unix.AT_FDCWD, "d/three", unix.AT_EMPTY_PATH))
		f.stat()
		f.close()
		p.unlink("d/three")
	}
	p.rmdir("d")
}

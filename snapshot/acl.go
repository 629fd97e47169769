package snapshot

import (
	"encoding/binary"
	"slices"
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// The names under which the two access control lists of an inode are kept among its extended attributes. The kernel enforces
// the first; directories give the second to what is made in them.
const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// IsACL tells whether an extended attribute is an access control list.
func IsACL(name string) bool { return name == accessACL || name == defaultACL }

// acl is a POSIX access control list. Its form as a value is the kernel's (linux/posix_acl_xattr.h), little-endian:
//
//	version (4) = 2 { tag (2) perm (2) id (4) }...
type acl []aclEntry

type aclEntry struct {
	tag, perm uint16
	id        uint32 // of the user or group, else undefined
}

const (
	aclVersion   = 2
	aclHead      = 4 // bytes
	aclEntrySize = 8
	noID         = 1<<32 - 1
)

// Tags of entries, in the order in which they appear in a list.
const (
	aclUserObj  = 0x01 // the owner
	aclUser     = 0x02
	aclGroupObj = 0x04 // the group
	aclGroup    = 0x08
	aclMask     = 0x10 // bounds the entries of groups and of named users
	aclOther    = 0x20
)

// parseACL reads a list and checks it as the kernel does (posix_acl_valid): EINVAL, or EOPNOTSUPP for another version.
func parseACL(b []byte) (acl, error) {
	le := binary.LittleEndian
	if len(b) < aclHead+3*aclEntrySize || (len(b)-aclHead)%aclEntrySize != 0 {
		return nil, syscall.EINVAL
	}
	if le.Uint32(b) != aclVersion {
		return nil, syscall.EOPNOTSUPP
	}
	var list acl
	for rest := b[aclHead:]; len(rest) > 0; rest = rest[aclEntrySize:] {
		list = append(list, aclEntry{le.Uint16(rest), le.Uint16(rest[2:]), le.Uint32(rest[4:])})
	}
	if !list.valid() {
		return nil, syscall.EINVAL
	}
	return list, nil
}

// valid: owner, users, group, groups, mask, others, in this order; those who have no id once, the mask at most once, and
// always if a user or group is named.
func (a acl) valid() bool {
	named, previous, seen := false, uint16(0), uint16(0)
	for _, e := range a {
		again := e.tag == previous && (e.tag == aclUser || e.tag == aclGroup)
		if e.perm > 7 || e.tag <= previous && !again {
			return false
		}
		switch e.tag {
		case aclUser, aclGroup:
			named = true
			if e.id == noID {
				return false
			}
		case aclUserObj, aclGroupObj, aclMask, aclOther:
		default:
			return false
		}
		previous = e.tag
		seen |= e.tag
	}
	const needed = aclUserObj | aclGroupObj | aclOther
	return seen&needed == needed && (!named || seen&aclMask != 0)
}

func (a acl) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(make([]byte, 0, aclHead+len(a)*aclEntrySize), aclVersion)
	for _, e := range a {
		b = le.AppendUint32(le.AppendUint16(le.AppendUint16(b, e.tag), e.perm), e.id)
	}
	return b
}

// group returns the entry that the group bits of a mode stand for: the mask, or the group's where there is none.
func (a acl) group() (found *aclEntry) {
	for i := range a {
		if a[i].tag == aclGroupObj || a[i].tag == aclMask {
			found = &a[i]
		}
	}
	return found
}

// perm returns the permission bits that the list stands for, and whether they say all of it.
func (a acl) perm() (bits uint32, minimal bool) {
	for _, e := range a {
		switch e.tag {
		case aclUserObj:
			bits |= uint32(e.perm) << 6
		case aclOther:
			bits |= uint32(e.perm)
		}
	}
	return bits | uint32(a.group().perm)<<3, len(a) == 3
}

// chmod makes the list of an inode agree with its new mode.
func (a acl) chmod(mode uint32) {
	for i := range a {
		switch a[i].tag {
		case aclUserObj:
			a[i].perm = uint16(mode >> 6 & 7)
		case aclOther:
			a[i].perm = uint16(mode & 7)
		}
	}
	a.group().perm = uint16(mode >> 3 & 7)
}

// limit makes a directory's default list the access list of an inode made in it with mode: nobody gets more than both
// allow. It returns the inode's mode.
func (a acl) limit(mode uint32) uint32 {
	bits, _ := a.perm()
	mode &^= 0o777 &^ bits
	a.chmod(mode)
	return mode
}

// acl returns an access control list of an inode and the epoch in which it was written; nil and 0 if it has none. l.mu
// is held. That most inodes have none is remembered: it costs nothing then.
func (l *Live) acl(n *node, name string) (acl, cow.Epoch, error) {
	if n.lacks(name) {
		return nil, 0, nil
	}
	value, e, err := l.db.Xattr(n.ino, name, meta.Latest)
	if err != nil {
		return nil, 0, err
	}
	if e == 0 {
		n.mu.Lock()
		n.absent |= ownXattr(name) // l.mu keeps others from setting one meanwhile
		n.mu.Unlock()
		return nil, 0, nil
	}
	list, err := parseACL(value)
	if err != nil {
		return nil, 0, &opError{"read the list", n.ino, name, ErrDamaged}
	}
	return list, e, nil
}

// heritage is what the default list of a directory gives to an inode made in it.
type heritage struct{ access, def acl }

// inherit applies the umask to the mode of an inode to be made in dir, or in its place the default list of dir. l.mu is held.
func (l *Live) inherit(dir *node, spec *Spec) (h heritage, err error) {
	if spec.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		return h, nil
	}
	def, _, err := l.acl(dir, defaultACL)
	if err != nil {
		return h, err
	}
	if def == nil {
		spec.Mode &^= spec.Umask & 0o777
		return h, nil
	}
	access := slices.Clone(def)
	spec.Mode = access.limit(spec.Mode)
	if _, minimal := access.perm(); !minimal {
		h.access = access
	}
	if isDir(spec.Mode) {
		h.def = def
	}
	return h, nil
}

// bequeath gives a new node its lists, in the batch that makes it.
func (c *change) bequeath(n *node, h heritage) {
	n.absent = ^ownXattrs(0)
	c.putACL(n, accessACL, h.access, 0)
	c.putACL(n, defaultACL, h.def, 0)
}

// putACL stages a list, if there is one. prev is the epoch of the one that it replaces.
func (c *change) putACL(n *node, name string, list acl, prev cow.Epoch) {
	if list != nil {
		c.b.PutXattr(n.ino, name, list.encode(), c.epoch, prev)
		n.absent &^= ownXattr(name)
	}
}

// SetACL sets an access control list, in the kernel's form. That of access sets the permission bits of the mode, too, and is
// kept only if it says more than they do. killSGID says that the caller may not keep the setgid bit. Errors: EINVAL,
// EOPNOTSUPP for symlinks, EACCES for a default list of what is no directory.
func (l *Live) SetACL(ino Ino, name string, value []byte, killSGID bool) error {
	list, err := parseACL(value)
	if err == nil {
		err = l.disk.take(entryBytes + int64(len(value)))
	}
	if err != nil {
		return &opError{"set the list", ino, name, err}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.node(ino)
	if err != nil {
		return err
	}
	defer l.nodes.put(n)
	x, found, err := l.xattr(ino, name)
	if err != nil {
		return err
	}
	c, err := l.begin(n)
	if err != nil {
		return err
	}
	defer c.end()
	rec := c.rec(n)
	switch {
	case rec.Mode&syscall.S_IFMT == syscall.S_IFLNK:
		return &opError{"set the list", ino, name, syscall.EOPNOTSUPP}
	case name == defaultACL && !isDir(rec.Mode):
		return &opError{"set the list", ino, name, syscall.EACCES}
	}
	rec.Ctime = now()
	if name == accessACL {
		bits, minimal := list.perm()
		rec.Mode = rec.Mode&^0o777 | bits
		if killSGID {
			rec.Mode &^= syscall.S_ISGID
		}
		if minimal {
			list = nil
		}
	}
	switch {
	case list != nil:
		c.putACL(n, name, list, x.epoch)
	case found:
		c.deleteXattr(n, x)
	}
	return c.commit()
}

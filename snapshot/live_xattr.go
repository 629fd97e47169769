package snapshot

import (
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
	"golang.org/x/sys/unix"
)

// capsXattr holds file capabilities. With KILLPRIV_V2 the kernel leaves it to us to remove them when the file is written.
const capsXattr = "security.capability"

// ownXattrs is a set of the extended attributes that the live tree itself looks for.
type ownXattrs uint8

// ownXattr returns the set of one attribute; empty if it is none of these.
func ownXattr(name string) ownXattrs {
	switch name {
	case capsXattr:
		return 1 << 0
	case accessACL:
		return 1 << 1
	case defaultACL:
		return 1 << 2
	}
	return 0
}

// lacks tells whether the inode is known not to have one of ownXattrs.
func (n *node) lacks(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.absent&ownXattr(name) != 0
}

// SetXattr sets an extended attribute; flags may be XATTR_CREATE or XATTR_REPLACE, which mean nothing for access control
// lists, as elsewhere.
func (l *Live) SetXattr(ino Ino, name string, value []byte, flags uint) error {
	if IsACL(name) {
		return l.SetACL(ino, name, value, false)
	}
	if err := checkXattr("set attribute", ino, name); err != nil {
		return err
	}
	if len(value) > maxXattr {
		return &opError{"set attribute", ino, name, syscall.E2BIG}
	}
	if err := l.disk.take(entryBytes + int64(len(value))); err != nil {
		return &opError{"set attribute", ino, name, err}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.node(ino)
	if err != nil {
		return err
	}
	defer l.nodes.put(n)
	_, prev, err := l.db.Xattr(ino, name, meta.Latest)
	switch {
	case err != nil:
		return err
	case flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0:
		err = syscall.EINVAL
	case flags&unix.XATTR_CREATE != 0 && prev != 0:
		err = syscall.EEXIST
	case flags&unix.XATTR_REPLACE != 0 && prev == 0:
		err = syscall.ENODATA
	}
	if err != nil {
		return &opError{"set attribute", ino, name, err}
	}
	c, err := l.begin(n)
	if err != nil {
		return err
	}
	defer c.end()
	c.b.PutXattr(ino, name, value, c.epoch, prev)
	c.rec(n).Ctime = now()
	n.absent &^= ownXattr(name)
	return c.commit()
}

// RemoveXattr removes an extended attribute. Only of an access control list it is no error if there is none: what the
// mode says is left, in any case.
func (l *Live) RemoveXattr(ino Ino, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.node(ino)
	if err != nil {
		return err
	}
	defer l.nodes.put(n)
	x, found, err := l.xattr(ino, name)
	if err == nil && !found {
		if IsACL(name) {
			return nil
		}
		err = noXattr("remove attribute", ino, name)
	}
	if err != nil {
		return err
	}
	return l.dropXattr(n, x)
}

// xattr is an extended attribute that is to be removed, with what the change has to know.
type xattr struct {
	name  string
	epoch cow.Epoch
	older bool
}

// xattr looks up an extended attribute that is to be removed. l.mu is held.
func (l *Live) xattr(ino Ino, name string) (x xattr, found bool, err error) {
	_, e, err := l.db.Xattr(ino, name, meta.Latest)
	if err != nil || e == 0 {
		return x, false, err
	}
	older, err := l.db.Older(meta.XattrKeyOf(ino, name), e)
	return xattr{name, e, older}, true, err
}

func (l *Live) dropXattr(n *node, x xattr) error {
	c, err := l.begin(n)
	if err != nil {
		return err
	}
	defer c.end()
	c.deleteXattr(n, x)
	c.rec(n).Ctime = now()
	return c.commit()
}

func (c *change) deleteXattr(n *node, x xattr) {
	c.b.DeleteXattr(n.ino, x.name, c.epoch, x.epoch, x.older)
	c.after = append(c.after, func() { n.absent |= ownXattr(x.name) })
}

// removeCaps removes file capabilities before a write, truncation or change of owner. Most files have none, which is
// remembered: it costs nothing then.
func (l *Live) removeCaps(n *node) error {
	if n.lacks(capsXattr) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	x, found, err := l.xattr(n.ino, capsXattr)
	if err != nil {
		return err
	}
	if found {
		return l.dropXattr(n, x)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.absent |= ownXattr(capsXattr) // l.mu keeps others from setting one meanwhile
	return nil
}

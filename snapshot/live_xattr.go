package snapshot

import (
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
	"golang.org/x/sys/unix"
)

// capsXattr holds file capabilities. With KILLPRIV_V2 the kernel leaves it to us to remove them when the file is written.
const capsXattr = "security.capability"

// SetXattr sets an extended attribute; flags may be XATTR_CREATE or XATTR_REPLACE.
func (l *Live) SetXattr(ino Ino, name string, value []byte, flags uint) error {
	if err := checkXattr("set attribute", ino, name); err != nil {
		return err
	}
	if len(value) > maxXattr {
		return &opError{"set attribute", ino, name, syscall.E2BIG}
	}
	if err := l.spare.take(entryBytes + int64(len(value))); err != nil {
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
	if name == capsXattr {
		n.caps = capsSome
	}
	return c.commit()
}

// RemoveXattr removes an extended attribute.
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
		err = &opError{"remove attribute", ino, name, syscall.ENODATA}
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
	c.b.DeleteXattr(n.ino, x.name, c.epoch, x.epoch, x.older)
	c.rec(n).Ctime = now()
	if x.name == capsXattr {
		c.after = append(c.after, func() { n.caps = capsNone })
	}
	return c.commit()
}

// removeCaps removes file capabilities before a write, truncation or change of owner. Most files have none, which is
// remembered: it costs nothing then.
func (l *Live) removeCaps(n *node) error {
	n.mu.Lock()
	caps := n.caps
	n.mu.Unlock()
	if caps == capsNone {
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
	n.caps = capsNone // l.mu keeps others from setting one meanwhile
	return nil
}

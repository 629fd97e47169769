package snapshot

import (
	"syscall"

	"github.com/snapfs/snapfs/snapshot/meta"
)

// newRecord is the record of an inode made in a directory whose record is p, at time t. Group and lists come from the
// directory if it says so.
func newRecord(p *meta.Inode, spec *Spec, t Time) meta.Inode {
	rec := meta.Inode{Mode: spec.Mode, Nlink: 1, UID: spec.UID, GID: spec.GID, Rdev: spec.Rdev,
		Atime: t, Mtime: t, Ctime: t, Btime: t, Target: spec.Target, Size: int64(len(spec.Target))}
	if p.Mode&syscall.S_ISGID != 0 {
		rec.GID = p.GID
	}
	return rec
}

// newNode returns a node with a new number, with a reference.
func (l *Live) newNode() (*node, error) {
	ino, err := l.db.NextIno()
	if err != nil {
		return nil, err
	}
	return l.nodes.get(ino), nil
}

// CreateNameless makes a regular file that has no name (O_TMPFILE), with group and lists as if it were made in directory
// parent. It is an orphan from the beginning: it goes when nobody uses it, or with a crash, unless Link gives it a name,
// which is possible if linkable is set.
func (l *Live) CreateNameless(parent Ino, spec Spec, linkable bool) (Attr, error) {
	if !isRegular(spec.Mode) {
		return Attr{}, &opError{"create without a name in", parent, "", syscall.EINVAL}
	}
	if err := l.disk.take(entryBytes); err != nil {
		return Attr{}, &opError{"create without a name in", parent, "", err}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	dir, err := l.directory("create in", parent)
	if err != nil {
		return Attr{}, err
	}
	defer l.nodes.put(dir)
	lists, err := l.inherit(dir, &spec)
	if err != nil {
		return Attr{}, err
	}
	n, err := l.newNode()
	if err != nil {
		return Attr{}, err
	}
	defer l.nodes.put(n)
	c, err := l.begin(dir, n)
	if err != nil {
		return Attr{}, err
	}
	defer c.end()
	rec := c.rec(n)
	*rec = newRecord(&dir.rec, &spec, now())
	rec.Nlink = 0
	c.bequeath(n, lists)
	c.orphan(n)
	c.after = append(c.after, func() { n.linkable = linkable })
	if err := c.commit(); err != nil {
		l.nodes.forsake(n)
		return Attr{}, err
	}
	return attrOf(n.ino, rec), nil
}

// orphan lists an inode that has no name: it stays until nobody uses it.
func (c *change) orphan(n *node) {
	c.b.AddOrphan(n.ino)
	c.after = append(c.after, func() {
		n.orphan = true
		c.l.nodes.pin(n)
	})
}

// adopt takes a node off that list: it got its first name.
func (c *change) adopt(n *node) {
	c.b.RemoveOrphan(n.ino)
	c.after = append(c.after, func() {
		n.orphan, n.forgotten, n.linkable = false, false, false
		c.l.nodes.put(n) // the orphan's reference; the caller has its own
	})
}

package snapshot

import (
	"syscall"

	"github.com/snapfs/snapfs/snapshot/meta"
	"golang.org/x/sys/unix"
)

// rename is one rename, looked up and allowed, ready to be made.
type rename struct {
	from, to       entry
	fromDir, toDir *node // may be the same
	moved          *node // what from leads to
	other          *node // what to leads to; nil if to does not exist
	exchange       bool
	white          *whiteout // what is left at from; nil is nothing
}

// whiteout is what overlay file systems know a removed name by: a character device 0:0 that nobody may use.
type whiteout struct {
	n     *node
	spec  Spec
	lists heritage
}

// Rename moves an entry, over an existing one if there is one, and returns what was moved: two inodes with RENAME_EXCHANGE, none if both
// names were of one inode. flags may be RENAME_NOREPLACE or RENAME_EXCHANGE.
func (l *Live) Rename(op Ino, on string, np Ino, nn string, flags uint) (moved []Attr, err error) {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 || flags == unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE {
		return nil, &opError{"rename", op, on, syscall.EINVAL}
	}
	return l.rename(op, on, np, nn, flags, nil)
}

// RenameWhiteout is Rename that leaves a whiteout, owned by uid and gid, at the old name. flags may be RENAME_NOREPLACE.
func (l *Live) RenameWhiteout(op Ino, on string, np Ino, nn string, flags uint, uid, gid uint32) (moved []Attr, err error) {
	if flags&^unix.RENAME_NOREPLACE != 0 {
		return nil, &opError{"rename", op, on, syscall.EINVAL}
	}
	if err := l.disk.take(entryBytes); err != nil {
		return nil, &opError{"rename", op, on, err}
	}
	return l.rename(op, on, np, nn, flags, &whiteout{spec: Spec{Mode: syscall.S_IFCHR, UID: uid, GID: gid}})
}

func (l *Live) rename(op Ino, on string, np Ino, nn string, flags uint, white *whiteout) ([]Attr, error) {
	if err := checkEntryName("rename to", np, nn); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &rename{exchange: flags&unix.RENAME_EXCHANGE != 0, white: white}
	defer l.putRename(r)
	if err := l.findRename(r, op, on, np, nn); err != nil {
		return nil, err
	}
	switch {
	case flags&unix.RENAME_NOREPLACE != 0 && r.to.exists():
		return nil, &opError{"rename to", np, nn, syscall.EEXIST}
	case r.exchange && !r.to.exists():
		return nil, &opError{"rename to", np, nn, syscall.ENOENT}
	case r.to.exists() && r.to.Ino == r.from.Ino:
		return nil, nil // two names of one inode: both stay (POSIX)
	}
	if err := l.checkRename(r); err != nil {
		return nil, err
	}
	if err := l.prepareWhiteout(r); err != nil {
		return nil, err
	}
	return l.commitRename(r)
}

// prepareWhiteout makes the node of the whiteout, if there is to be one.
func (l *Live) prepareWhiteout(r *rename) (err error) {
	if r.white == nil {
		return nil
	}
	if r.white.lists, err = l.inherit(r.fromDir, &r.white.spec); err != nil {
		return err
	}
	r.white.n, err = l.newNode()
	return err
}

// leave records the whiteout in the directory whose staged record is p, at time t.
func (c *change) leave(w *whiteout, from *entry, p *meta.Inode, t Time) {
	*c.rec(w.n) = newRecord(p, &w.spec, t)
	c.bequeath(w.n, w.lists)
	c.putEntry(from, w.n.ino, w.spec.Mode&syscall.S_IFMT)
}

// findRename looks up both entries and loads their nodes; putRename gives those back.
func (l *Live) findRename(r *rename, op Ino, on string, np Ino, nn string) (err error) {
	if r.fromDir, err = l.directory("rename in", op); err != nil {
		return err
	}
	if r.toDir, err = l.directory("rename in", np); err != nil {
		return err
	}
	if r.from, err = l.doomed("rename", op, on); err != nil {
		return err
	}
	if r.to, err = l.entry(np, nn); err != nil {
		return err
	}
	if r.moved, err = l.node(r.from.Ino); err != nil {
		return err
	}
	if r.to.exists() {
		r.other, err = l.node(r.to.Ino)
	}
	return err
}

func (l *Live) putRename(r *rename) {
	for _, n := range []*node{r.fromDir, r.toDir, r.moved, r.other} {
		if n != nil {
			l.nodes.put(n)
		}
	}
	if r.white != nil && r.white.n != nil {
		l.nodes.put(r.white.n)
	}
}

// checkRename applies the rules of rename(2) on directories.
func (l *Live) checkRename(r *rename) error {
	exchange, from, to := r.exchange, &r.from, &r.to
	if isDir(from.Type) {
		if err := l.needOutside(to.parent, from); err != nil {
			return err
		}
	}
	if exchange && isDir(to.Type) {
		return l.needOutside(from.parent, to)
	}
	if exchange || !to.exists() {
		return nil
	}
	switch {
	case isDir(from.Type) && !isDir(to.Type):
		return &opError{"rename to", to.parent, to.Name, syscall.ENOTDIR}
	case !isDir(from.Type) && isDir(to.Type):
		return &opError{"rename to", to.parent, to.Name, syscall.EISDIR}
	case isDir(to.Type):
		return l.needEmpty("rename to", to)
	}
	return nil
}

// needOutside fails if directory dir is the one that ent leads to, or is below it.
func (l *Live) needOutside(dir Ino, ent *entry) error {
	for dir != ent.Ino {
		if dir == Root {
			return nil
		}
		parent, err := l.Parent(dir)
		if err != nil {
			return err
		}
		dir = parent
	}
	return &opError{"rename into itself", ent.parent, ent.Name, syscall.EINVAL}
}

func (l *Live) commitRename(r *rename) (moved []Attr, err error) {
	nodes := []*node{r.fromDir, r.toDir, r.moved, r.other}
	if r.white != nil {
		nodes = append(nodes, r.white.n)
	}
	c, err := l.begin(nodes...)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if r.other != nil {
		c.orderBytes(r.moved)
	}
	if r.exchange {
		c.orderBytes(r.other)
	}
	t := now()
	from, to := c.touchDir(r.fromDir, t), c.touchDir(r.toDir, t)
	c.putEntry(&r.to, r.from.Ino, r.from.Type)
	c.move(r.moved, from, to, r.toDir.ino, t)
	if r.exchange {
		c.putEntry(&r.from, r.to.Ino, r.to.Type)
		c.move(r.other, to, from, r.fromDir.ino, t)
		return []Attr{c.attr(r.moved), c.attr(r.other)}, c.commit()
	}
	if r.other != nil {
		if isDir(r.to.Type) {
			to.Nlink--
		}
		c.unname(r.other, t)
	}
	if r.white == nil {
		c.removeEntry(&r.from)
		return []Attr{c.attr(r.moved)}, c.commit()
	}
	c.leave(r.white, &r.from, from, t)
	if err := c.commit(); err != nil {
		l.nodes.forsake(r.white.n)
		return nil, err
	}
	return []Attr{c.attr(r.moved)}, nil
}

// attr describes a locked node with the changes staged so far.
func (c *change) attr(n *node) Attr { return attrOf(n.ino, c.rec(n)) }

// move records that n came from one directory into another, whose staged records are given.
func (c *change) move(n *node, from, to *meta.Inode, toIno Ino, t Time) {
	rec := c.rec(n)
	rec.Ctime = t
	if isDir(rec.Mode) {
		from.Nlink--
		to.Nlink++
		rec.Parent = toIno
	}
}

// orderBytes has the bytes of n on the disk before the name that it takes from another inode: after a power loss the name leads
// to the old bytes or to the new ones, also where nobody called fsync.
func (c *change) orderBytes(n *node) {
	if id := n.rec.Content; id != 0 {
		c.l.pool.Order(id)
	}
}

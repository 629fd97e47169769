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
}

// Rename moves an entry, over an existing one if there is one. flags may be RENAME_NOREPLACE or RENAME_EXCHANGE.
func (l *Live) Rename(op Ino, on string, np Ino, nn string, flags uint) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 || flags == unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE {
		return &opError{"rename", op, on, syscall.EINVAL}
	}
	if err := checkEntryName("rename to", np, nn); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &rename{}
	defer l.putRename(r)
	if err := l.findRename(r, op, on, np, nn); err != nil {
		return err
	}
	exchange := flags == unix.RENAME_EXCHANGE
	switch {
	case flags == unix.RENAME_NOREPLACE && r.to.exists():
		return &opError{"rename to", np, nn, syscall.EEXIST}
	case exchange && !r.to.exists():
		return &opError{"rename to", np, nn, syscall.ENOENT}
	case r.to.exists() && r.to.Ino == r.from.Ino:
		return nil // two names of one inode: both stay (POSIX)
	}
	if err := l.checkRename(r, exchange); err != nil {
		return err
	}
	return l.commitRename(r, exchange)
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
}

// checkRename applies the rules of rename(2) on directories.
func (l *Live) checkRename(r *rename, exchange bool) error {
	from, to := &r.from, &r.to
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

func (l *Live) commitRename(r *rename, exchange bool) error {
	c, err := l.begin(r.fromDir, r.toDir, r.moved, r.other)
	if err != nil {
		return err
	}
	defer c.end()
	t := now()
	from, to := c.touchDir(r.fromDir, t), c.touchDir(r.toDir, t)
	c.putEntry(&r.to, r.from.Ino, r.from.Type)
	c.move(r.moved, from, to, r.toDir.ino, t)
	switch {
	case exchange:
		c.putEntry(&r.from, r.to.Ino, r.to.Type)
		c.move(r.other, to, from, r.fromDir.ino, t)
	case r.other != nil:
		if isDir(r.to.Type) {
			to.Nlink--
		}
		c.unname(r.other, t)
		c.removeEntry(&r.from)
	default:
		c.removeEntry(&r.from)
	}
	return c.commit()
}

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

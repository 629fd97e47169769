package snapshot

import (
	"fmt"
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// withFile runs do with the file of the node's content, which cannot be replaced meanwhile. Where there is no content yet it makes one
// if create is set, else it passes nil. The caller has a handle, or nobody would close the file.
func (l *Live) withFile(n *node, create bool, do func(*cow.File) error) error {
	n.content.RLock()
	for n.file == nil {
		n.content.RUnlock()
		if empty, err := l.openFile(n, create); err != nil {
			return err
		} else if empty {
			return do(nil)
		}
		n.content.RLock()
	}
	defer n.content.RUnlock()
	return do(n.file)
}

// withFiles is withFile for a node that is changed (its content is made) and one that is read, in an order that is the same for all.
func (l *Live) withFiles(to, from *node, do func(to, from *cow.File) error) error {
	if to == from {
		return l.withFile(to, true, func(f *cow.File) error { return do(f, f) })
	}
	inner := func(f *cow.File) error {
		if from.ino < to.ino {
			return l.withFile(to, true, func(t *cow.File) error { return do(t, f) })
		}
		return l.withFile(from, false, func(t *cow.File) error { return do(f, t) })
	}
	if from.ino < to.ino {
		return l.withFile(from, false, inner)
	}
	return l.withFile(to, true, inner)
}

// openFile opens the node's content if it is not open. empty says that there is none and none is to be made.
func (l *Live) openFile(n *node, create bool) (empty bool, err error) {
	n.content.Lock()
	defer n.content.Unlock()
	if n.file != nil {
		return false, nil
	}
	n.mu.Lock()
	rec, epoch := n.rec, n.epoch
	n.mu.Unlock()
	switch {
	case rec.Content != 0:
		n.file, err = l.pool.Open(rec.Content, rec.Size, rec.Reach, epoch, l.mayBeLost(&rec))
	case !create:
		return true, nil
	default:
		var id cow.ID
		if id, err = l.db.NextContent(); err == nil {
			n.file, err = l.pool.Create(id) // the first change puts the id into the record
		}
	}
	if err != nil {
		n.file = nil
		return false, &opError{"open", n.ino, "", err}
	}
	return false, nil
}

// mayBeLost reports whether a power loss may have taken the content's base file: nobody has synced it, neither fsync, nor a
// snapshot, nor the orderly end of an earlier life of the store. Where it is missing all the same, that is damage.
func (l *Live) mayBeLost(rec *meta.Inode) bool {
	return !rec.Stable && rec.Born > l.newest() && rec.Content >= l.synced
}

// closeFile closes the node's file if it is open. n.content is held exclusively.
func (l *Live) closeFile(n *node) error {
	f := n.file
	if f == nil {
		return nil
	}
	l.measureFile(n, f)
	n.file = nil
	err := f.Close()
	n.mu.Lock()
	unused := n.rec.Content != f.ID()
	n.mu.Unlock()
	if unused { // made for a change that failed
		b := l.db.NewBatch()
		b.AddGarbage(f.ID())
		if _, err2 := b.Commit(false); err == nil {
			err = err2
		}
	}
	if err != nil {
		return &opError{"close", n.ino, "", err}
	}
	return nil
}

// recorder returns what a change of f tells the namespace: size, reach and times, and that the node's content is f. It is
// called inside the gate. What only changes times stays in memory until flushAttrs, everything else is committed at once.
func (l *Live) recorder(n *node, f *cow.File, killPriv bool) cow.Record {
	return func(e cow.Epoch, size, reach int64) error {
		t := now()
		n.changes.Add(1)
		n.mu.Lock()
		r := &n.rec
		if n.loaded && r.Content == f.ID() && r.Size == size && r.Reach == reach && (!killPriv || r.Mode == withoutPriv(r.Mode)) {
			r.Mtime, r.Ctime = t, t
			l.markDirty(n)
			n.mu.Unlock()
			return nil
		}
		n.mu.Unlock()
		return l.recordSize(n, f, e, size, reach, killPriv, t)
	}
}

func (l *Live) recordSize(n *node, f *cow.File, e cow.Epoch, size, reach int64, killPriv bool, t Time) error {
	c, err := l.beginIn(e, n)
	if err != nil {
		return err
	}
	defer c.end()
	rec := c.rec(n)
	switch rec.Content {
	case f.ID():
	case 0:
		rec.Content, rec.Born, rec.Stable = f.ID(), e, false
	default:
		return fmt.Errorf("write inode %d: content %d in place of %d: %w", n.ino, f.ID(), rec.Content, syscall.EIO)
	}
	rec.Size, rec.Reach, rec.Mtime, rec.Ctime = size, reach, t, t
	if killPriv {
		rec.Mode = withoutPriv(rec.Mode)
	}
	if n.emptied {
		l.pool.Order(rec.Content)
	}
	return c.commit()
}

// markDirty notes that the record differs from the store's. n.mu is held.
func (l *Live) markDirty(n *node) {
	if !n.dirty {
		n.dirty = true
		l.nodes.list(n)
	}
}

// measure brings the blocks in the record up to date if the file was written and is open.
func (l *Live) measure(n *node) {
	if n.isMeasured() {
		return
	}
	n.content.RLock()
	defer n.content.RUnlock()
	if n.file != nil {
		l.measureFile(n, n.file)
	}
}

// measureFile is measure for a caller that holds n.content. A base file that cannot be asked keeps the old number.
func (l *Live) measureFile(n *node, f *cow.File) {
	changes := n.changes.Load()
	if n.isMeasured() {
		return
	}
	blocks, err := f.Blocks()
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.measured = max(n.measured, changes)
	if n.loaded && n.rec.Content == f.ID() && n.rec.Blocks != blocks {
		n.rec.Blocks = blocks
		l.markDirty(n)
	}
}

// isMeasured reports whether rec.Blocks was read after the last change. While somebody else reads it, it is not.
func (n *node) isMeasured() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.measured == n.changes.Load()
}

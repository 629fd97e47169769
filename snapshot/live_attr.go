package snapshot

import (
	"syscall"
	"time"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Change is a setattr request; only the fields named in Set are changed. Ctime is the present unless it is named: a kernel that
// holds back writes keeps the times of files itself.
type Change struct {
	Set          ChangeSet
	Mode         uint32 // permission bits, 07777
	UID, GID     uint32
	Size         int64
	Atime, Mtime Time
	Ctime        Time
	KillPriv     bool // clear suid and (if group-executable) sgid, unless it is a directory
}

// ChangeSet names the fields of a Change.
type ChangeSet uint32

// The fields of a Change.
const (
	SetMode ChangeSet = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetAtimeNow
	SetMtime
	SetMtimeNow
	SetCtime
)

// SetAttr changes attributes. With SetSize it is truncate(2).
func (l *Live) SetAttr(ino Ino, ch Change) (Attr, error) {
	n, err := l.node(ino)
	if err != nil {
		return Attr{}, err
	}
	defer l.nodes.put(n)
	if ch.KillPriv || ch.Set&(SetUID|SetGID|SetSize) != 0 {
		if err := l.removeCaps(n); err != nil {
			return Attr{}, err
		}
	}
	if ch.Set&SetSize != 0 {
		if err := l.truncate(n, ch.Size); err != nil {
			return Attr{}, err
		}
	}
	l.measure(n) // may wait for I/O of the file: not under l.mu
	if ch.Set&SetMode != 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
	}
	return l.setAttr(n, &ch)
}

// setAttr sets all but the size. If it changes the mode l.mu is held, and the access control list follows.
func (l *Live) setAttr(n *node, ch *Change) (attr Attr, err error) {
	var list acl
	var written cow.Epoch
	if ch.Set&SetMode != 0 {
		if list, written, err = l.acl(n, accessACL); err != nil {
			return attr, err
		}
	}
	c, err := l.begin(n)
	if err != nil {
		return attr, err
	}
	defer c.end()
	rec := c.rec(n)
	ch.apply(rec, now())
	if list != nil {
		list.chmod(rec.Mode)
		c.putACL(n, accessACL, list, written)
	}
	return attrOf(n.ino, rec), c.commit()
}

// apply makes the change but for the size. A new mode counts more than the set-id bits it clears.
func (ch *Change) apply(rec *meta.Inode, t Time) {
	rec.Ctime = t
	if ch.Set&SetCtime != 0 {
		rec.Ctime = ch.Ctime
	}
	if ch.KillPriv && !isDir(rec.Mode) {
		rec.Mode = withoutPriv(rec.Mode)
	}
	if ch.Set&SetMode != 0 {
		rec.Mode = rec.Mode&syscall.S_IFMT | ch.Mode&07777
	}
	if ch.Set&SetUID != 0 {
		rec.UID = ch.UID
	}
	if ch.Set&SetGID != 0 {
		rec.GID = ch.GID
	}
	switch {
	case ch.Set&SetAtimeNow != 0:
		rec.Atime = t
	case ch.Set&SetAtime != 0:
		rec.Atime = ch.Atime
	}
	switch {
	case ch.Set&SetMtimeNow != 0:
		rec.Mtime = t
	case ch.Set&SetMtime != 0:
		rec.Mtime = ch.Mtime
	}
}

// relatimeDay is how old an atime gets before a read renews it in any case.
const relatimeDay = 24 * 60 * 60 // seconds

// clockSlack is by how much the kernel's clock for file times, which counts with writeback, may be behind ours: one tick at 100 Hz.
const clockSlack = 10 * time.Millisecond

// Access notes in the atime that an inode was read at time t, unless it was read later: always if strict is set, else as the
// kernel's relatime does, only if it was changed after it was last read, or that is a day ago. It stays in memory until
// flushAttrs. It reports whether it changed the atime; an inode that is not there, or whose record cannot be read, is left
// alone.
func (l *Live) Access(ino Ino, t Time, strict bool) bool {
	n, err := l.node(ino)
	if err != nil {
		return false
	}
	defer l.nodes.put(n)
	return l.access(n, t, strict)
}

func (l *Live) access(n *node, t Time, strict bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := &n.rec
	seen := r.Atime.Add(-clockSlack)
	due := strict || !r.Mtime.Before(seen) || !r.Ctime.Before(seen) || t.Sec-r.Atime.Sec >= relatimeDay
	if !due || !n.loaded || !r.Atime.Before(t) {
		return false
	}
	r.Atime = t
	l.markDirty(n)
	return true
}

// truncate sets the size of a regular file. To zero it gives the inode a new content, that is none until it is written:
// the old bytes stay whole for the snapshots that see them, and for a crash before this change is durable.
func (l *Live) truncate(n *node, size int64) error {
	if err := l.checkTruncate(n, size); err != nil {
		return err
	}
	if size == 0 {
		return l.empty(n)
	}
	h, err := l.OpenFile(n.ino)
	if err != nil {
		return err
	}
	err = l.withFile(n, true, func(f *cow.File) error {
		return f.Truncate(size, l.recorder(n, f, false))
	})
	if failed := h.Close(); err == nil {
		err = failed
	}
	return err
}

func (l *Live) checkTruncate(n *node, size int64) error {
	n.mu.Lock()
	mode := n.rec.Mode
	n.mu.Unlock()
	switch {
	case isDir(mode):
		return &opError{"truncate", n.ino, "", syscall.EISDIR}
	case !isRegular(mode), size < 0:
		return &opError{"truncate", n.ino, "", syscall.EINVAL}
	}
	return nil
}

// empty makes a file have no bytes and no content.
func (l *Live) empty(n *node) error {
	n.content.Lock()
	defer n.content.Unlock()
	// Closed before the change: once the content is listed as garbage its base file may go.
	if err := l.closeFile(n); err != nil {
		return err
	}
	c, err := l.begin(n)
	if err != nil {
		return err
	}
	defer c.end()
	rec := c.rec(n)
	n.emptied = true
	c.dropContent(rec)
	rec.Mtime = now()
	rec.Ctime = rec.Mtime
	return c.commit()
}

package snapshot

import (
	"errors"
	"sync"
	"syscall"

	"github.com/snapfs/snapfs/snapshot/meta"
)

// Nameless reports whether the inode has no name, and is there for who uses it: until Forget, and until it is closed.
func (l *Live) Nameless(ino Ino) bool {
	n := l.nodes.peek(ino) // an orphan is always in memory
	if n == nil {
		return false
	}
	defer l.nodes.put(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.orphan
}

// Forget says that the kernel no longer knows the inode: an unlinked, closed one is dropped now.
func (l *Live) Forget(ino Ino) {
	n := l.nodes.peek(ino) // an orphan is always in memory
	if n == nil {
		return
	}
	defer l.nodes.put(n)
	n.mu.Lock()
	if n.orphan {
		n.forgotten = true
	}
	n.mu.Unlock()
	if err := l.drop(n); err != nil {
		l.report(err)
	}
}

// leftovers are inodes that nobody can reach any more and that could not be dropped, as on a full disk: that is tried again.
type leftovers struct {
	mu   sync.Mutex
	inos []Ino // GUARDED_BY mu
}

func (o *leftovers) add(inos ...Ino) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inos = append(o.inos, inos...)
}

func (o *leftovers) take() (inos []Ino) {
	o.mu.Lock()
	defer o.mu.Unlock()
	inos, o.inos = o.inos, nil
	return inos
}

// drop is dropUnused; what fails is left for dropLeft.
func (l *Live) drop(n *node) error {
	err := l.dropUnused(n)
	if err != nil {
		l.left.add(n.ino)
	}
	return err
}

// dropLeft drops what could not be dropped before, up to the first that still cannot. (The next mount would do it, too.)
func (l *Live) dropLeft() error {
	inos := l.left.take()
	for i, ino := range inos {
		n := l.nodes.peek(ino)
		if n == nil {
			continue
		}
		err := l.drop(n)
		l.nodes.put(n)
		if err != nil {
			l.left.add(inos[i+1:]...)
			return err
		}
	}
	return nil
}

// Forget is Live.Forget for whoever may be late: while the store is being closed it does nothing, and the next start drops the inode.
func (s *Store) Forget(ino Ino) {
	if s.enter() != nil {
		return
	}
	defer s.busy.Done()
	s.live.Forget(ino)
}

// sweepOrphans drops the inodes that had no name and were still in use when the store was last closed, or crashed.
func (l *Live) sweepOrphans() error {
	var inos []Ino
	if err := l.db.Orphans(func(ino Ino) bool { inos = append(inos, ino); return true }); err != nil {
		return err
	}
	var failed error
	for _, ino := range inos {
		n, err := l.node(ino)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		n.mu.Lock()
		if !n.orphan {
			n.orphan = true
			l.nodes.pin(n)
		}
		n.forgotten = true
		n.mu.Unlock()
		if err := l.drop(n); !errors.Is(err, syscall.ENOSPC) { // that is tried again
			failed = errors.Join(failed, err)
		}
		l.nodes.put(n)
	}
	return failed
}

// unused tells whether nobody can reach the inode any more. n.mu is held.
func (n *node) unused() bool { return n.loaded && n.orphan && n.forgotten && n.opens == 0 }

// dropUnused removes an inode that nobody can reach any more, with its xattrs and its content. Snapshots keep their versions.
func (l *Live) dropUnused(n *node) error {
	n.mu.Lock()
	unused := n.unused()
	n.mu.Unlock()
	if !unused {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	xs, err := l.xattrsOf(n.ino)
	if err != nil {
		return err
	}
	n.mu.Lock()
	epoch := n.epoch
	n.mu.Unlock()
	older, err := l.db.Older(meta.InodeKeyOf(n.ino), epoch)
	if err != nil {
		return err
	}
	c, err := l.begin(n)
	if err != nil {
		return err
	}
	defer c.end()
	if !n.unused() {
		return nil // somebody was faster
	}
	for _, x := range xs {
		c.b.DeleteXattr(n.ino, x.name, c.epoch, x.epoch, x.older)
	}
	rec := n.rec
	c.dropContent(&rec)
	c.b.DeleteInode(n.ino, c.epoch, n.epoch, older || n.epoch != epoch)
	c.b.RemoveOrphan(n.ino)
	c.after = append(c.after, func() {
		n.loaded, n.dropped, n.dirty, n.orphan = false, true, false, false
		l.nodes.forsake(n)
		l.nodes.put(n) // the orphan's reference; the caller has its own
	})
	return c.commit()
}

func (l *Live) xattrsOf(ino Ino) (xs []xattr, err error) {
	names, err := l.Xattrs(ino)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		x, found, err := l.xattr(ino, name)
		if err != nil {
			return nil, err
		}
		if found {
			xs = append(xs, x)
		}
	}
	return xs, nil
}

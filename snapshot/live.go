package snapshot

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// gate is what the namespace needs of the freeze: *cow.Pool, or a counter in tests that have no bytes.
type gate interface {
	Enter() cow.Epoch
	Leave()
}

// Live is the tree that can be changed. It implements View.
//
// A change of the namespace is one batch of the metadata store, made between Enter and Leave of the freeze gate and stamped with the
// epoch that Enter returned: a freeze has all of it or nothing. Batches are not synced; fsync (Handle.Sync, Sync) makes
// everything up to it durable (I5). Overwrites in place change only times: those stay in memory until flushAttrs.
//
// Locks, in the order in which they may be taken:
//
//	Live.mu          serialises changes of names and of xattrs; lookups do without
//	node.content     which file the node's bytes are in
//	cow.File's own   serialises changes of one file
//	the freeze gate  shared; nothing is read from the disk inside: nodes are loaded before
//	node.mu          the record; several in ascending order of inode number
//	nodes.mu         the cache
type Live struct {
	tree
	pool   *cow.Pool
	gate   gate
	report func(error)
	newest func() cow.Epoch // epoch of the newest snapshot, 0 if there is none; called inside the gate

	disk   *ballast // nil in tests without a disk
	synced cow.ID   // contents below it were durable when the store was opened

	nodes *nodes
	mu    sync.Mutex
	sums  totals
	left  leftovers
}

// maxIdleNodes bounds the memory that inodes not in use may take, about 8 MiB.
const maxIdleNodes = 16 << 10

// newLive returns the live tree of a store. The caller sets newest before the first change.
func newLive(db *meta.DB, pool *cow.Pool, report func(error)) *Live {
	l := &Live{pool: pool, gate: pool, report: report, nodes: newNodes(maxIdleNodes)}
	l.newest = func() cow.Epoch { return 0 }
	l.tree = tree{db: db, at: meta.Latest, inode: l.record}
	return l
}

// initRoot makes the root directory of a new store, durably, in epoch e. It leaves one that exists alone.
func initRoot(db *meta.DB, e cow.Epoch, uid, gid, mode uint32) error {
	_, found, err := db.Inode(Root, meta.Latest)
	if err != nil || found != 0 {
		return err
	}
	t := now()
	rec := meta.Inode{Mode: syscall.S_IFDIR | mode&07777, Nlink: 2, UID: uid, GID: gid, Parent: Root, Atime: t, Mtime: t, Ctime: t, Btime: t}
	b := db.NewBatch()
	b.PutInode(Root, &rec, e, 0)
	if _, err := b.Commit(true); err != nil {
		return fmt.Errorf("make the root directory: %w", err)
	}
	return nil
}

// node returns the loaded node of ino; the caller gives it back with nodes.put.
func (l *Live) node(ino Ino) (*node, error) {
	n := l.nodes.get(ino)
	if err := l.load(n); err != nil {
		l.nodes.forsake(n)
		l.nodes.put(n)
		return nil, err
	}
	return n, nil
}

// load reads the record of a node unless it is there. No one waits for this inside the gate: whoever is inside has loaded its nodes.
func (l *Live) load(n *node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.loaded {
		return nil
	}
	rec, e, err := l.db.Inode(n.ino, meta.Latest)
	if err != nil {
		return err
	}
	if e == 0 {
		return &opError{"find", n.ino, "", syscall.ENOENT}
	}
	n.rec, n.epoch, n.loaded = rec, e, true
	n.seq = l.db.Committed() // the record may be from a batch that is not synced yet
	n.dataSeq = n.seq
	return nil
}

// nodesOf returns the loaded nodes of all inos, or none.
func (l *Live) nodesOf(inos ...Ino) ([]*node, error) {
	ns := make([]*node, 0, len(inos))
	for _, ino := range inos {
		n, err := l.node(ino)
		if err != nil {
			l.nodes.put(ns...)
			return nil, err
		}
		ns = append(ns, n)
	}
	return ns, nil
}

// record is the live tree's source of inodes: the cache.
func (l *Live) record(ino Ino) (meta.Inode, error) {
	n, err := l.node(ino)
	if err != nil {
		return meta.Inode{}, err
	}
	defer l.nodes.put(n)
	l.measure(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.loaded {
		return meta.Inode{}, &opError{"find", ino, "", syscall.ENOENT}
	}
	return n.rec, nil
}

// Open opens the bytes of a regular file for reading.
func (l *Live) Open(ino Ino) (Content, error) {
	h, err := l.OpenFile(ino)
	if err != nil {
		return nil, err // not h: a nil *Handle is not a nil Content
	}
	return h, nil
}

// Sync makes every namespace change made so far durable (fsync of a directory, I5).
func (l *Live) Sync() error { return errors.Join(l.flushAttrs(), l.db.Sync()) }

// flushBatch is how many records flushAttrs writes at once, and so how long a freeze may have to wait for it.
const flushBatch = 256

// flushAttrs writes the records that differ from the store's in their times or blocks.
func (l *Live) flushAttrs() error {
	return l.flushDirty(func(ns []*node) *change {
		for _, n := range ns {
			l.measure(n)
		}
		return l.enter(ns...)
	})
}

// flushAttrsLocked is flushAttrs for the freeze itself: the caller holds the gate, exclusively, and says which epoch ends.
// The frozen tree has the times of every write before the freeze.
func (l *Live) flushAttrsLocked(e cow.Epoch) error {
	return l.flushDirty(func(ns []*node) *change { return l.lock(e, ns...) })
}

func (l *Live) flushDirty(lock func([]*node) *change) error {
	all := l.nodes.listed()
	defer l.nodes.put(all...)
	var failed error
	for rest := all; len(rest) > 0; {
		ns := rest[:min(flushBatch, len(rest))]
		rest = rest[len(ns):]
		if err := flushNodes(lock(ns)); err != nil {
			failed = err
		}
	}
	return failed
}

func flushNodes(c *change) error {
	defer c.end()
	for _, n := range c.nodes {
		if n.loaded && n.dirty {
			c.rec(n)
		}
	}
	if err := c.commit(); err != nil {
		return err
	}
	c.l.nodes.unlist(c.nodes)
	return nil
}

package snapshot

import (
	"slices"
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// change is one atomic change of the namespace: inside the gate, with its nodes locked, it stages new records and entries and
// commits them as one batch. What is in memory changes only once the batch is in.
//
//	c, err := l.begin(parent, n)
//	...
//	defer c.end()
//	c.rec(n).Nlink++
//	return c.commit()
type change struct {
	l       *Live
	b       *meta.Batch
	epoch   cow.Epoch
	nodes   []*node // locked; ascending, each once
	staged  []staged
	after   []func() // run when the batch is in, nodes still locked
	entered bool     // the gate is ours to leave
	full    bool     // fdatasync has to wait for it: a name changed
}

type staged struct {
	n   *node
	rec *meta.Inode
}

// begin enters the gate and locks nodes, which are loaded (or new). A node whose inode was dropped meanwhile gives ENOENT.
func (l *Live) begin(nodes ...*node) (*change, error) {
	c := l.enter(nodes...)
	if err := c.check(); err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// beginIn is begin for a caller that is inside the gate, in epoch e.
func (l *Live) beginIn(e cow.Epoch, nodes ...*node) (*change, error) {
	c := l.lock(e, nodes...)
	if err := c.check(); err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

func (l *Live) enter(nodes ...*node) *change {
	c := l.lock(l.gate.Enter(), nodes...)
	c.entered = true
	return c
}

func (l *Live) lock(e cow.Epoch, nodes ...*node) *change {
	c := &change{l: l, b: l.db.NewBatch(), epoch: e, nodes: ascending(nodes)}
	c.b.ReadUpTo(l.newest())
	for _, n := range c.nodes {
		n.mu.Lock()
	}
	return c
}

func (c *change) check() error {
	for _, n := range c.nodes {
		if n.dropped {
			return &opError{"change", n.ino, "", syscall.ENOENT}
		}
	}
	return nil
}

// ascending returns the nodes in the order in which they are locked, each once and without nil.
func ascending(nodes []*node) []*node {
	ns := slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n == nil })
	slices.SortFunc(ns, func(a, b *node) int {
		if a.ino < b.ino {
			return -1
		}
		if a.ino > b.ino {
			return 1
		}
		return 0
	})
	return slices.Compact(ns)
}

// rec returns the staged record of a locked node, to be changed by the caller and written by commit.
func (c *change) rec(n *node) *meta.Inode {
	for _, s := range c.staged {
		if s.n == n {
			return s.rec
		}
	}
	rec := n.rec
	c.staged = append(c.staged, staged{n, &rec})
	return &rec
}

// commit writes the staged records and entries as one batch, not synced.
func (c *change) commit() error {
	for _, s := range c.staged {
		if s.n.epoch != c.epoch && s.rec.Content == s.n.rec.Content {
			// The version before is frozen: snapshots read its whole length (I1 depends on it when the file is opened again).
			s.rec.Reach = max(s.rec.Reach, s.n.rec.Size)
		}
		c.b.PutInode(s.n.ino, s.rec, c.epoch, s.n.epoch)
	}
	b := c.b
	c.b = nil
	seq, err := b.Commit(false)
	if err != nil {
		return err
	}
	for _, s := range c.staged {
		old := &s.n.rec
		if s.n.loaded {
			c.l.sums.changed(old, s.rec)
		} else {
			c.l.sums.changed(nil, s.rec)
		}
		if c.full || old.Size != s.rec.Size || old.Content != s.rec.Content || old.Reach != s.rec.Reach {
			s.n.dataSeq = seq
		}
		s.n.rec, s.n.epoch, s.n.seq = *s.rec, c.epoch, seq
		s.n.loaded, s.n.dirty = true, false
	}
	for _, f := range c.after {
		f()
	}
	return nil
}

// end unlocks, leaves the gate and drops what was not committed. Call it exactly once.
func (c *change) end() {
	if c.b != nil {
		c.b.Discard()
	}
	for _, n := range c.nodes {
		n.mu.Unlock()
	}
	if c.entered {
		c.l.gate.Leave()
	}
}

// dropContent takes the content from a staged record. If no snapshot sees it, its base file is garbage once this change
// is durable; else it belongs to the snapshots from now on.
func (c *change) dropContent(rec *meta.Inode) {
	if rec.Content != 0 && rec.Born > c.l.newest() {
		c.b.AddGarbage(rec.Content)
	}
	rec.Content, rec.Born, rec.Size, rec.Reach, rec.Blocks, rec.Stable = 0, 0, 0, 0, 0, false
}

// unname records that the inode of a staged record lost a name, at time t. Without one it stays, as an orphan, until
// nobody uses it. A directory has one name.
func (c *change) unname(n *node, t Time) {
	rec := c.rec(n)
	rec.Ctime = t
	if isDir(rec.Mode) {
		rec.Nlink = 0
	} else {
		rec.Nlink--
	}
	if rec.Nlink > 0 {
		return
	}
	c.orphan(n)
}

// touchDir records that the entries of directory n changed at time t, and returns its staged record.
func (c *change) touchDir(n *node, t Time) *meta.Inode {
	rec := c.rec(n)
	rec.Mtime, rec.Ctime = t, t
	return rec
}

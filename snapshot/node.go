package snapshot

import (
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// node is a live inode in memory. There is at most one per inode: whoever uses it holds a reference.
type node struct {
	ino Ino

	// GUARDED_BY nodes.mu
	refs int
	gone bool          // not to be kept when the last reference goes
	idle *list.Element // in nodes.idle; INVARIANT: not nil if and only if refs == 0

	mu sync.Mutex

	// GUARDED_BY mu
	loaded    bool
	dropped   bool       // the inode is gone for good; INVARIANT: not loaded
	rec       meta.Inode // newest state: what the store has, or newer if dirty
	epoch     cow.Epoch  // of the version that the store has
	dirty     bool       // rec differs from the store's in its times or blocks, in nothing else
	seq       uint64     // last batch that wrote rec
	dataSeq   uint64     // last batch that fdatasync(2) has to wait for: size, content, a name
	opens     int        // open handles, each with a reference
	orphan    bool       // has no name; holds a reference
	linkable  bool       // it never had one, and may get one
	forgotten bool       // the kernel does not know it any more
	emptied   bool       // truncated to nothing while it is open: what is written then takes the place of other bytes
	absent    ownXattrs  // known not to be there
	measured  uint64     // value of changes when rec.Blocks was read

	// content is held shared while file is used and exclusive while it changes. It comes before the locks of the
	// file, the gate and mu.
	content sync.RWMutex
	file    *cow.File     // GUARDED_BY content; nil if closed, or if there are no bytes yet
	changes atomic.Uint64 // counts what may have changed the blocks of the base file
}

// nodes is the cache of nodes: those in use, and a bounded number of others.
type nodes struct {
	limit int // most idle nodes

	mu    sync.Mutex
	byIno map[Ino]*node
	idle  *list.List         // of *node, the most recently used in front
	dirty map[*node]struct{} // nodes to be flushed, each with a reference
}

func newNodes(limit int) *nodes {
	return &nodes{limit: limit, byIno: map[Ino]*node{}, idle: list.New(), dirty: map[*node]struct{}{}}
}

// get returns the node of ino, loaded or not, with a reference.
func (c *nodes) get(ino Ino) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.byIno[ino]
	if n == nil {
		n = &node{ino: ino}
		c.byIno[ino] = n
	}
	c.hold(n)
	return n
}

// peek is get of a node that is in memory; nil if it is not.
func (c *nodes) peek(ino Ino) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.byIno[ino]
	if n != nil {
		c.hold(n)
	}
	return n
}

func (c *nodes) hold(n *node) {
	n.refs++
	if n.idle != nil {
		c.idle.Remove(n.idle)
		n.idle = nil
	}
}

// pin takes one more reference.
func (c *nodes) pin(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold(n)
}

// put gives references back.
func (c *nodes) put(ns ...*node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range ns {
		if n.refs--; n.refs > 0 {
			continue
		}
		if n.gone {
			delete(c.byIno, n.ino)
			continue
		}
		n.idle = c.idle.PushFront(n)
	}
	for c.idle.Len() > c.limit {
		old := c.idle.Remove(c.idle.Back()).(*node)
		delete(c.byIno, old.ino)
	}
}

// forsake marks a node that stands for nothing: it could not be loaded, or its inode was dropped.
func (c *nodes) forsake(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.gone = true
}

// list puts a node on the list of dirty ones.
func (c *nodes) list(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, listed := c.dirty[n]; !listed {
		c.hold(n)
		c.dirty[n] = struct{}{}
	}
}

// listed returns the dirty nodes, each with a reference. They stay on the list until they are clean: a freeze that comes while
// somebody is about to write them finds them, too.
func (c *nodes) listed() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	ns := make([]*node, 0, len(c.dirty))
	for n := range c.dirty {
		c.hold(n)
		ns = append(ns, n)
	}
	return ns
}

// unlist takes nodes that are clean off the list. The caller has them locked, and has references of its own.
func (c *nodes) unlist(ns []*node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range ns {
		if _, listed := c.dirty[n]; listed {
			delete(c.dirty, n)
			n.refs--
		}
	}
}

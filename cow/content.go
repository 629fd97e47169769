package cow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// content is the state of one content that is open, frozen-open, or has private pages.
//
// INVARIANT: fresh, and the pages of its outstanding captures but for what was cut off since, are subsets of private; every private page lies in a window;
// private pages that are not owned lie below reach.
type content struct {
	p  *Pool
	id ID

	cuts   int  // how many are about to cut its base file. GUARDED_BY p.mu
	refs   int  // open Files and Frozens, one for private pages, and one if pinned. GUARDED_BY p.mu
	pinned bool // failed, which nobody may forget (I11). GUARDED_BY p.mu

	flushing sync.Mutex // see doc.go
	change   sync.Mutex
	syncing  sync.Mutex // one fsync at a time

	mu      sync.RWMutex
	live    bool  // opened as a live content: the fields below are filled in
	size    int64 // length in bytes
	reach   int64 // bound of what snapshots read from the base file, as of epoch
	epoch   Epoch // the era that reach and owned belong to
	baseLen int64 // length of the base file; behind it a mapping must not be touched
	lost    span  // what the base file had behind its end when it was synced, and has no more: damage
	blank   int64 // the base file is zero from the content's end up to here, if this is beyond the end
	solid   span  // a part of the base file without holes and shared blocks; whoever makes one empties it

	owned    pageSet // pages below reach that are known to be saved
	known    pageSet // chunks (of placeChunk pages) whose saved pages are all in owned
	allKnown bool    // every chunk is known

	private  pageSet
	fresh    pageSet // private pages written in this era: what the next capture holds
	captures []*capture
	windows  map[uint64]*window // nil until a page is private

	saves atomic.Uint64 // counts saves of this content that became durable: see Frozen.ReadAt
	sick  atomic.Pointer[error]
	named atomic.Bool // the base file's name is durable
	gone  atomic.Bool // Remove was called
}

// placeChunk is how many pages are looked up in the index at once.
const placeChunk = 256

// get returns the content with a reference. REQUIRES nothing.
func (p *Pool) get(id ID) *content {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.contents[id]
	if c == nil {
		c = &content{p: p, id: id}
		p.contents[id] = c
	}
	c.refs++
	return c
}

// put drops a reference; a content without any is forgotten.
func (p *Pool) put(c *content) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.refs--
	if c.refs == 0 {
		delete(p.contents, c.id)
	}
}

// Create makes a new, empty content with the given, never used id (its base file).
func (p *Pool) Create(id ID) (*File, error) {
	f, err := p.base.acquire(id, true)
	if err != nil {
		return nil, err
	}
	p.base.release(f)
	p.dirty.mark(id) // its name, which a snapshot needs also where nothing is written
	c := p.get(id)
	epoch := p.Enter()
	c.mu.Lock()
	c.live, c.epoch, c.allKnown = true, epoch, true
	c.mu.Unlock()
	p.Leave()
	return &File{c: c}, nil
}

// Open opens the live content id. size is its length in bytes, reach the bound that File.Reach gave, both as they
// were recorded in epoch asOf. mayBeLost: a missing base file is an empty one (it was never synced before a power loss),
// else it is an error.
// Two Opens of one id share the state (the arguments of the later one are ignored); each needs its Close.
func (p *Pool) Open(id ID, size, reach int64, asOf Epoch, mayBeLost bool) (*File, error) {
	c := p.get(id)
	c.change.Lock()
	defer c.change.Unlock()
	if err := c.open(size, reach, asOf, mayBeLost); err != nil {
		p.put(c)
		return nil, err
	}
	return &File{c: c}, nil
}

func (c *content) open(size, reach int64, asOf Epoch, mayBeLost bool) error {
	c.mu.RLock()
	live := c.live
	c.mu.RUnlock()
	if live {
		return nil
	}
	var st unix.Stat_t
	err := c.p.base.use(c.id, func(fd int) error { return unix.Fstat(fd, &st) })
	if errors.Is(err, fs.ErrNotExist) && mayBeLost && !c.wasSynced() {
		var f *baseFile
		if f, err = c.p.base.acquire(c.id, true); err == nil {
			c.p.base.release(f)
			c.p.dirty.mark(c.id)
		}
	}
	if err != nil {
		return fmt.Errorf("open content %d: %w", c.id, noEntryIsEIO(err))
	}
	lost, err := c.missing(st.Size, max(size, reach))
	if err != nil {
		return fmt.Errorf("open content %d: %w", c.id, err)
	}
	epoch := c.p.Enter()
	defer c.p.Leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	if asOf != epoch {
		reach = max(reach, size) // the record is frozen: some snapshot has it
	}
	c.live, c.size, c.reach, c.epoch, c.baseLen = true, size, reach, epoch, st.Size
	c.lost = lost
	c.named.Store(!mayBeLost)
	c.allKnown = reach == 0
	return nil
}

// noEntryIsEIO turns the error about a missing base file into EIO: to the user the file exists, its bytes are lost.
func noEntryIsEIO(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%v: %w", err, unix.EIO)
	}
	return err
}

// roll brings the content into epoch: what was written up to the freeze before it is protected now. The newest undo log
// cannot hold pages of this content yet, so all of its saved pages (none) are known. REQUIRES gate, c.mu exclusive.
func (c *content) roll(epoch Epoch) {
	if c.epoch == epoch {
		return
	}
	c.reach = max(c.reach, c.size)
	c.owned = pageSet{}
	c.known = pageSet{}
	c.allKnown = true
	c.epoch = epoch
}

// protected reports whether a snapshot may read page from the base file. REQUIRES c.mu, the page's chunk known.
func (c *content) protected(page uint64) bool {
	return page < pagesUpTo(c.reach) && c.p.newestSnapshot() != 0 && !c.owned.contains(page)
}

// learn fills in which pages of [first, last] are saved, from the index. REQUIRES c.flushing or c.change.
func (c *content) learn(first, last uint64) error {
	c.mu.RLock()
	newest, epoch := c.p.newestSnapshot(), c.epoch
	done := c.allKnown || newest == 0 || first >= pagesUpTo(c.reach)
	last = min(last, max(1, pagesUpTo(c.reach))-1)
	c.mu.RUnlock()
	if done {
		return nil
	}
	for k := first / placeChunk; k <= last/placeChunk; k++ {
		c.mu.RLock()
		known := c.known.contains(k)
		c.mu.RUnlock()
		if known {
			continue
		}
		saved, err := c.p.savedPages(c.id, k*placeChunk, k*placeChunk+placeChunk-1, newest)
		if err != nil {
			return err
		}
		c.mu.Lock()
		if c.epoch == epoch { // else the freeze has made all of this moot
			c.owned.or(saved)
			c.known.add(k)
		}
		c.mu.Unlock()
	}
	return nil
}

// savedPages returns the pages of [first, last] that an undo log from the given one on holds.
func (p *Pool) savedPages(id ID, first, last uint64, from Epoch) (pageSet, error) {
	var saved pageSet
	err := p.opt.Index.Find(id, first, last, from, func(pl Place) bool {
		saved.add(pl.Page)
		return true
	})
	if err != nil {
		return saved, fmt.Errorf("look up saved pages of content %d: %w", id, err)
	}
	return saved, nil
}

// baseEnd returns how long the base file is, or may become at any moment: the writer of an outstanding capture makes it longer where its last
// page was written on after it had been mapped. REQUIRES c.mu.
func (c *content) baseEnd() int64 {
	end := c.baseLen
	for _, cp := range c.captures {
		end = max(end, cp.byID[c.id].baseEnd())
	}
	return end
}

// fail records that the content's bytes can no longer be vouched for (I11), and returns err.
func (c *content) fail(err error) error {
	c.sick.CompareAndSwap(nil, &err)
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if !c.pinned && !c.gone.Load() {
		c.pinned = true
		c.refs++
	}
	return err
}

// failed returns the error that made the content unusable for writing, if any.
func (c *content) failed() error {
	if p := c.sick.Load(); p != nil {
		return fmt.Errorf("content %d failed before: %v: %w", c.id, *p, unix.EIO)
	}
	return nil
}

// Remove deletes the base file and the undo places of a content that no view reads any more. A missing file is no error.
func (p *Pool) Remove(id ID) error {
	p.mu.Lock()
	c := p.contents[id]
	if c != nil {
		c.refs++
	}
	p.mu.Unlock()
	if c != nil {
		c.gone.Store(true)
		c.discard()
		p.unpin(c)
		p.put(c)
	}
	if err := p.opt.Index.RemoveContent(id); err != nil {
		return err
	}
	p.dirty.forget(id)
	return p.base.remove(id)
}

// unpin lets a removed content that had failed be forgotten.
func (p *Pool) unpin(c *content) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.pinned {
		c.pinned = false
		c.refs--
	}
}

// discard drops all private pages of a content that nobody will read. A capture that holds it goes first: its writer needs the
// base file. The caller must not be what that capture waits for.
func (c *content) discard() {
	for {
		c.p.waitCaptures(c)
		if c.discardNow() {
			return
		}
	}
}

// discardNow is discard unless a capture holds the content.
func (c *content) discardNow() (done bool) {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	c.change.Lock()
	defer c.change.Unlock()
	c.p.Enter()
	defer c.p.Leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.captures) > 0 {
		return false
	}
	if !c.private.isEmpty() {
		c.unpromise(c.fresh)
		c.drop(c.private.clone())
		c.p.clean(c)
	}
	return true
}

// Paths of a store's parts are relative to it in messages.
func pathError(op string, id ID, err error) error {
	return &os.PathError{Op: op, Path: "base/" + basePath(id), Err: err}
}

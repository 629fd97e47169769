package cow

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"golang.org/x/sys/unix"
)

// dirtySet holds the contents whose base files were written since they were last synced: what must be synced before a
// snapshot is durable. Beyond mostDirty of them the whole file system is synced instead.
type dirtySet struct {
	mu     sync.Mutex
	ids    map[ID]struct{}
	all    bool // there were too many to remember
	taken  []*dirtyIDs
	syncMu sync.Mutex // one sync of a taken set at a time

	bares uint64        // counts calls of bare. GUARDED_BY mu
	last  map[ID]uint64 // the last call of bare, of contents that were not synced since. GUARDED_BY mu

	grown *roaring64.Bitmap // contents whose base file got another length: not synced since. GUARDED_BY mu
	ready *roaring64.Bitmap // those that were: their lengths can be recorded. GUARDED_BY mu

	suspects *roaring64.Bitmap // those that somebody may have cut before. GUARDED_BY mu
}

// dirtyIDs is a part of the dirty set that is being synced.
type dirtyIDs struct {
	ids  map[ID]struct{}
	all  bool
	asOf uint64 // calls of bare until it was taken
}

const (
	mostDirty  = 65536
	mostSingle = 64 // up to so many files are synced one by one
)

func newDirtySet() *dirtySet {
	return &dirtySet{ids: map[ID]struct{}{}, last: map[ID]uint64{}, grown: roaring64.New(), ready: roaring64.New(),
		suspects: roaring64.New()}
}

func (d *dirtySet) mark(id ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ids) >= mostDirty {
		d.all = true
	}
	if !d.all {
		d.ids[id] = struct{}{}
	}
}

// bare notes that bytes behind the end of a content have gone from its base file, or are about to: until it is synced a power loss brings
// them back.
func (d *dirtySet) bare(id ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bares++
	d.last[id] = d.bares
}

// isBare reports whether a power loss may bring back bytes behind the end of a content.
func (d *dirtySet) isBare(id ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last[id] != 0
}

// has reports whether id may have unsynced bytes, also where a sync of it is under way. REQUIRES mu.
func (d *dirtySet) has(id ID) bool {
	if _, ok := d.ids[id]; ok || d.all {
		return true
	}
	for _, t := range d.taken {
		if _, ok := t.ids[id]; ok || t.all {
			return true
		}
	}
	return false
}

func (d *dirtySet) forget(id ID) {
	d.mu.Lock()
	delete(d.ids, id)
	delete(d.last, id)
	d.grown.Remove(uint64(id))
	d.ready.Remove(uint64(id))
	d.mu.Unlock()
}

// take empties the set; what was in it counts as dirty until done. What others are syncing just now is in it, too: it
// is not durable before they are done, and may never be.
func (d *dirtySet) take() *dirtyIDs {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &dirtyIDs{ids: d.ids, all: d.all, asOf: d.bares}
	d.ids, d.all = map[ID]struct{}{}, false
	for _, x := range d.taken {
		t.all = t.all || x.all
		for id := range x.ids {
			t.ids[id] = struct{}{}
		}
	}
	d.taken = append(d.taken, t)
	return t
}

// takeOne is take of one content; nil if it is not dirty.
func (d *dirtySet) takeOne(id ID) *dirtyIDs {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(id) {
		return nil
	}
	delete(d.ids, id)
	t := &dirtyIDs{ids: map[ID]struct{}{id: {}}, asOf: d.bares}
	d.taken = append(d.taken, t)
	return t
}

func (d *dirtySet) done(t *dirtyIDs, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, x := range d.taken {
		if x == t {
			d.taken = append(d.taken[:i:i], d.taken[i+1:]...)
			break
		}
	}
	if ok {
		d.settle(t)
		return
	}
	d.all = d.all || t.all
	for id := range t.ids {
		d.ids[id] = struct{}{}
	}
}

// settle forgets which contents were bare until t, which is synced, was taken, and says that their lengths can be recorded. REQUIRES mu.
func (d *dirtySet) settle(t *dirtyIDs) {
	if t.all {
		d.ready.Or(d.grown)
		d.grown.Clear()
		maps.DeleteFunc(d.last, func(_ ID, bare uint64) bool { return bare <= t.asOf })
		return
	}
	for id := range t.ids {
		if d.last[id] <= t.asOf {
			delete(d.last, id)
		}
		if d.grown.CheckedRemove(uint64(id)) {
			d.ready.Add(uint64(id))
		}
	}
}

// grew notes that a base file may have another length than the known one. Who changed it has marked it before.
func (d *dirtySet) grew(id ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.has(id) {
		d.grown.Add(uint64(id))
	} else {
		d.ready.Add(uint64(id))
	}
}

func (d *dirtySet) suspect(id ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.suspects.Add(uint64(id))
}

func (d *dirtySet) isSuspect(id ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.suspects.Contains(uint64(id))
}

// stillDirty reports whether id, which was ready, has unsynced bytes again; then it is not.
func (d *dirtySet) stillDirty(id ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.has(id) {
		return false
	}
	d.grown.Add(uint64(id))
	return true
}

// takeReady takes some of the contents whose lengths can be recorded.
func (d *dirtySet) takeReady(most int) (ids []ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for it := d.ready.Iterator(); it.HasNext() && len(ids) < most; {
		ids = append(ids, ID(it.Next()))
	}
	for _, id := range ids {
		d.ready.Remove(uint64(id))
	}
	return ids
}

// giveBack ends the use of what takeReady took and what could not be recorded.
func (d *dirtySet) giveBack(ids []ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.ready.Add(uint64(id))
	}
}

// unrecorded reports whether the lengths of some base files are still to be recorded.
func (d *dirtySet) unrecorded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.grown.IsEmpty() || !d.ready.IsEmpty()
}

// SyncBase makes durable every byte that was written to base files before the call, and the names of new ones.
func (p *Pool) SyncBase() error {
	p.dirty.syncMu.Lock()
	defer p.dirty.syncMu.Unlock()
	t := p.dirty.take()
	err := p.syncTaken(t)
	p.dirty.done(t, err == nil)
	return err
}

// SyncAll makes durable whatever anybody wrote to the store's file system before the call: after a crash nobody remembers what
// is in the page cache only.
func (p *Pool) SyncAll() error {
	p.dirty.mu.Lock()
	p.dirty.all = true
	p.dirty.mu.Unlock()
	return p.SyncBase()
}

// Failed returns the error that ended all syncing, nil while there is none.
func (p *Pool) Failed() error { return p.failed() }

func (p *Pool) syncTaken(t *dirtyIDs) error {
	if err := p.failed(); err != nil {
		return err
	}
	if t.all || len(t.ids) > mostSingle {
		err := p.opt.Hook(Op{Kind: OpSyncBase})
		if err == nil {
			err = unix.Syncfs(p.base.dir)
		}
		if err != nil {
			return p.fail(fmt.Errorf("sync the store's file system: %w", err))
		}
		return p.failedOf(t)
	}
	dirs := map[int]bool{}
	for id := range t.ids {
		err := p.syncBaseFile(id)
		switch {
		case errors.Is(err, unix.ENOENT): // removed meanwhile
		case err != nil:
			return err
		default:
			dirs[fanOut(id)] = true
		}
	}
	for i := range dirs {
		if err := p.base.syncDir(i); err != nil {
			return p.fail(err)
		}
	}
	return nil
}

// syncBaseFile syncs one base file, be its content in use or not.
func (p *Pool) syncBaseFile(id ID) error {
	c := p.get(id)
	defer p.put(c)
	c.syncing.Lock()
	defer c.syncing.Unlock()
	return c.syncBase()
}

// syncBase syncs the base file. A failure is final for the content (I11): the kernel tells of it once, so one at a time asks.
// REQUIRES c.syncing.
func (c *content) syncBase() error {
	if err := c.failed(); err != nil {
		return err
	}
	err := c.p.opt.Hook(Op{Kind: OpSyncBase, ID: c.id})
	if err == nil {
		err = c.p.base.use(c.id, func(fd int) error {
			return ignoringEINTR(func() error { return unix.Fdatasync(fd) })
		})
	}
	if err == nil || errors.Is(err, unix.ENOENT) {
		return err
	}
	return c.fail(pathError("sync", c.id, err))
}

// failedOf returns the error of a content in t that failed: what was lost does not become durable by syncing again (I11).
func (p *Pool) failedOf(t *dirtyIDs) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, c := range p.contents {
		if _, ok := t.ids[id]; ok || t.all {
			if err := c.failed(); err != nil {
				return err
			}
		}
	}
	return nil
}

// fail makes err the pool's last word on durability (I11).
func (p *Pool) fail(err error) error {
	p.sick.CompareAndSwap(nil, &err)
	return err
}

func (p *Pool) failed() error {
	if e := p.sick.Load(); e != nil {
		return fmt.Errorf("the store failed before: %v: %w", *e, unix.EIO)
	}
	return nil
}

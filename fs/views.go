package fs

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot"
)

// maxIdleViews bounds the frozen views that are kept although no handle needs them.
const maxIdleViews = 32

// views hands out the frozen views by epoch and counts who uses them. A view that is out keeps the data of its snapshot,
// even if that is deleted: handles rely on it, so idle views of a deleted snapshot must be dropped.
type views struct {
	store *snapshot.Store

	mu     sync.Mutex
	open   map[cow.Epoch]*viewRef // GUARDED_BY(mu); what the next get returns
	drops  uint64                 // GUARDED_BY(mu); counts drop, see get
	clock  uint64                 // GUARDED_BY(mu); orders the uses of views
	closed bool                   // GUARDED_BY(mu)
}

// viewRef is a frozen view that is out. INVARIANT: it is in views.open or refs > 0.
type viewRef struct {
	epoch cow.Epoch
	view  *snapshot.Frozen
	refs  int    // GUARDED_BY(views.mu)
	used  uint64 // GUARDED_BY(views.mu); clock at the last get
	kept  bool   // GUARDED_BY(views.mu); is in views.open
}

func newViews(store *snapshot.Store) *views {
	return &views{store: store, open: make(map[cow.Epoch]*viewRef)}
}

// get returns the frozen view of epoch e; each get needs a put. ESTALE if the snapshot is gone: the kernel then looks
// the path up again, and finds ENOENT at the right place.
func (v *views) get(e cow.Epoch) (*viewRef, error) {
	v.mu.Lock()
	if r := v.open[e]; r != nil {
		v.use(r)
		v.mu.Unlock()
		return r, nil
	}
	drops := v.drops
	v.mu.Unlock()

	frozen, err := v.store.View(e)
	if errors.Is(err, snapshot.ErrUnknown) || errors.Is(err, syscall.ENOENT) {
		return nil, fmt.Errorf("view of epoch %d: %w", e, syscall.ESTALE)
	}
	if err != nil {
		return nil, err
	}
	r := &viewRef{epoch: e, view: frozen}
	v.mu.Lock()
	v.use(r)
	// If a snapshot was deleted meanwhile it may be this one: then nobody would drop the view again. And somebody else
	// may have been quicker to open it.
	if v.drops == drops && v.open[e] == nil && !v.closed {
		v.open[e], r.kept = r, true
	}
	idle := v.evict()
	v.mu.Unlock()
	release(idle)
	return r, nil
}

func (v *views) use(r *viewRef) {
	v.clock++
	r.used = v.clock
	r.refs++
}

// put gives a view back; nil is the live tree, which needs no counting.
func (v *views) put(r *viewRef) {
	if r == nil {
		return
	}
	v.mu.Lock()
	r.refs--
	last := r.refs == 0 && !r.kept
	v.mu.Unlock()
	if last {
		r.view.Release()
	}
}

// drop forgets the idle view of a deleted snapshot.
func (v *views) drop(e cow.Epoch) {
	v.mu.Lock()
	v.drops++
	r := v.open[e]
	var idle *viewRef
	if r != nil {
		idle = v.remove(r)
	}
	v.mu.Unlock()
	release(idle)
}

// close drops every idle view; from now on none is kept.
func (v *views) close() {
	v.mu.Lock()
	v.closed = true
	var idle []*viewRef
	for _, r := range v.open {
		idle = append(idle, v.remove(r))
	}
	v.mu.Unlock()
	for _, r := range idle {
		release(r)
	}
}

// evict removes the idle view that was not used for longest if there are too many, and returns it for release.
func (v *views) evict() *viewRef {
	if len(v.open) <= maxIdleViews {
		return nil
	}
	var oldest *viewRef
	for _, r := range v.open {
		if r.refs == 0 && (oldest == nil || r.used < oldest.used) {
			oldest = r
		}
	}
	if oldest == nil {
		return nil
	}
	return v.remove(oldest)
}

// remove takes r out of the map, and returns it if it is to be released now.
func (v *views) remove(r *viewRef) *viewRef {
	delete(v.open, r.epoch)
	r.kept = false
	if r.refs > 0 {
		return nil // its last put releases it
	}
	return r
}

// release is called without the lock: giving a view back may delete data.
func release(r *viewRef) {
	if r != nil {
		r.view.Release()
	}
}

package cow

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// ordered holds the contents whose bytes must be durable before the namespace's next records are: those that take the place of
// others. (What ext4 calls auto_da_alloc: a file that is replaced without fsync is the old or the new one after a power loss.)
type ordered struct {
	syncing sync.Mutex // held while what was taken is synced: who comes meanwhile waits for it, too

	mu  sync.Mutex
	ids map[ID]struct{} // GUARDED_BY mu
}

// Order says that a record is about to be written which leads to content id in place of another: SyncOrdered, which the log of
// the namespace calls before it writes, makes its bytes durable first. It costs nothing here. What is private is not waited for: the base
// file has older bytes of it.
func (p *Pool) Order(id ID) {
	if !p.Unsynced(id) {
		return
	}
	p.ordered.mu.Lock()
	defer p.ordered.mu.Unlock()
	if p.ordered.ids == nil {
		p.ordered.ids = map[ID]struct{}{}
	}
	p.ordered.ids[id] = struct{}{}
}

// Unsynced reports whether content id has bytes, or a name, that nobody has synced.
func (p *Pool) Unsynced(id ID) bool {
	p.dirty.mu.Lock()
	defer p.dirty.mu.Unlock()
	return p.dirty.has(id)
}

// SyncOrdered makes durable what Order was told of before the call. It does not touch the index, whose log waits for it. A
// failure is final for the content (I11), which says so; there is nobody else to tell.
func (p *Pool) SyncOrdered() {
	o := &p.ordered
	o.syncing.Lock()
	defer o.syncing.Unlock()
	o.mu.Lock()
	ids := o.ids
	o.ids = nil
	o.mu.Unlock()
	for id := range ids { // all at once to the disk; then they are waited for
		_ = p.base.use(id, func(fd int) error { return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
	}
	dirs := map[int]bool{}
	for id := range ids {
		t := p.dirty.takeOne(id)
		if t == nil {
			continue // synced since
		}
		err := p.syncBaseFile(id)
		dirs[fanOut(id)] = true
		p.dirty.done(t, err == nil || errors.Is(err, unix.ENOENT)) // removed meanwhile
	}
	for i := range dirs {
		if err := p.base.syncDir(i); err != nil {
			_ = p.fail(err)
		}
	}
}

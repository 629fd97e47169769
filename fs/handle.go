package fs

import (
	"maps"
	"slices"
	"sync"

	"github.com/snapfs/snapfs/snapshot"
)

// handle is an open file or an open directory.
type handle struct {
	node    nodeID
	content snapshot.Content // what is read; nil for a directory
	live    *snapshot.Handle // the same as content if it is a live file, else nil
	writes  bool             // opened for writing: a shared mapping of it may be dirty in the kernel
	dates   bool             // reading changes the atime; only of a live file
	opened  snapshot.Time    // only if it dates
	view    *viewRef         // keeps the frozen view, nil in the live tree
}

// handles is the table of what the kernel has open.
type handles struct {
	mu      sync.RWMutex
	next    uint64               // GUARDED_BY(mu); 0 is never a handle
	open    map[uint64]*handle   // GUARDED_BY(mu)
	writers map[snapshot.Ino]int // GUARDED_BY(mu); open handles for writing per live inode
}

func newHandles() *handles {
	return &handles{open: make(map[uint64]*handle), writers: make(map[snapshot.Ino]int)}
}

// add enters h and returns its number.
func (t *handles) add(h *handle) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	t.open[t.next] = h
	if h.writes {
		t.writers[h.node.ino()]++
	}
	return t.next
}

// get returns the handle called fh, nil if there is none.
func (t *handles) get(fh uint64) *handle {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.open[fh]
}

// remove takes the handle called fh out and returns it, nil if there is none.
func (t *handles) remove(fh uint64) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.open[fh]
	if h == nil {
		return nil
	}
	delete(t.open, fh)
	if h.writes {
		ino := h.node.ino()
		if t.writers[ino]--; t.writers[ino] == 0 {
			delete(t.writers, ino)
		}
	}
	return h
}

// written returns the live inodes that have a handle open for writing.
func (t *handles) written() []snapshot.Ino {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Keys(t.writers))
}

// isWritten reports whether a handle of the live inode is open for writing.
func (t *handles) isWritten(ino snapshot.Ino) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.writers[ino] > 0
}

// all returns the numbers of all handles.
func (t *handles) all() []uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Keys(t.open))
}

func (t *handles) count() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return int64(len(t.open))
}

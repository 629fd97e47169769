package cow

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// orderHook is I1 as a test: it fails the run if bytes of a base file are about to change that a snapshot reads from
// there, unless the undo record is in the index and the log was synced beyond it.
type orderHook struct {
	w      *world
	mu     sync.Mutex
	synced map[Epoch]int64
	checks int
}

func (h *orderHook) hook(op Op) error {
	switch op.Kind {
	case OpSynced:
		h.mu.Lock()
		h.synced[op.Log] = op.Off
		h.mu.Unlock()
	case OpWriteBase, OpPunchBase, OpCopyBase:
		first, last := pagesOf(op.Off, op.Len)
		h.verify(op, first, last)
	case OpTruncBase:
		h.verify(op, uint64(op.Off/PageSize), maxPages+8)
	}
	return nil
}

func (h *orderHook) verify(op Op, first, last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.w.snaps {
		want, ok := s.files[op.ID]
		for page := first; ok && page <= last && int(page)*PageSize < len(want); page++ {
			if op.Kind == OpTruncBase && page == first && int(op.Off%PageSize) != 0 && len(want) <= int(op.Off) {
				continue
			}
			h.checks++
			if !h.safe(s, op.ID, page) && !(op.Kind == OpPunchBase && h.isZero(op.ID, page)) {
				h.w.tb.Errorf("I1: %s of content %d, page %d, which snapshot %d reads from the base file", op.Kind, op.ID, page, s.epoch)
			}
		}
	}
}

func (h *orderHook) safe(s *frozenWorld, id ID, page uint64) (safe bool) {
	_ = h.w.index.Find(id, page, page, s.epoch, func(pl Place) bool {
		safe = pl.Zero || int64(pl.Block+1)*PageSize <= h.synced[pl.Log]
		return false
	})
	if safe {
		return true
	}
	p := h.w.pool
	p.mu.Lock()
	c := p.contents[id]
	p.mu.Unlock()
	if c == nil {
		return false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	cp, _ := c.holder(s.epoch, page)
	return cp != nil
}

// isZero reports whether a page of a base file is zero, so that punching it changes nothing.
func (h *orderHook) isZero(id ID, page uint64) bool {
	b := make([]byte, PageSize)
	must(h.w.tb, h.w.pool.base.use(id, func(fd int) error {
		_, err := preadAll(fd, b, int64(page)*PageSize)
		return err
	}))
	return bytes.Equal(b, zeros[:])
}

func TestWriteOrder(t *testing.T) {
	checks := 0
	rapid.Check(t, func(t *rapid.T) {
		h := &orderHook{synced: map[Epoch]int64{}}
		w := newWorld(t, Options{Hook: h.hook, NoFork: rapid.Bool().Draw(t, "inprocess")})
		h.w = w
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			w.act(t)
		}
		must(t, w.commitAllBut(0))
		w.verify()
		for id := range w.files {
			w.closeFile(id)
		}
		must(t, w.pool.Close())
		checks += h.checks
	})
	if checks == 0 {
		t.Fatal("no write of a page that a snapshot reads was seen")
	}
}

// script is a history that passes through everything that touches the disk.
func script(w *world) (err error) {
	note := func(e error) {
		if e != nil && err == nil {
			err = e
		}
	}
	snap := func() {
		if s, e := w.freeze(); e != nil {
			note(e)
		} else {
			note(w.write(1, 2*PageSize, fill(9, PageSize)))
			note(w.commit(s))
		}
	}
	id := ID(1)
	note(w.write(id, 0, fill(1, 8*PageSize)))
	snap()
	note(w.write(id, 100, fill(2, 4*PageSize)))
	note(w.sync(id))
	note(w.write(id, PageSize, fill(3, PageSize)))
	snap()
	note(w.write(id, 0, fill(4, 6*PageSize)))
	snap()
	note(w.truncate(id, 3*PageSize+5))
	note(w.truncate(id, 7*PageSize))
	note(w.zero(id, PageSize/2, 3*PageSize, true, true))
	note(w.copy(id, w.file(id), w.live[id], 4*PageSize, 9*PageSize, 2*PageSize))
	note(w.pool.Flush())
	if len(w.snaps) > 1 {
		note(w.remove(w.snaps[len(w.snaps)-2]))
	}
	note(w.sync(id))
	return err
}

// TestFaults runs the script with its i-th disk operation failing, for i = 0, 1, 2 ... until it is not reached, and goes
// on after the failure or crashes at once: no snapshot changes, and what was synced is there.
func TestFaults(t *testing.T) {
	for _, errno := range []error{unix.EIO, unix.ENOSPC} {
		for _, mode := range []string{"once", "for ever", "once, in process"} {
			t.Run(fmt.Sprintf("%v %s", errno, mode), func(t *testing.T) {
				for i := int64(0); ; i++ {
					if !runFault(t, i, fmt.Errorf("%w: %w", errInjected, errno), mode) {
						if i < 20 {
							t.Fatalf("the script has only %d disk operations", i)
						}
						return
					}
				}
			})
		}
	}
}

func runFault(t *testing.T, at int64, fault error, mode string) (hit bool) {
	var n, hits atomic.Int64
	armed := atomic.Bool{}
	w := newWorld(t, Options{NoFork: mode == "once, in process", Hook: func(op Op) error {
		if !armed.Load() || op.Kind == OpSynced {
			return nil
		}
		k := n.Add(1) - 1
		if k == at || k > at && mode == "for ever" {
			hits.Add(1)
			return fault
		}
		return nil
	}})
	w.create()
	must(t, w.write(1, 0, fill(7, 3*PageSize)))
	must(t, w.sync(1))
	armed.Store(true)
	err := script(w)
	armed.Store(false)
	if err != nil && !errors.Is(err, errInjected) && !errors.Is(err, unix.EIO) {
		t.Fatalf("fault at %d: %v", at, err)
	}
	for _, s := range w.snaps {
		if s.state == "durable" {
			w.verifySnapshot(s)
		}
	}
	w.adopt()
	w.crash(nil)
	w.verify()
	w.check()
	must(t, script(w))
	w.reopen()
	w.verify()
	w.check()
	w.closeFile(1)
	must(t, w.pool.Close())
	return hits.Load() > 0
}

// TestModelFaults lets random histories meet a random fault.
func TestModelFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		left := int64(rapid.IntRange(0, 60).Draw(t, "fault at"))
		var n atomic.Int64
		w := newWorld(t, Options{NoFork: rapid.IntRange(0, 3).Draw(t, "inprocess") == 0, Hook: func(op Op) error {
			if op.Kind != OpSynced && n.Add(1) == left {
				return fmt.Errorf("%w: %w", errInjected, unix.EIO)
			}
			return nil
		}})
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if n.Load() >= left {
				break
			}
			w.act(t)
		}
		w.crash(nil)
		w.verify()
		w.check()
		for range 10 {
			w.act(t)
		}
		must(t, w.commitAllBut(0))
		w.verify()
		w.reopen()
		w.verify()
		w.check()
		for id := range w.files {
			w.closeFile(id)
		}
		must(t, w.pool.Close())
	})
}

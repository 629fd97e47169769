package cow

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFullMemory writes more over protected pages than may be private: writers wait for flushes and for the writer of a
// snapshot, and go on (I12); where flushing fails they are told why.
func TestFullMemory(t *testing.T) {
	const limit = 2 * mostWrite * PageSize
	fault := false
	w := newWorld(t, Options{DirtyLimit: limit, FlushInterval: time.Hour, Hook: func(op Op) error {
		if fault && op.Kind == OpWriteUndo {
			return unix.ENOSPC
		}
		return nil
	}})
	id := w.create()
	data := fill(1, 4*mostWrite*PageSize)
	must(t, w.write(id, 0, data))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, 0, fill(2, len(data)))) // four times the limit
	if n := w.pool.Stats().PrivateBytes; n > limit {
		t.Fatalf("%d private bytes, the limit is %d", n, limit)
	}
	w.verify()
	s, err = w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, 0, fill(2, PageSize))) // else the flushes may have left nothing for the next capture
	s, err = w.freeze()
	must(t, err)
	done := make(chan error)
	go func() { done <- w.write(id, 0, fill(3, len(data))) }()
	select {
	case err := <-done:
		t.Fatalf("a write of four times the limit did not wait for the writer: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	must(t, w.commit(s))
	must(t, <-done)
	w.verify()
	must(t, w.pool.Flush())
	s, err = w.freeze()
	must(t, err)
	must(t, w.commit(s))
	fault = true
	if err := w.write(id, 0, fill(4, len(data))); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("write with a full disk: %v", err)
	}
	fault = false
	must(t, w.sync(id))
	w.verify()
	w.check()
}

// TestFullIndex lets the index of the undo logs find no room: the flush says so, and the next one succeeds. The log itself is durable,
// so nothing has failed for good.
func TestFullIndex(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 8*PageSize)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, 0, fill(2, 4*PageSize)))
	w.index.addErr = unix.ENOSPC
	if err := w.sync(id); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("sync with a full index: %v, want ENOSPC", err)
	}
	w.verify()
	must(t, w.write(id, 2*PageSize, fill(3, 4*PageSize)))
	if err := w.pool.Flush(); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("flush with a full index: %v, want ENOSPC", err)
	}
	w.index.addErr = nil
	must(t, w.sync(id))
	w.verify()
	w.reopen()
	w.verify()
	w.check()
}

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

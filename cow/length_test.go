package cow

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

// halfPage makes a content whose base file ends in the middle of its second page, which a first snapshot reads, and whose newest bytes
// fill that page: the second snapshot's capture has them, and its writer makes the base file longer.
func halfPage(t *testing.T, w *world) (id ID, second *frozenWorld) {
	t.Helper()
	id = w.create()
	must(t, w.write(id, 0, fill(1, 5000)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, PageSize, fill(2, 900)))
	must(t, w.write(id, 5000, fill(3, 2*PageSize-5000)))
	second, err = w.freeze()
	must(t, err)
	return id, second
}

// end ends a snapshot whose writer is done.
func (w *world) end(s *frozenWorld) {
	must(w.tb, s.fz.Sync())
	s.fz.Finish()
	s.fz, s.state = nil, "durable"
}

// TestWriterMakesTheFileLonger writes to a page while the writer of a snapshot has made the base file longer with an older state of it: what
// it wrote stays.
func TestWriterMakesTheFileLonger(t *testing.T) {
	w := newWorld(t, Options{})
	id, second := halfPage(t, w)
	must(t, w.truncate(id, 5000))
	third, err := w.freeze()
	must(t, err)
	must(t, errors.Join(second.fz.Save(), second.fz.Write(nil)))
	written := make(chan error, 1)
	go func() { written <- w.write(id, PageSize, fill(4, 6000-PageSize)) }()
	time.Sleep(20 * time.Millisecond) // it waits, or is done
	w.end(second)
	must(t, w.commit(third))
	must(t, <-written)
	w.verify()
	must(t, w.pool.Flush())
	w.verify()
	w.check()
}

// TestCutBytesInACapture cuts bytes off that a writer is about to put behind the end, and makes the file longer again: a killed daemon does
// not bring them back.
func TestCutBytesInACapture(t *testing.T) {
	w := newWorld(t, Options{})
	id, second := halfPage(t, w)
	must(t, w.truncate(id, 5000))
	longer := make(chan error, 1)
	go func() { longer <- w.file(id).Truncate(2*PageSize, w.record(id)) }()
	must(t, errors.Join(second.fz.Save(), second.fz.Write(nil)))
	w.end(second)
	must(t, <-longer)
	w.live[id] = append(w.live[id], make([]byte, 2*PageSize-5000)...)
	w.verify()
	w.crash(nil)
	if got := w.live[id]; len(got) != 2*PageSize || !bytes.Equal(got[5000:], zeros[:2*PageSize-5000]) {
		t.Error("bytes that were cut off are back")
	}
}

// TestFailedWriteLeavesNothing: of a write behind the end that failed when its length was recorded nothing is seen when the file becomes
// longer.
func TestFailedWriteLeavesNothing(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 5000)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, PageSize, fill(2, 900)))
	_, err = w.file(id).WriteAt(fill(3, 3000), 5000, func(Epoch, int64, int64) error { return errInjected })
	if !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	must(t, w.truncate(id, 2*PageSize))
	w.verify()
	must(t, w.pool.Flush())
	w.verify()
}

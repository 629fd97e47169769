package cow

import (
	"bytes"
	"errors"
	"fmt"
	"os"
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

// TestLongerWithoutWriter makes a file longer that was cut, while a writer is about to put bytes behind its end, and which it then does not: the
// zeros in their place make the base file longer, and that is known.
func TestLongerWithoutWriter(t *testing.T) {
	w := newWorld(t, Options{})
	id, second := halfPage(t, w)
	must(t, w.truncate(id, 4500))
	longer := make(chan error, 1)
	go func() { longer <- w.file(id).Truncate(8000, w.record(id)) }()
	time.Sleep(20 * time.Millisecond) // it waits for the writer, or has not begun
	second.fz.Finish()
	second.fz = nil
	w.takeAway(second)
	must(t, <-longer)
	w.live[id] = append(w.live[id], make([]byte, 8000-4500)...)
	w.verify()
	must(t, w.pool.Tails()(true))
	must(t, w.pool.SyncBase())
	if !w.measure() {
		t.Error("the length of the base file is not recorded")
	}
	n, err := w.pool.base.length(id)
	must(t, err)
	if known, _ := w.index.Length(id); known != n {
		t.Errorf("the base file is %d bytes long, and known to be %d", n, known)
	}
	w.check()
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

// TestCutAfterTails changes a file between the moment when the records of lengths are made durable and the one when base files are cut: a
// power loss may bring back any length that it had meanwhile, and the bytes have to be there.
func TestCutAfterTails(t *testing.T) {
	for name, meanwhile := range map[string][]int64{"cut": {1}, "longer, then cut": {7, 1}, "twice": {3, 8, 2, 1}} {
		for _, another := range []bool{false, true} { // somebody else tidies meanwhile
			t.Run(fmt.Sprintf("%s %v", name, another), func(t *testing.T) { cutAfterTails(t, meanwhile, another) })
		}
	}
}

func cutAfterTails(t *testing.T, meanwhile []int64, another bool) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 9*PageSize)))
	must(t, w.sync(id))
	must(t, w.truncate(id, 5*PageSize))
	cut := w.pool.Tails() // the record of five pages is made durable now
	most := int64(5)
	for _, pages := range meanwhile {
		if at := int64(len(w.live[id])); at < pages*PageSize {
			must(t, w.write(id, at, fill(byte(pages), int(pages*PageSize-at))))
			must(t, w.sync(id))
		} else {
			must(t, w.truncate(id, pages*PageSize))
		}
		most = max(most, pages)
	}
	next := func(bool) error { return nil }
	if another {
		next = w.pool.Tails()
	}
	must(t, cut(true))
	length := func() (n int64) {
		must(t, w.pool.base.use(id, func(fd int) (err error) { n, err = fileSize(fd); return err }))
		return n
	}
	if n := length(); n < most*PageSize {
		t.Errorf("the base file has %d bytes, its durable record may say %d", n, most*PageSize)
	}
	must(t, next(true))
	must(t, w.pool.Tails()(true))
	if n := length(); n != PageSize {
		t.Errorf("the base file has %d bytes in the end", n)
	}
	w.verify()
}

// TestTailsGivenBack: base files that are not cut because the records could not be made durable, or because it fails, are cut later.
func TestTailsGivenBack(t *testing.T) {
	fail := false
	w := newWorld(t, Options{Hook: func(op Op) error {
		if fail && op.Kind == OpTruncBase {
			return errInjected
		}
		return nil
	}})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 9*PageSize)))
	must(t, w.sync(id))
	must(t, w.truncate(id, PageSize))
	w.closeFile(id)
	must(t, w.pool.Tails()(false))
	fail = true
	if err := w.pool.Tails()(true); !errors.Is(err, errInjected) {
		t.Errorf("a truncation fails: %v", err)
	}
	fail = false
	must(t, w.pool.Tails()(true))
	must(t, w.pool.SyncBase())
	if info, err := os.Stat(w.dir + "/" + BasePath(id)); err != nil || info.Size() != PageSize {
		t.Errorf("the base file has %d bytes in the end, %v", info.Size(), err)
	}
	if n := len(w.pool.contents); n > 0 {
		t.Errorf("%d contents are still in use", n)
	}
	if !w.measure() {
		t.Error("not all lengths are recorded")
	}
	if n, _ := w.index.Length(id); n != PageSize {
		t.Errorf("known to be %d long", n)
	}
}

// TestShorterLengthFirst: the bytes that were cut off are zeroed, for a file that becomes longer again, only when the record of the shorter
// length is durable. Else a power loss would leave the longer one, and zeros where bytes were that somebody had synced.
func TestShorterLengthFirst(t *testing.T) {
	recorded, zeroed := false, 0
	w := newWorld(t, Options{Hook: func(op Op) error {
		if op.Kind == OpPunchBase || op.Kind == OpWriteBase {
			zeroed++
			if recorded {
				return fmt.Errorf("%s before the record is durable", op.Kind)
			}
		}
		return nil
	}})
	w.index.onSync = func() { recorded = false }
	id := w.create()
	must(t, w.write(id, 0, fill(1, 9*PageSize)))
	must(t, w.sync(id))
	for _, size := range []int64{5 * PageSize, 4*PageSize + 100} {
		must(t, w.truncate(id, size))
		recorded, zeroed = true, 0
		must(t, w.truncate(id, 9*PageSize))
		if zeroed == 0 {
			t.Error("nothing was zeroed")
		}
	}
	w.verify()
}

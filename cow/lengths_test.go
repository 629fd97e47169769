package cow

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cutClosed cuts a base file while nobody has the store open.
func (w *world) cutClosed(id ID, size int64) {
	w.tb.Helper()
	for id := range w.files {
		w.closeFile(id)
	}
	must(w.tb, w.pool.SyncBase())
	if !w.measure() {
		w.tb.Fatal("not all lengths are recorded")
	}
	must(w.tb, w.pool.Close())
	must(w.tb, os.Truncate(w.dir+"/"+BasePath(id), size))
	w.open()
}

// problems returns what CheckBase says of a content.
func (w *world) problems(id ID) (all []Problem) {
	w.tb.Helper()
	must(w.tb, w.pool.CheckBase(id, true, func(p Problem) { all = append(all, p) }))
	return all
}

// wantLost checks that a reader of size bytes gets everything up to from, and EIO behind it, also where he asks for data and holes.
func wantLost(t *testing.T, what string, f interface {
	ReadAt([]byte, int64) (int, error)
	SeekExtent(int64, bool) (int64, error)
}, from, size int64) {
	t.Helper()
	b := make([]byte, PageSize)
	if n, err := f.ReadAt(b[:10], from-10); n != 10 || err != nil {
		t.Errorf("%s: read before the cut: %d, %v", what, n, err)
	}
	for _, off := range []int64{from - 1, from, size - 2} {
		if _, err := f.ReadAt(b[:2], off); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: read at %d: %v, want EIO", what, off, err)
		}
	}
	if at, err := f.SeekExtent(from+PageSize, false); at != from+PageSize || err != nil {
		t.Errorf("%s: the next data behind %d is at %d, %v: what is lost is no hole", what, from+PageSize, at, err)
	}
}

// TestCutWhileClosed: what a base file has lost while the store was closed is EIO, in the live content and in the snapshots, and is not
// written over.
func TestCutWhileClosed(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 8*PageSize)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, 7*PageSize, fill(2, PageSize)))
	if got := w.problems(id); len(got) > 0 {
		t.Errorf("before: %v", got)
	}
	cut := int64(3*PageSize + 100)
	w.cutClosed(id, cut)
	got := w.problems(id)
	if len(got) != 1 || got[0].Path != BasePath(id) || got[0].Part == nil || *got[0].Part != (Part{cut, 8 * PageSize}) {
		t.Errorf("check says %+v", got)
	}
	fr, err := w.pool.OpenFrozen(id, s.epoch, 8*PageSize)
	must(t, err)
	defer fr.Close()
	for _, open := range []bool{false, true} {
		if open {
			wantLost(t, "live", w.file(id), cut, 8*PageSize)
		}
		wantLost(t, "frozen", fr, cut, 7*PageSize)
		b := make([]byte, PageSize)
		if n, err := fr.ReadAt(b, 7*PageSize); n != PageSize || err != nil || b[0] != fill(1, 8*PageSize)[7*PageSize] {
			t.Errorf("a page that was saved: %d, %v", n, err)
		}
	}
	f := w.file(id)
	changes := map[string]func() error{
		"write":          func() error { _, err := f.WriteAt([]byte("x"), 3*PageSize, w.record(id)); return err },
		"write behind":   func() error { _, err := f.WriteAt([]byte("x"), 20*PageSize, w.record(id)); return err },
		"extend":         func() error { return f.Truncate(9*PageSize, w.record(id)) },
		"punch":          func() error { return f.Zero(4*PageSize, PageSize, true, true, w.record(id)) },
		"allocate":       func() error { return f.Allocate(0, 9*PageSize, true, w.record(id)) },
		"copy":           func() error { _, err := f.CopyFrom(f, 0, 4*PageSize, PageSize, w.record(id)); return err },
		"copy from lost": func() error { _, err := f.CopyFrom(f, 5*PageSize, 0, PageSize, w.record(id)); return err },
	}
	for what, change := range changes {
		if err := change(); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v, want EIO", what, err)
		}
	}
	if _, err := f.WriteAt([]byte("fine"), 10, w.record(id)); err != nil {
		t.Errorf("write before the cut: %v", err)
	}
	must(t, f.Truncate(100, w.record(id)))
	must(t, w.pool.Tails()(true))
	must(t, f.Sync())
	wantLost(t, "frozen, after a truncation", fr, cut, 7*PageSize)
	must(t, w.pool.Close())
	w.files = map[ID]*File{}
	w.open()
	if got := w.problems(id); len(got) != 1 {
		t.Errorf("the damage is forgotten: %v", got)
	}
}

// TestNoCut: base files that are short for a reason are whole.
func TestNoCut(t *testing.T) {
	w := newWorld(t, Options{})
	sparse, tail, unsynced := w.create(), w.create(), w.create()
	must(t, w.write(sparse, 0, fill(1, PageSize)))
	must(t, w.truncate(sparse, 10*PageSize))
	must(t, w.write(tail, 0, fill(2, 9*PageSize)))
	must(t, w.pool.SyncBase())
	w.measure()
	must(t, w.truncate(tail, 2*PageSize))
	must(t, w.pool.Tails()(true))
	if n, _ := w.index.Length(tail); n != 0 {
		t.Errorf("the length of a file that was cut is known to be %d", n)
	}
	must(t, w.truncate(tail, 5*PageSize))
	must(t, w.write(unsynced, 0, fill(3, 5*PageSize)))
	if w.measure() {
		t.Error("a length was recorded that is not durable")
	}
	if n, _ := w.index.Length(unsynced); n != 0 {
		t.Errorf("the length of a file that nobody has synced is known to be %d", n)
	}
	for id := range w.files {
		w.closeFile(id)
	}
	must(t, w.pool.Close())
	must(t, os.Truncate(w.dir+"/"+BasePath(unsynced), PageSize)) // as a power loss does
	w.open()
	for _, id := range []ID{sparse, tail, unsynced} {
		if got := w.problems(id); len(got) > 0 {
			t.Errorf("content %d: %+v", id, got)
		}
		b := make([]byte, PageSize)
		if n, err := w.file(id).ReadAt(b, 4*PageSize); n != PageSize || err != nil {
			t.Errorf("content %d: read %d, %v", id, n, err)
		}
	}
}

// TestMeasureAfterCrash: what was not recorded when a daemon was killed is measured in the next life, and no damage is taken for a length.
func TestMeasureAfterCrash(t *testing.T) {
	w := newWorld(t, Options{})
	grown, cut, missing := w.create(), w.create(), w.create()
	must(t, w.write(grown, 0, fill(1, 5*PageSize)))
	must(t, w.write(cut, 0, fill(2, 5*PageSize)))
	must(t, w.sync(cut))
	w.measure()
	w.crash(nil)
	must(t, os.Truncate(w.dir+"/"+BasePath(cut), PageSize))
	must(t, os.Remove(w.dir+"/"+BasePath(missing)))
	must(t, w.pool.SyncAll())
	for id := range w.inode {
		w.closeFile(id)
		w.pool.Measure(id)
	}
	if !w.measure() {
		t.Error("something is left")
	}
	for id, want := range map[ID]int64{grown: 5 * PageSize, cut: 5 * PageSize, missing: 0} {
		if n, _ := w.index.Length(id); n != want {
			t.Errorf("content %d is known to be %d long, want %d", id, n, want)
		}
	}
	if len(w.problems(cut)) == 0 || len(w.problems(grown)) > 0 {
		t.Error("the wrong one is damaged")
	}
	w.index.addErr = errInjected
	must(t, w.write(grown, 5*PageSize, fill(1, PageSize)))
	must(t, w.sync(grown))
	if _, err := w.pool.RecordLengths(time.Time{}); !errors.Is(err, errInjected) {
		t.Errorf("the index fails: %v", err)
	}
	must(t, w.truncate(grown, PageSize))
	if err := w.pool.Tails()(true); !errors.Is(err, errInjected) {
		t.Errorf("a base file is cut while its length is known: %v", err)
	}
	w.index.addErr = nil
	must(t, w.pool.Tails()(true))
	if !w.measure() {
		must(t, w.pool.SyncBase())
	}
	if !w.measure() {
		t.Error("a failure was not tried again")
	}
	if n, _ := w.index.Length(grown); n != PageSize {
		t.Errorf("known to be %d long after the cut", n)
	}
}

// TestLengthBehindWriter: what a writer has put behind the end of a base file is not known to be there before it is synced, neither while the
// writer is at work nor when it has failed. Else it would pass for damage after a power loss.
func TestLengthBehindWriter(t *testing.T) {
	fail := false
	w := newWorld(t, Options{Hook: func(op Op) error {
		if fail && op.Kind == OpSyncBase {
			return errInjected // the writer has written, and not synced
		}
		return nil
	}})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 100)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, 50, fill(2, 100))) // private; the base file gets its length
	must(t, w.pool.SyncBase())
	must(t, w.write(id, 150, fill(3, 50))) // behind the end of the base file
	s, err = w.freeze()
	must(t, err)
	fail = true
	must(t, s.fz.Save())
	if err := s.fz.Write(nil); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	if n, err := w.pool.base.length(id); n != 200 || err != nil {
		t.Fatalf("the base file is %d bytes long, %v", n, err)
	}
	want := func(when string) {
		t.Helper()
		w.measure()
		if n, _ := w.index.Length(id); n > 150 {
			t.Errorf("%s: known to be %d bytes long, and 150 are durable", when, n)
		}
	}
	want("while the writer is at work")
	s.fz.Finish()
	s.fz = nil
	w.takeAway(s)
	want("after it has failed")
}

package cow

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCutBaseFile truncates a base file under the pool's feet: reads of what is lost, and writes over it, get EIO; nothing
// else suffers, and no frozen read makes zeros of it.
func TestCutBaseFile(t *testing.T) {
	w := newWorld(t, Options{})
	id, other := w.create(), w.create()
	must(t, w.write(id, 0, fill(1, 8*PageSize)))
	must(t, w.write(other, 0, fill(2, 8*PageSize)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, PageSize, fill(3, PageSize))) // mapped now
	must(t, os.Truncate(w.dir+"/base/"+basePath(id), 4*PageSize))
	b := make([]byte, PageSize)
	f := w.file(id)
	if _, err := f.ReadAt(b, 6*PageSize); !errors.Is(err, unix.EIO) {
		t.Errorf("read beyond the cut: %v, want EIO", err)
	}
	if _, err := f.ReadAt(b, 2*PageSize); err != nil {
		t.Errorf("read before the cut: %v", err)
	}
	if _, err := f.WriteAt(b[:10], 6*PageSize, w.record(id)); !errors.Is(err, unix.EIO) {
		t.Errorf("write into a page beyond the cut: %v, want EIO", err)
	}
	fr, err := w.pool.OpenFrozen(id, s.epoch, 8*PageSize)
	must(t, err)
	if _, err := fr.ReadAt(b, 6*PageSize); !errors.Is(err, unix.EIO) {
		t.Errorf("frozen read beyond the cut: %v, want EIO", err)
	}
	fr.Close()
	f = w.file(other)
	if n, err := f.ReadAt(b, 0); n != len(b) || err != nil {
		t.Errorf("read of another content: %d, %v", n, err)
	}
}

// TestCutLog cuts an undo log at every page while the store is closed. The index knows it longer: it is not believed, that is reported,
// what is lost is EIO and nothing else is; what is saved in the log from then on is found again after the next crash.
func TestCutLog(t *testing.T) {
	const pages = 12
	for cut := int64(1); cut < pages+3; cut++ {
		var reported []error
		w := newWorld(t, Options{Report: func(err error) { reported = append(reported, err) }})
		id, other := w.create(), w.create()
		must(t, w.write(id, 0, fill(1, pages*PageSize)))
		must(t, w.write(other, 0, fill(2, 4*PageSize)))
		s, err := w.freeze()
		must(t, err)
		must(t, w.commit(s))
		for page := range int64(pages) / 4 { // three batches, of four pages each
			must(t, w.write(id, 4*page*PageSize, fill(3, 4*PageSize)))
			must(t, w.pool.Flush())
		}
		for id := range w.files {
			w.closeFile(id)
		}
		must(t, w.pool.Close())
		path := w.dir + "/undo/" + logName(s.epoch)
		info, err := os.Stat(path)
		must(t, err)
		if info.Size() != (pages+3+1)*PageSize {
			t.Fatalf("the log has %d bytes", info.Size())
		}
		must(t, os.Truncate(path, cut*PageSize+100))
		w.open()
		if len(reported) != 1 || !errors.Is(reported[0], ErrDamaged) {
			t.Errorf("cut at %d: reported %v", cut, reported)
		}
		if lost := w.damages(); len(lost) == 0 {
			t.Errorf("cut at %d: check finds nothing", cut)
		}
		w.wantFrozenOr(s, id, cut)
		must(t, w.write(other, 0, fill(4, 2*PageSize))) // saved behind what is left
		must(t, w.pool.Flush())
		w.wantFrozenOr(s, id, cut)
		w.crash(nil)
		if len(reported) != 1 {
			t.Errorf("cut at %d: reported again: %v", cut, reported)
		}
		w.wantFrozenOr(s, id, cut)
		f, err := w.pool.OpenFrozen(other, s.epoch, 4*PageSize)
		must(t, err)
		got := make([]byte, 4*PageSize)
		if n, err := f.ReadAt(got, 0); n != len(got) || err != nil || !bytes.Equal(got, s.files[other]) {
			t.Errorf("cut at %d: what was saved afterwards: %d, %v", cut, n, err)
		}
		f.Close()
		if lost := w.damages(); len(lost) == 0 {
			t.Errorf("cut at %d: check finds nothing in the next life", cut)
		}
		must(t, w.remove(s))
		if lost := w.damages(); len(lost) > 0 {
			t.Errorf("cut at %d: without the snapshot check finds %v", cut, lost)
		}
	}
}

// damages returns what the checker says.
func (w *world) damages() (all []Problem) {
	w.tb.Helper()
	_, err := w.pool.Check(func(p Problem) { all = append(all, p) })
	must(w.tb, err)
	return all
}

// wantFrozenOr reads every page of a content in a snapshot: it is right, or EIO where the log was cut at the given page of it.
func (w *world) wantFrozenOr(s *frozenWorld, id ID, cut int64) {
	w.tb.Helper()
	want := s.files[id]
	f, err := w.pool.OpenFrozen(id, s.epoch, int64(len(want)))
	must(w.tb, err)
	defer f.Close()
	b := make([]byte, PageSize)
	for page := range int64(len(want)) / PageSize {
		block := 1 + page/4*5 + 1 + page%4 // the header of the log, then batches of a header and four pages
		n, err := f.ReadAt(b, page*PageSize)
		switch lost := block >= cut; {
		case lost && !errors.Is(err, unix.EIO):
			w.tb.Errorf("cut at %d: page %d: %d, %v, want EIO", cut, page, n, err)
		case !lost && (err != nil || !bytes.Equal(b, want[page*PageSize:][:PageSize])):
			w.tb.Errorf("cut at %d: page %d: %d, %v", cut, page, n, err)
		}
	}
}

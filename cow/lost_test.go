package cow

import (
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// askedIndex calls asked before the first look into the index.
type askedIndex struct {
	Index
	asked func()
}

func (x *askedIndex) Find(id ID, first, last uint64, from Epoch, visit func(Place) bool) error {
	x.asked()
	return x.Index.Find(id, first, last, from, visit)
}

// TestReadWhileSnapshotFails lets a snapshot fail while it is read: what its writer held is not in the base file, whose bytes are not those
// of the snapshot.
func TestReadWhileSnapshotFails(t *testing.T) {
	reads := map[string]func(*Frozen) error{
		"read": func(f *Frozen) error { _, err := f.ReadAt(make([]byte, PageSize), 0); return err },
		"seek": func(f *Frozen) error { _, err := f.SeekExtent(0, false); return err },
	}
	for what, read := range reads {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, Options{})
			id := w.create()
			must(t, w.write(id, 0, fill(1, 2*PageSize)))
			s1, err := w.freeze()
			must(t, err)
			must(t, w.commit(s1))
			must(t, w.write(id, 0, fill(2, PageSize)))
			s2, err := w.freeze()
			must(t, err)
			f, err := w.pool.OpenFrozen(id, s2.fz.Epoch, 2*PageSize)
			must(t, err)
			defer f.Close()
			w.pool.opt.Index = &askedIndex{w.pool.opt.Index, sync.OnceFunc(s2.fz.Finish)}
			if err := read(f); !errors.Is(err, unix.ESTALE) {
				t.Errorf("it ended with %v, want ESTALE", err)
			}
			w.takeAway(s2)
		})
	}
}

// TestCutBeforeFailure: a page is private at the freezes of two snapshots and cut off after them. The first fails: the second has the page
// all the same.
func TestCutBeforeFailure(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 4*PageSize)))
	s1, err := w.freeze()
	must(t, err)
	must(t, w.commit(s1))
	must(t, w.write(id, 2*PageSize, fill(2, PageSize)))
	s2, err := w.freeze()
	must(t, err)
	s3, err := w.freeze()
	must(t, err)
	must(t, w.truncate(id, PageSize+10))
	s2.fz.Finish()
	w.takeAway(s2)
	must(t, w.commit(s3))
	w.verify()
	must(t, w.write(id, PageSize, fill(3, 2*PageSize)))
	w.verify()
	w.check()
}

package cow

import (
	"testing"
	"time"

	"errors"
	"golang.org/x/sys/unix"
)

// TestReadWhileFreezing reads a snapshot from the moment on when its record makes it visible, which is before the freeze is over.
func TestReadWhileFreezing(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, PageSize)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, 0, fill(2, PageSize)))
	got := make([]byte, PageSize)
	read := make(chan error, 1)
	fz, err := w.pool.Freeze(func(e Epoch) error {
		go func() {
			f, err := w.pool.OpenFrozen(id, e, PageSize)
			if err == nil {
				_, err = f.ReadAt(got, 0)
				f.Close()
			}
			read <- err
		}()
		time.Sleep(20 * time.Millisecond)
		return nil
	})
	must(t, err)
	must(t, <-read)
	diffPages(t, "the new snapshot", got, w.live[id])
	fz.Finish()
}

// TestReadWhileCaptureFails reads a snapshot whose writer fails between the moment when the read looks for what is known of the snapshot and
// the one when it looks for the page: what it gets is an error, not the bytes of an older snapshot.
func TestReadWhileCaptureFails(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, PageSize)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, 0, fill(2, PageSize)))
	s, err = w.freeze()
	must(t, err)
	f, err := w.pool.OpenFrozen(id, s.epoch, PageSize)
	must(t, err)
	defer f.Close()
	w.index.onFind = func() { // the read has begun
		w.index.onFind = nil
		s.fz.Finish()
		s.fz = nil
	}
	got := make([]byte, PageSize)
	if _, err := f.ReadAt(got, 0); !errors.Is(err, unix.ESTALE) {
		t.Errorf("%v, byte %d; want ESTALE", err, got[0])
	}
	w.takeAway(s)
	w.verify()
}

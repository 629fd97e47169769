package cow

import (
	"os"
	"testing"
)

// TestUncoverIsDurableFirst: where a file that was cut becomes longer again, the bytes that were cut off must be gone durably before
// the new length is recorded: the record may become durable at any time.
func TestUncoverIsDurableFirst(t *testing.T) {
	unsynced := false
	syncs := 0
	w := newWorld(t, Options{Hook: func(op Op) error {
		switch op.Kind {
		case OpWriteBase, OpPunchBase, OpTruncBase:
			unsynced = true
		case OpSyncBase:
			unsynced = false
			syncs++
		}
		return nil
	}})
	size := int64(0)
	record := func(id ID) Record {
		return func(epoch Epoch, to, reach int64) error {
			if to > size && unsynced {
				t.Errorf("%d bytes are recorded, and what was cut off behind %d is not durably gone", to, size)
			}
			size = to
			return w.record(id)(epoch, to, reach)
		}
	}
	truncate := func(id ID, to int64) {
		t.Helper()
		must(t, w.file(id).Truncate(to, record(id)))
	}
	for name, reopen := range map[string]bool{"open": false, "closed meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			id := w.create()
			must(t, w.write(id, 0, fill(1, 40*PageSize)))
			size = 40 * PageSize
			truncate(id, 2*PageSize+100) // no snapshot: the base file is cut
			must(t, w.pool.Tails()(true))
			if reopen {
				w.closeFile(id)
			}
			truncate(id, 5*PageSize)

			must(t, w.write(id, 0, fill(2, 40*PageSize)))
			size = 40 * PageSize
			s, err := w.freeze()
			must(t, err)
			must(t, w.commit(s))
			truncate(id, 2*PageSize+100) // what is cut off stays: the snapshot reads it
			must(t, w.pool.Tails()(true))
			if reopen {
				w.closeFile(id)
			}
			truncate(id, 5*PageSize)
			before := syncs
			for i := int64(1); i < 16; i++ {
				truncate(id, (5+i)*PageSize)
			}
			if syncs > before {
				t.Errorf("%d syncs for %d small extensions", syncs-before, 15)
			}
			w.live[id] = append(fill(2, 2*PageSize+100), make([]byte, 20*PageSize-2*PageSize-100)...)
			w.verify()
		})
	}
}

// TestTornLogHeader: a log that was being made when the power went may have its length and none of its bytes. Nothing was saved in it.
func TestTornLogHeader(t *testing.T) {
	for name, header := range map[string][]byte{"empty": {}, "cut": make([]byte, 100), "zeros": make([]byte, PageSize), "garbage": fill(7, PageSize)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{})
			id := w.create()
			must(t, w.write(id, 0, fill(1, PageSize)))
			s, err := w.freeze()
			must(t, err)
			must(t, w.commit(s))
			must(t, w.sync(id))
			must(t, os.WriteFile(w.dir+"/undo/1", header, 0o600))
			w.crash(nil)
			w.verify()
			must(t, w.write(id, 0, fill(2, PageSize)))
			must(t, w.sync(id))
			w.crash(nil)
			w.verify()
			w.check()
		})
	}
}

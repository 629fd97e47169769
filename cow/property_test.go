package cow

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// maxPages bounds the contents of the property tests.
const maxPages = 24

// act draws one random operation and does it, in the world and in the model.
func (w *world) act(t *rapid.T) {
	ids := make([]ID, 0, len(w.live))
	for id := ID(1); id < w.next; id++ {
		if _, ok := w.live[id]; ok {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 || (len(ids) < 3 && rapid.IntRange(0, 9).Draw(t, "create") == 0) {
		w.create()
		return
	}
	id := rapid.SampledFrom(ids).Draw(t, "id")
	offset := rapid.Custom(func(t *rapid.T) int64 {
		at := int64(rapid.IntRange(0, maxPages-1).Draw(t, "page")) * PageSize
		if rapid.Bool().Draw(t, "unaligned") {
			at += int64(rapid.IntRange(1, PageSize-1).Draw(t, "byte"))
		}
		return at
	})
	ok := func(err error) {
		failed := w.opt.Hook != nil && errors.Is(err, unix.EIO) // a failed sync is final (I11)
		if err != nil && !errors.Is(err, errInjected) && !failed {
			t.Fatal(err)
		}
	}
	switch op := rapid.SampledFrom([]string{"write", "write", "write", "write", "truncate", "punch", "zero", "copy", "copy", "sync", "flush",
		"freeze", "commit", "remove", "unlink", "close", "verify", "tails", "measure"}).Draw(t, "op"); op {
	case "write":
		data := fill(rapid.Byte().Draw(t, "seed"), rapid.SampledFrom([]int{1, 100, PageSize, 3 * PageSize, 2*PageSize + 77}).Draw(t, "len"))
		off := offset.Draw(t, "off")
		ok(w.patiently(func() error { return w.write(id, off, data) }))
	case "truncate":
		size := offset.Draw(t, "size")
		ok(w.patiently(func() error { return w.truncate(id, size) }))
	case "punch", "zero":
		off, n := offset.Draw(t, "off"), int64(rapid.IntRange(1, 6*PageSize).Draw(t, "n"))
		keep := rapid.Bool().Draw(t, "keep") || op == "punch"
		ok(w.patiently(func() error { return w.zero(id, off, n, op == "punch", keep) }))
	case "copy":
		src, from, off := rapid.SampledFrom(ids).Draw(t, "src"), offset.Draw(t, "from"), offset.Draw(t, "off")
		ok(w.patiently(func() error { return w.copyAny(t, id, src, from, off) }))
	case "sync":
		ok(w.commitAllBut(0)) // an fsync waits for captures, and nobody else would end them here
		ok(w.sync(id))
	case "flush":
		ok(w.commitAllBut(0))
		ok(w.pool.Flush())
	case "freeze":
		if len(w.snaps) < 6 {
			_, err := w.freeze()
			ok(err)
		}
	case "commit":
		ok(w.commitAllBut(rapid.IntRange(0, 2).Draw(t, "left")))
	case "remove":
		if len(w.snaps) > 0 {
			ok(w.commitAllBut(0))
			if len(w.snaps) > 0 {
				ok(w.remove(w.snaps[rapid.IntRange(0, len(w.snaps)-1).Draw(t, "snap")]))
			}
		}
	case "unlink":
		if rapid.IntRange(0, 4).Draw(t, "really") == 0 {
			ok(w.commitAllBut(0))
			ok(w.unlink(id))
		}
	case "close":
		w.closeFile(id)
	case "tails":
		ok(w.commitAllBut(0))
		ok(w.pool.Tails()(true))
	case "measure":
		if rapid.Bool().Draw(t, "synced") {
			ok(w.pool.SyncBase())
		}
		w.measure()
		w.verifyLengths()
	case "verify":
		w.verify()
	}
}

// copyAny copies from a live content, or from it as a snapshot has it.
func (w *world) copyAny(t *rapid.T, id, src ID, from, off int64) error {
	n := int64(rapid.SampledFrom([]int{1, PageSize, 3 * PageSize, 8 * PageSize, 5*PageSize + 99}).Draw(t, "n"))
	for _, s := range w.snaps {
		if want, ok := s.files[src]; ok && rapid.Bool().Draw(t, "frozen") {
			f, err := w.pool.OpenFrozen(src, s.epoch, int64(len(want)))
			must(t, err)
			defer f.Close()
			return w.copy(id, f, want, from, off, n)
		}
	}
	if src == id { // never over itself
		from, off, n = from%(maxPages/2*PageSize), off+maxPages/2*PageSize, min(n, 4*PageSize)
		off, n = max(off, from+n), min(n, max(0, int64(len(w.live[src]))-from))
	}
	return w.copy(id, w.file(src), w.live[src], from, off, n)
}

// patiently does a change. One that zeroes, or extends over, pages of an outstanding capture waits until that is written:
// where a change waits, the outstanding snapshots are committed here.
func (w *world) patiently(change func() error) error {
	done := make(chan error, 1)
	go func() { done <- change() }()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(5 * time.Millisecond):
			var failed []*frozenWorld
			for _, s := range w.outstanding() {
				if w.commitBytes(s) != nil {
					failed = append(failed, s)
				}
			}
			err := <-done
			for _, s := range failed {
				w.takeAway(s)
			}
			return err
		}
	}
}

func (w *world) outstanding() (open []*frozenWorld) {
	for _, s := range w.snaps {
		if s.fz != nil {
			open = append(open, s)
		}
	}
	return open
}

// commitAllBut commits the outstanding snapshots, oldest first, except the last left ones.
func (w *world) commitAllBut(left int) error {
	open := w.outstanding()
	var first error
	for i := 0; i < len(open)-left; i++ {
		if err := w.commit(open[i]); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// TestModel compares random histories with plain byte arrays: every snapshot and the live contents, byte for byte.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { runModel(t, Options{NoFork: rapid.IntRange(0, 3).Draw(t, "inprocess") == 0}) })
}

func runModel(t *rapid.T, opt Options) {
	w := newWorld(t, opt)
	n := rapid.IntRange(1, 40).Draw(t, "steps")
	for range n {
		if rapid.IntRange(0, 14).Draw(t, "reopen") == 0 {
			if rapid.Bool().Draw(t, "crash") {
				w.crash(nil)
			} else {
				w.reopen()
			}
			continue
		}
		w.act(t)
	}
	w.verify()
	w.reopen()
	w.verify()
	w.check()
	for len(w.snaps) > 0 {
		must(w.tb, w.remove(w.snaps[len(w.snaps)/2]))
		w.verify()
	}
	if n := len(w.pool.logsIn(0, ^Epoch(0))); n != 0 {
		t.Fatalf("%d undo logs are left after the last snapshot", n)
	}
	w.check()
	for id := range w.files {
		w.closeFile(id)
	}
	must(w.tb, w.pool.Close())
}

package cow

import (
	"bytes"
	"testing"
)

// TestFreezeWithinGrowingWrite freezes between the moment at which a write has stored its bytes and the one at which it makes the file
// longer. The capture ends at the old length: what the write has stored behind that, in a page that it shares with older bytes, is not
// dropped with the capture.
func TestFreezeWithinGrowingWrite(t *testing.T) {
	for _, noFork := range []bool{false, true} {
		var meanwhile func()
		opt := Options{Index: newMemIndex(), FlushInterval: -1, NoFork: noFork, Hook: func(op Op) error {
			if op.Kind == OpWriteBase && meanwhile != nil {
				do := meanwhile
				meanwhile = nil
				do()
			}
			return nil
		}}
		p, err := OpenPool(tempDir(t), nil, 1, opt)
		must(t, err)
		record := func(Epoch, int64, int64) error { return nil }
		commit := func(fz *Freeze, err error) {
			must(t, err)
			must(t, fz.Save())
			must(t, fz.Write(nil))
			must(t, fz.Sync())
			fz.Finish()
		}
		freeze := func() (*Freeze, error) { return p.Freeze(func(Epoch) error { return nil }) }
		f, err := p.Create(1)
		must(t, err)
		want := fill(1, 100)
		_, err = f.WriteAt(want, 0, record)
		must(t, err)
		commit(freeze())
		var fz *Freeze
		frozen := make(chan error, 1)
		meanwhile = func() { // the first page is protected and stored, the second is written in place now
			do := func() {
				var err error
				fz, err = freeze()
				frozen <- err
			}
			if noFork { // it waits for the write
				go do()
				return
			}
			do()
		}
		more := fill(2, 2*PageSize)
		_, err = f.WriteAt(more, 50, record)
		must(t, err)
		must(t, <-frozen)
		commit(fz, nil)
		must(t, p.Flush())
		want = append(want[:50], more...)
		got := make([]byte, len(want))
		_, err = f.ReadAt(got, 0)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("no fork %v: what was written behind the old end is lost", noFork)
		}
		must(t, f.Close())
		must(t, p.Close())
	}
}

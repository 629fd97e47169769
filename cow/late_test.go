package cow

import (
	"testing"
	"time"
)

// TestSaveDuringRemoval: what a flush saves in a log while its snapshot, the only one, is being removed leaves no place in the index.
func TestSaveDuringRemoval(t *testing.T) {
	index := newMemIndex()
	saving, looked := make(chan struct{}), make(chan struct{})
	first := true
	opt := Options{Index: index, FlushInterval: -1, Hook: func(op Op) error {
		if op.Kind == OpSyncUndo && first {
			first = false
			close(saving)
			<-looked
		}
		return nil
	}}
	p, err := OpenPool(tempDir(t), nil, 1, opt)
	must(t, err)
	record := func(Epoch, int64, int64) error { return nil }
	f, err := p.Create(1)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 8*PageSize), 0, record)
	must(t, err)
	fz, err := p.Freeze(func(Epoch) error { return nil })
	must(t, err)
	fz.Finish()
	_, err = f.WriteAt([]byte("new"), 0, record)
	must(t, err)
	flushed := make(chan error, 1)
	go func() { flushed <- p.Flush() }()
	<-saving
	go func() {
		time.Sleep(50 * time.Millisecond) // by then the removal has looked at the log, and waits to close it
		close(looked)
	}()
	_, err = p.RemoveSnapshot(1, func(Epoch) ID { return 2 })
	must(t, err)
	<-flushed // with whatever outcome: nobody needs what it saved
	must(t, index.Places(func(pl Place) bool {
		t.Errorf("a place is left: %+v", pl)
		return true
	}))
	must(t, f.Close())
	must(t, p.Close())
}

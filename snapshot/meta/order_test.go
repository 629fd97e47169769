package meta

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCountedBeforeSeen: what is seen of a batch is covered by the next Sync, so the batch has been counted by then. Else bytes could be
// removed whose removal is not durable, and an fsync could leave out what somebody has read.
func TestCountedBeforeSeen(t *testing.T) {
	d, err := Open("db", Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const batches = 20_000
	first := d.Committed()
	var ended atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer ended.Store(true)
		for n := range uint64(batches) {
			b := d.NewBatch()
			b.setMark("last", binary.BigEndian.AppendUint64(nil, first+n+1))
			if _, err := b.Commit(false); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for !ended.Load() {
		v, ok, err := d.mark("last")
		counted := d.Committed()
		if err != nil {
			t.Fatal(err)
		}
		if ok && binary.BigEndian.Uint64(v) > counted {
			t.Errorf("batch %d is seen, and %d are counted", binary.BigEndian.Uint64(v), counted)
			break
		}
	}
	<-done
}

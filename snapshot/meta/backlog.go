package meta

import (
	"cmp"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Stuck returns why nothing can be written now: Pebble's last attempt to write a memtable failed, and until one succeeds a batch could have to
// wait for that; or so many tables wait for compactions, which fail, that writers would soon have to wait for those. Unlike Err
// it ends by itself.
func (d *DB) Stuck() error {
	err := d.background.Load()
	if err == nil {
		err = d.backlog.full(func() int32 { return d.db.Metrics().Levels[0].Sublevels })
	}
	if err != nil {
		return fmt.Errorf("meta: the metadata store cannot be written: %w", *err)
	}
	return nil
}

// writable returns why nothing can be written, now or for good.
func (d *DB) writable() error { return cmp.Or(d.Err(), d.Stuck()) }

// backlog watches the tables that wait for a compaction, once one has failed: where all of them fail, writers would wait for ever
// as soon as there are stopTables. Before that changes are refused, with what the last one failed with.
type backlog struct {
	most   int32                 // so many may wait
	failed atomic.Pointer[error] // the last failure; nil: there was none
	look   atomic.Bool           // their number may have changed
	isFull atomic.Bool
}

// ended notes the end of a compaction. Pebble calls it with its locks held.
func (b *backlog) ended(err error) {
	if err != nil && !errors.Is(err, pebble.ErrCancelledCompaction) {
		b.failed.Store(&err)
	}
	b.look.Store(true)
}

// full returns the last failure while too many tables wait; count tells how many do.
func (b *backlog) full(count func() int32) *error {
	failed := b.failed.Load()
	if failed == nil {
		return nil
	}
	if b.look.Swap(false) {
		b.isFull.Store(count() > b.most)
	}
	if !b.isFull.Load() {
		return nil
	}
	return failed
}

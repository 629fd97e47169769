package meta

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/snapfs/snapfs/cow"
)

// Batch is a set of changes that become visible, and durable, together. It is not safe for concurrent use. End it with
// Commit or Discard.
type Batch struct {
	d    *DB
	b    *pebble.Batch
	read cow.Epoch // see ReadUpTo
}

// NewBatch returns an empty batch.
func (d *DB) NewBatch() *Batch { return &Batch{d: d, b: d.db.NewBatch(), read: Latest} }

// ReadUpTo says that only the live tree reads versions newer than epoch e (that of the newest snapshot): one of those that the batch replaces
// goes, as if it were of the same epoch.
func (b *Batch) ReadUpTo(e cow.Epoch) { b.read = e }

// Commit applies the batch. It is durable on return if sync is set, else with a later Sync or synced commit.
// seq numbers the batch for Synced. ENOSPC, with nothing applied, while there is no room for it on the disk.
func (b *Batch) Commit(sync bool) (seq uint64, err error) {
	d := b.d
	if err := d.admit(); err != nil {
		b.Discard()
		return 0, fmt.Errorf("meta: commit: %w", err)
	}
	if seq, err = d.apply("commit", b.b, sync, 1); err != nil {
		return 0, err // the batch is not closed: Pebble may still refer to it
	}
	if !sync {
		d.carrier.soon()
	}
	return seq, b.b.Close()
}

// Discard drops the batch.
func (b *Batch) Discard() { _ = b.b.Close() } // closing an unapplied batch only returns its memory

// set and delete cannot fail: a batch that is not indexed only appends to memory.
func (b *Batch) set(k, v []byte) { _ = b.b.Set(k, v, nil) }
func (b *Batch) delete(k []byte) { _ = b.b.Delete(k, nil) }

func (b *Batch) setMark(name string, v []byte) { b.set(markKey(name), v) }

package meta

import (
	"cmp"
	"encoding/binary"
	"time"

	"github.com/snapfs/snapfs/cow"
)

// State of a snapshot record.
type State string

// The life of a snapshot record. Recovery removes every snapshot that is not Durable.
const (
	Pending  State = "pending"  // frozen, its bytes are not all durable yet
	Durable  State = "durable"  // survives a power loss (I4)
	Deleting State = "deleting" // being removed
)

func (s State) valid() bool { return s == Pending || s == Durable || s == Deleting }

// Snapshot is the record of a snapshot; Epoch is its key.
type Snapshot struct {
	Epoch         cow.Epoch
	Name          string
	Time          time.Time
	State         State
	Holds         []string // tags; a held snapshot is not deleted
	Description   string
	NextContent   cow.ID // contents below it were born before the freeze
	FreezeUsec    int64
	ForkUsec      int64
	CapturedBytes int64
	Seconds       float64
	Temporary     bool // goes with the command that took it, at the latest when the store is opened again, unless it is held
}

// Snapshots returns all snapshot records, oldest first.
func (d *DB) Snapshots() (all []Snapshot, err error) {
	var failed error
	err = d.scan([]byte{kindSnapshot}, []byte{kindSnapshot + 1}, func(k, v []byte) bool {
		if len(k) != 9 {
			failed = damaged("key", k)
			return false
		}
		s, err := decodeSnapshot(v)
		s.Epoch, failed = cow.Epoch(binary.BigEndian.Uint64(k[1:])), err
		all = append(all, s)
		return err == nil
	})
	return all, cmp.Or(failed, err)
}

// PutSnapshot writes the record of s.Epoch.
func (b *Batch) PutSnapshot(s *Snapshot) error {
	v, err := encodeSnapshot(s)
	if err != nil {
		return err
	}
	b.set(key1(kindSnapshot, uint64(s.Epoch)), v)
	return nil
}

// DeleteSnapshot removes the record of epoch e.
func (b *Batch) DeleteSnapshot(e cow.Epoch) { b.delete(key1(kindSnapshot, uint64(e))) }

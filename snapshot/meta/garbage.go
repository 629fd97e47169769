package meta

import (
	"cmp"
	"encoding/binary"

	"github.com/snapfs/snapfs/cow"
)

// AddGarbage lists a content that no view reads once this batch is durable; its base file can go from then on.
func (b *Batch) AddGarbage(id cow.ID) { b.set(key1(kindGarbage, uint64(id)), nil) }

// RemoveGarbage takes a content off the list: its base file is gone.
func (b *Batch) RemoveGarbage(id cow.ID) {
	b.delete(key1(kindGarbage, uint64(id)))
	b.delete(key1(kindLength, uint64(id)))
}

// Garbage visits the listed contents, by id, until visit returns false.
func (d *DB) Garbage(visit func(cow.ID) bool) error {
	return d.visitIDs(kindGarbage, func(n uint64) bool { return visit(cow.ID(n)) })
}

// AddOrphan lists an inode that has no name any more but is still in use.
func (b *Batch) AddOrphan(ino Ino) { b.set(key1(kindOrphan, uint64(ino)), nil) }

// RemoveOrphan takes an inode off the list.
func (b *Batch) RemoveOrphan(ino Ino) { b.delete(key1(kindOrphan, uint64(ino))) }

// Orphans visits the listed inodes, by number, until visit returns false.
func (d *DB) Orphans(visit func(Ino) bool) error {
	return d.visitIDs(kindOrphan, func(n uint64) bool { return visit(Ino(n)) })
}

func (d *DB) visitIDs(kind byte, visit func(uint64) bool) error {
	var failed error
	err := d.scan([]byte{kind}, []byte{kind + 1}, func(k, _ []byte) bool {
		if len(k) != 9 {
			failed = damaged("key", k)
			return false
		}
		return visit(binary.BigEndian.Uint64(k[1:]))
	})
	return cmp.Or(failed, err)
}

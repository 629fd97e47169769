package meta

import "github.com/snapfs/snapfs/cow"

// Length implements cow.Index.
func (d *DB) Length(id cow.ID) (int64, error) {
	v, ok, err := d.get(key1(kindLength, uint64(id)))
	if err != nil || !ok {
		return 0, err
	}
	return decodeLength(v)
}

// SetLengths implements cow.Index. The batch is not synced: a length that is lost is only one that is not known.
func (d *DB) SetLengths(lengths []cow.Length) error {
	b := d.NewBatch()
	for _, l := range lengths {
		b.set(key1(kindLength, uint64(l.ID)), encodeLength(l.Bytes))
	}
	_, err := b.Commit(false)
	return err
}

// ForgetLengths implements cow.Index.
func (d *DB) ForgetLengths(ids []cow.ID) error {
	b := d.NewBatch()
	for _, id := range ids {
		b.delete(key1(kindLength, uint64(id)))
	}
	_, err := b.Commit(false)
	return err
}

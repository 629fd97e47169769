package meta

import (
	"bytes"
	"cmp"
	"encoding/binary"

	"github.com/snapfs/snapfs/cow"
)

// Version is one version of a key.
type Version struct {
	Epoch     cow.Epoch
	Tombstone bool
}

// Versions returns the versions of k, newest first.
func (d *DB) Versions(k Key) (vs []Version, err error) {
	var failed error
	err = d.scan(k.at(Latest), k.end(), func(stored, v []byte) bool {
		_, e, err := splitVersion(stored)
		vs, failed = append(vs, Version{e, isTombstone(v)}), err
		return err == nil
	})
	return vs, cmp.Or(failed, err)
}

// Older tells whether k has a version older than epoch e, be it a tombstone: whether something stays behind when its version of e goes.
// A tombstone counts although it hides nothing from the live tree: a removal of snapshots may drop it at any moment because the
// version of e hides it, and what is below it must not be seen again.
func (d *DB) Older(k Key, e cow.Epoch) (bool, error) {
	if e == 0 {
		return false, nil
	}
	it, err := d.iterator(k.at(e-1), k.end())
	if err != nil {
		return false, err
	}
	older := it.First()
	return older, d.ended(it)
}

// Touched visits the keys that got a version in epoch from, in the one after it, and so on up to epoch to, until visit
// returns false. A key that was touched may have lost that version again.
func (d *DB) Touched(from, to cow.Epoch, visit func(e cow.Epoch, k Key) bool) error {
	var failed error
	err := d.scan(key1(kindTouched, uint64(from)), key1(kindTouched, uint64(to)+1), func(stored, _ []byte) bool {
		k, err := parseKey(stored[min(9, len(stored)):])
		if err != nil {
			failed = err
			return false
		}
		return visit(cow.Epoch(binary.BigEndian.Uint64(stored[1:])), k)
	})
	return cmp.Or(failed, err)
}

// DropVersion forgets the version of k written in epoch e: no view reads it any more.
func (b *Batch) DropVersion(k Key, e cow.Epoch) {
	b.delete(k.at(e))
	b.delete(touchedKey(e, k))
}

// Touch marks k as touched in epoch e, without a version of it.
func (b *Batch) Touch(k Key, e cow.Epoch) { b.set(touchedKey(e, k), nil) }

// putVersion writes the version of epoch e. If the version before is of the same epoch, it is replaced and marked already; if no
// snapshot reads it (ReadUpTo), it goes.
func (b *Batch) putVersion(k Key, e, prev cow.Epoch, value []byte) {
	b.set(k.at(e), value)
	if prev == e {
		return
	}
	b.set(touchedKey(e, k), nil)
	if prev > b.read {
		b.DropVersion(k, prev)
	}
}

// deleteVersion removes k in epoch e: without a trace if nothing but the version of e itself would hide.
func (b *Batch) deleteVersion(k Key, e, prev cow.Epoch, older bool) {
	if (prev == e || prev > b.read) && !older {
		b.DropVersion(k, prev)
		return
	}
	b.putVersion(k, e, prev, []byte{tombstone})
}

// newest hands the value of the newest version of k with an epoch <= at to decode and returns that epoch; 0 if
// there is none or it is a tombstone. The value is valid during the call only.
func (d *DB) newest(k Key, at cow.Epoch, decode func(v []byte) error) (found cow.Epoch, err error) {
	it, err := d.iterator(k.at(at), k.end())
	if err != nil {
		return 0, err
	}
	if it.First() && !isTombstone(it.Value()) {
		if _, found, err = splitVersion(it.Key()); err == nil {
			err = decode(it.Value())
		}
	}
	if err = cmp.Or(err, d.ended(it)); err != nil {
		return 0, err
	}
	return found, nil
}

// visitVersions visits the newest version with an epoch <= at of every key in [from, to) that is not a tombstone.
func (d *DB) visitVersions(from, to []byte, at cow.Epoch, visit func(k Key, v []byte) (bool, error)) error {
	var done []byte // the key whose version was found already
	var failed error
	err := d.scan(from, to, func(stored, v []byte) bool {
		n := len(stored) - epochSize
		if n < 9 {
			failed = damaged("key", stored)
			return false
		}
		if bytes.Equal(done, stored[:n]) || cow.Epoch(^binary.BigEndian.Uint64(stored[n:])) > at {
			return true
		}
		done = append(done[:0], stored[:n]...)
		if isTombstone(v) {
			return true
		}
		k, err := parseKey(done)
		if err != nil {
			failed = err
			return false
		}
		more, err := visit(k, v)
		failed = err
		return more && err == nil
	})
	return cmp.Or(failed, err)
}

// cookie returns the place of a directory entry in its directory.
func (k Key) cookie() uint64 { return binary.BigEndian.Uint64([]byte(k[9:17])) }

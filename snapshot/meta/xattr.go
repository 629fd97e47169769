package meta

import (
	"github.com/snapfs/snapfs/cow"
)

// Xattr returns the value of an extended attribute as of epoch at and the epoch in which it was written: 0 if there was none.
func (d *DB) Xattr(ino Ino, name string, at cow.Epoch) (value []byte, e cow.Epoch, err error) {
	e, err = d.newest(xattrKey(ino, name), at, func(v []byte) (err error) {
		value, err = decodeXattr(v)
		return err
	})
	return value, e, err
}

// Xattrs visits the names of the extended attributes of ino as of epoch at, in byte order, until visit returns false.
func (d *DB) Xattrs(ino Ino, at cow.Epoch, visit func(name string) bool) error {
	from, to := key1(kindXattr, uint64(ino)), key1(kindXattr, uint64(ino)+1)
	return d.visitVersions(from, to, at, func(k Key, _ []byte) (bool, error) {
		return visit(k.Name()), nil
	})
}

// PutXattr sets an extended attribute in epoch e; prev as for PutInode.
func (b *Batch) PutXattr(ino Ino, name string, value []byte, e, prev cow.Epoch) {
	b.putVersion(xattrKey(ino, name), e, prev, encodeXattr(value))
}

// DeleteXattr removes an extended attribute in epoch e; prev and older as for DeleteInode.
func (b *Batch) DeleteXattr(ino Ino, name string, e, prev cow.Epoch, older bool) {
	b.deleteVersion(xattrKey(ino, name), e, prev, older)
}

// XattrKeyOf returns the key of an extended attribute, for Older and Versions.
func XattrKeyOf(ino Ino, name string) Key { return xattrKey(ino, name) }

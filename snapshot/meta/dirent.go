package meta

import (
	"github.com/snapfs/snapfs/cow"
)

// Dirent is one directory entry. Type holds the S_IFMT bits. Cookie is its place in the directory's order.
type Dirent struct {
	Name   string
	Ino    Ino
	Type   uint32
	Cookie uint64
}

// Dirent returns the entry name of directory parent as of epoch at and the epoch in which it was written: 0 if there was none.
func (d *DB) Dirent(parent Ino, name string, at cow.Epoch) (ent Dirent, e cow.Epoch, err error) {
	ent.Name, ent.Cookie = name, d.cookie(name)
	e, err = d.newest(d.direntKey(parent, name), at, func(v []byte) (err error) {
		ent.Ino, ent.Type, err = decodeDirent(v)
		return err
	})
	return ent, e, err
}

// ReadDir visits the entries of directory parent as of epoch at with Cookie > after, in the order of cookies, until visit
// returns false.
func (d *DB) ReadDir(parent Ino, at cow.Epoch, after uint64, visit func(Dirent) bool) error {
	from, to := key2(kindDirent, uint64(parent), after+1), key1(kindDirent, uint64(parent)+1)
	return d.visitVersions(from, to, at, func(k Key, v []byte) (bool, error) {
		ino, typ, err := decodeDirent(v)
		if err != nil {
			return false, err
		}
		return visit(Dirent{Name: k.Name(), Ino: ino, Type: typ, Cookie: k.cookie()}), nil
	})
}

// PutDirent makes name of directory parent lead to ino, in epoch e. prev is the epoch of the entry it replaces, 0 if there is none.
func (b *Batch) PutDirent(parent Ino, name string, ino Ino, typ uint32, e, prev cow.Epoch) {
	b.putVersion(b.d.direntKey(parent, name), e, prev, encodeDirent(ino, typ))
}

// DeleteDirent removes an entry in epoch e; prev and older as for DeleteInode.
func (b *Batch) DeleteDirent(parent Ino, name string, e, prev cow.Epoch, older bool) {
	b.deleteVersion(b.d.direntKey(parent, name), e, prev, older)
}

// DirentKeyOf returns the key of a directory entry, for Older and Versions.
func (d *DB) DirentKeyOf(parent Ino, name string) Key { return d.direntKey(parent, name) }

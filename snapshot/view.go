package snapshot

import (
	"io"
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Dirent is one directory entry. Cookie orders the entries of a directory, is stable while names come and go,
// and is >= 16 and < 1<<63.
type Dirent = meta.Dirent

// View is a readable tree: the live one (*Live), or one frozen epoch (*Frozen). Errors wrap a syscall.Errno where the
// cause is the caller's (ENOENT, ENOTDIR, ENODATA, ...).
type View interface {
	Lookup(parent Ino, name string) (Attr, error)
	Stat(ino Ino) (Attr, error)
	Parent(dir Ino) (Ino, error)
	// ReadDir calls visit for entries with Cookie > after, in cookie order, without "." and "..", until it returns false.
	ReadDir(dir Ino, after uint64, visit func(Dirent) bool) error
	Readlink(ino Ino) (string, error)
	Xattr(ino Ino, name string) ([]byte, error)
	Xattrs(ino Ino) ([]string, error)
	// Open opens the bytes of a regular file for reading.
	Open(ino Ino) (Content, error)
}

// Content is an open file of a view.
type Content interface {
	ReadAt(b []byte, off int64) (int, error) // as io.ReaderAt
	SeekExtent(off int64, hole bool) (int64, error)
	Size() int64
	Close() error
}

var (
	_ View    = (*Live)(nil)
	_ View    = (*Frozen)(nil)
	_ Content = (*Handle)(nil)
	_ Content = (*frozenContent)(nil)
)

// tree reads the namespace as of an epoch; the live tree and the frozen ones differ in that number and in where
// inodes come from.
type tree struct {
	db    *meta.DB
	at    cow.Epoch
	inode func(Ino) (meta.Inode, error) // ENOENT if there is none
}

// frozenTree reads the tree as it was when epoch e was closed.
func frozenTree(db *meta.DB, e cow.Epoch) tree {
	t := tree{db: db, at: e}
	t.inode = func(ino Ino) (meta.Inode, error) {
		rec, found, err := db.Inode(ino, e)
		if err == nil && found == 0 {
			err = &opError{"find", ino, "", syscall.ENOENT}
		}
		return rec, err
	}
	return t
}

func (t *tree) Lookup(parent Ino, name string) (Attr, error) {
	if len(name) > maxName {
		return Attr{}, &opError{"look up", parent, name, syscall.ENAMETOOLONG}
	}
	ent, found, err := t.db.Dirent(parent, name, t.at)
	if err != nil {
		return Attr{}, err
	}
	if found == 0 {
		if err := t.needDir("look up in", parent); err != nil {
			return Attr{}, err
		}
		return Attr{}, &opError{"look up", parent, name, syscall.ENOENT}
	}
	return t.Stat(ent.Ino)
}

func (t *tree) Stat(ino Ino) (Attr, error) {
	rec, err := t.inode(ino)
	if err != nil {
		return Attr{}, err
	}
	return attrOf(ino, &rec), nil
}

func (t *tree) Parent(dir Ino) (Ino, error) {
	rec, err := t.inode(dir)
	if err == nil && !isDir(rec.Mode) {
		err = &opError{"find the parent of", dir, "", syscall.ENOTDIR}
	}
	return rec.Parent, err
}

func (t *tree) needDir(op string, ino Ino) error {
	rec, err := t.inode(ino)
	if err == nil && !isDir(rec.Mode) {
		err = &opError{op, ino, "", syscall.ENOTDIR}
	}
	return err
}

func (t *tree) ReadDir(dir Ino, after uint64, visit func(Dirent) bool) error {
	if err := t.needDir("read directory", dir); err != nil {
		return err
	}
	return t.db.ReadDir(dir, t.at, after, visit)
}

func (t *tree) Readlink(ino Ino) (string, error) {
	rec, err := t.inode(ino)
	if err == nil && rec.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		err = &opError{"read link", ino, "", syscall.EINVAL}
	}
	return rec.Target, err
}

func (t *tree) Xattr(ino Ino, name string) ([]byte, error) {
	value, found, err := t.db.Xattr(ino, name, t.at)
	if err == nil && found == 0 {
		err = noXattr("get attribute", ino, name)
	}
	return value, err
}

func (t *tree) Xattrs(ino Ino) (names []string, err error) {
	err = t.db.Xattrs(ino, t.at, func(name string) bool {
		names = append(names, name)
		return true
	})
	return names, err
}

// regular returns the record of a regular file that is to be opened.
func (t *tree) regular(ino Ino) (meta.Inode, error) {
	rec, err := t.inode(ino)
	switch {
	case err != nil:
		return rec, err
	case isDir(rec.Mode):
		return rec, &opError{"open", ino, "", syscall.EISDIR}
	case !isRegular(rec.Mode):
		return rec, &opError{"open", ino, "", syscall.EINVAL}
	}
	return rec, nil
}

// seekEmpty is SeekExtent of a file of size bytes that has no content: all of it is a hole.
func seekEmpty(size, off int64, hole bool) (int64, error) {
	if off < 0 || off >= size || !hole {
		return 0, syscall.ENXIO
	}
	return off, nil
}

// readEmpty is ReadAt of a file without content.
func readEmpty(b []byte, size, off int64) (int, error) {
	if off < 0 {
		return 0, syscall.EINVAL
	}
	n := max(0, min(int64(len(b)), size-off))
	clear(b[:n])
	if n < int64(len(b)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

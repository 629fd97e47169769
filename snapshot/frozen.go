package snapshot

import (
	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Frozen is the tree as it was when a snapshot was taken (I3). It implements View. Release must be called once.
type Frozen struct {
	tree
	pool    *cow.Pool
	release func()
}

// newFrozen returns the view of snapshot e; release is called when it is given back.
func newFrozen(db *meta.DB, pool *cow.Pool, e cow.Epoch, release func()) *Frozen {
	return &Frozen{tree: frozenTree(db, e), pool: pool, release: release}
}

// Epoch returns the epoch of the view.
func (f *Frozen) Epoch() cow.Epoch { return f.at }

// Release gives the view back: its snapshot may be deleted for good. Files opened through it stay readable until they are closed only
// if the view is kept as long.
func (f *Frozen) Release() { f.release() }

// Open opens the bytes of a regular file for reading.
func (f *Frozen) Open(ino Ino) (Content, error) {
	rec, err := f.regular(ino)
	if err != nil {
		return nil, err
	}
	c := &frozenContent{size: rec.Size}
	if rec.Content != 0 {
		if c.file, err = f.pool.OpenFrozen(rec.Content, f.at, rec.Size); err != nil {
			return nil, &opError{"open", ino, "", err}
		}
	}
	return c, nil
}

// frozenContent is an open file of a frozen tree; file is nil if it never got bytes.
type frozenContent struct {
	file *cow.Frozen
	size int64
}

func (c *frozenContent) Size() int64 { return c.size }

func (c *frozenContent) ReadAt(b []byte, off int64) (int, error) {
	if c.file == nil {
		return readEmpty(b, c.size, off)
	}
	return c.file.ReadAt(b, off)
}

func (c *frozenContent) SeekExtent(off int64, hole bool) (int64, error) {
	if c.file == nil {
		return seekEmpty(c.size, off, hole)
	}
	return c.file.SeekExtent(off, hole)
}

func (c *frozenContent) Close() error {
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}

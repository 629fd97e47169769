package meta

import (
	"encoding/binary"
	"fmt"
	"sync"
	"syscall"

	"github.com/snapfs/snapfs/cow"
)

// block is how many numbers a counter takes at once: one synced write per block.
const block = 4096

// counter hands out numbers that are never handed out again, whatever crash comes between: the bound on disk is always ahead of
// what is out, and it is raised, synced, before the first number of a block is given away.
type counter struct {
	mark  string
	limit uint64

	mu    sync.Mutex
	next  uint64 // GUARDED_BY mu
	bound uint64 // on disk; INVARIANT: next <= bound; GUARDED_BY mu
}

func (d *DB) loadCounter(c *counter, start uint64) error {
	v, ok, err := d.mark(c.mark)
	if err != nil {
		return err
	}
	c.next, c.bound = start, start
	if ok {
		if len(v) != 8 {
			return damaged("mark "+c.mark, v)
		}
		c.next = binary.BigEndian.Uint64(v)
		c.bound = c.next
	}
	return nil
}

// take returns the next number. It waits for the disk once per block.
func (d *DB) take(c *counter) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next >= c.limit {
		return 0, fmt.Errorf("meta: no more numbers of %s: %w", c.mark, syscall.ENOSPC)
	}
	if c.next == c.bound {
		if err := d.raise(c, c.bound+block); err != nil {
			return 0, err
		}
	}
	n := c.next
	c.next++
	return n, nil
}

func (d *DB) raise(c *counter, bound uint64) error {
	b := d.NewBatch()
	b.setMark(c.mark, binary.BigEndian.AppendUint64(nil, bound))
	if _, err := b.Commit(true); err != nil {
		return err
	}
	c.bound = bound
	return nil
}

// settle gives back the numbers of the block that were not handed out. Nobody may take one afterwards.
func (d *DB) settle(c *counter) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return d.raise(c, c.next)
}

// NextIno returns a new inode number. It may wait for the disk.
func (d *DB) NextIno() (Ino, error) {
	n, err := d.take(&d.inos)
	return Ino(n), err
}

// NextContent returns a new content id. It may wait for the disk.
func (d *DB) NextContent() (cow.ID, error) {
	n, err := d.take(&d.contents)
	return cow.ID(n), err
}

// ContentBound returns the id that NextContent hands out next.
func (d *DB) ContentBound() cow.ID {
	d.contents.mu.Lock()
	defer d.contents.mu.Unlock()
	return cow.ID(d.contents.next)
}

// AtLeast sees to it that no number below the given ones is handed out from now on, and reports whether that changed anything.
func (d *DB) AtLeast(ino Ino, content cow.ID) (changed bool, err error) {
	for _, c := range []struct {
		counter *counter
		n       uint64
	}{{&d.inos, uint64(ino)}, {&d.contents, uint64(content)}} {
		raised, err := d.skipTo(c.counter, c.n)
		if err != nil {
			return changed, err
		}
		changed = changed || raised
	}
	return changed, nil
}

func (d *DB) skipTo(c *counter, n uint64) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n <= c.next {
		return false, nil
	}
	if n > c.bound {
		if err := d.raise(c, n); err != nil {
			return false, err
		}
	}
	c.next = n
	return true, nil
}

// Epoch returns the recorded current epoch, 0 in a new store.
func (d *DB) Epoch() (cow.Epoch, error) {
	v, ok, err := d.mark(markEpoch)
	if err != nil || !ok {
		return 0, err
	}
	if len(v) != 8 {
		return 0, damaged("mark "+markEpoch, v)
	}
	return cow.Epoch(binary.BigEndian.Uint64(v)), nil
}

// SetEpoch records the current epoch.
func (b *Batch) SetEpoch(e cow.Epoch) {
	b.setMark(markEpoch, binary.BigEndian.AppendUint64(nil, uint64(e)))
}

// Clean tells whether the last shutdown was an orderly one, and if so whether the length of every base file was known then.
func (d *DB) Clean() (clean, measured bool, err error) {
	v, ok, err := d.mark(markClean)
	return ok, len(v) == 1 && v[0] == lengthMeasured, err
}

// SetClean sets the mark of an orderly shutdown; measured says that the length of every base file is known.
func (b *Batch) SetClean(measured bool) {
	var v []byte
	if measured {
		v = []byte{lengthMeasured}
	}
	b.setMark(markClean, v)
}

// RemoveClean removes that mark.
func (b *Batch) RemoveClean() { b.delete(markKey(markClean)) }

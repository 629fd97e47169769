package cow

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Origin is what CopyFrom copies: a live content or a frozen one, of the same pool.
type Origin interface {
	io.ReaderAt
	bytesOf() *content
	// inBase returns how many of the bytes [off, off+n) are in the base file from off on, and may be copied from there while
	// flushing and change of the content are held. A count of saves goes with it: it holds only while that has not changed
	// and, for a frozen content, no capture holds the content.
	inBase(off, n int64) (length int64, saves uint64, err error)
}

func (f *File) bytesOf() *content   { return f.c }
func (f *Frozen) bytesOf() *content { return f.c }

// A copy is made in steps, so that neither content is held for long.
const (
	copyStep   = 8 << 20 // within the kernel
	copyBuffer = 1 << 20 // through memory
)

// CopyFrom copies bytes of src from offset from on to off, extending the file as needed, and returns how many: at most n, but maybe
// fewer, 0 only at the end of src. What lies in base files on both sides, and needs no undo page, is cloned where the store's
// file system can, else copied by the kernel; the rest goes through memory. Errors are those of ReadAt and of WriteAt.
func (f *File) CopyFrom(src Origin, from, off, n int64, record Record) (int64, error) {
	c := f.c
	if from < 0 || off < 0 || n < 0 {
		return 0, unix.EINVAL
	}
	n = min(n, copyStep)
	if off > MaxSize-n {
		return 0, unix.EFBIG
	}
	if n == 0 {
		return 0, nil
	}
	if err := c.failed(); err != nil {
		return 0, err
	}
	if err := c.intact(off + n); err != nil {
		return 0, pathError("copy to", c.id, err)
	}
	done, err := c.copyBase(src, from, off, n, record)
	if err != nil {
		return 0, pathError("copy to", c.id, err)
	}
	if done > 0 {
		return done, nil
	}
	b := make([]byte, min(n, copyBuffer))
	k, err := src.ReadAt(b, from)
	if k == 0 {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return 0, err
	}
	k, err = f.WriteAt(b[:k], off, record)
	return int64(k), err
}

// copyBase copies from base file to base file, as many bytes from the start of the range as can be: 0 if there are none.
//
// While it holds both contents, and is registered with the era, nobody changes what it reads: writes of the source wait, flushes
// and saves too, and the writer of a later freeze does not begin before the era has settled. What is private is
// left out, also where the snapshot that is read does not have it: its room in the base file is promised (I6), and would be
// shared.
func (c *content) copyBase(src Origin, from, off, n int64, record Record) (done int64, err error) {
	o := src.bytesOf()
	unlock := lockBoth(c, o)
	defer unlock()
	if err := c.uncover(off + n); err != nil {
		return 0, err
	}
	length, saves, err := src.inBase(from, n)
	if err != nil || length == 0 {
		return 0, err
	}
	first, last := pagesOf(off, length)
	epoch, _, err := c.know(first, last)
	if err != nil {
		return 0, err
	}
	if c.p.Enter() == epoch && o.unchanged(src, saves) {
		length = c.ownedFrom(off, length)
	} else {
		length = 0 // a freeze came in between: the next step may be luckier
	}
	if length == 0 {
		c.p.Leave()
		return 0, nil
	}
	era := c.p.begin()
	c.p.Leave()
	done, err = c.copyRange(o, from, off, length)
	era.inflight.Done()
	if err != nil || done == 0 {
		return 0, err
	}
	return done, c.recordSize(off+done, func(size int64) int64 { return max(size, off+done) }, record)
}

// lockBoth takes flushing and change of two contents, which may be one, in an order that is the same for all.
func lockBoth(a, b *content) (unlock func()) {
	if a.id > b.id {
		a, b = b, a
	}
	a.flushing.Lock()
	if a != b {
		b.flushing.Lock()
	}
	a.change.Lock()
	if a != b {
		b.change.Lock()
	}
	return func() {
		if a != b {
			b.change.Unlock()
		}
		a.change.Unlock()
		if a != b {
			b.flushing.Unlock()
		}
		a.flushing.Unlock()
	}
}

// unchanged reports whether what inBase said still holds. REQUIRES gate.
func (c *content) unchanged(src Origin, saves uint64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if f, frozen := src.(*Frozen); frozen && (len(c.captures) > 0 || c.p.lostSnapshot(f.s) != nil) {
		return false
	}
	return c.saves.Load() == saves
}

// inBase stops at the first private page.
func (f *File) inBase(off, n int64) (length int64, saves uint64, err error) {
	c := f.c
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.cleanFrom(off, min(n, c.size-off)), c.saves.Load(), nil
}

// inBase stops at the first page that an undo log has, or that is private in the live content.
func (f *Frozen) inBase(off, n int64) (length int64, saves uint64, err error) {
	c := f.c
	if n = min(n, f.size-off); n <= 0 {
		return 0, 0, nil
	}
	c.p.waitSettled(f.s)
	saves = c.saves.Load()
	first, last := pagesOf(off, n)
	saved, err := c.p.savedPages(c.id, first, last, f.s)
	if err != nil {
		return 0, 0, err
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return min(before(saved, off, n), c.cleanFrom(off, n)), saves, nil
}

// cleanFrom returns how many of the bytes [off, off+n) come before the first private page. REQUIRES c.mu.
func (c *content) cleanFrom(off, n int64) int64 {
	if n <= 0 {
		return 0
	}
	return before(c.private, off, n)
}

// before returns how many of the bytes [off, off+n) come before the first page of the set; n > 0.
func before(set pageSet, off, n int64) int64 {
	if set.isEmpty() {
		return n
	}
	it := set.bits.Iterator()
	it.AdvanceIfNeeded(uint64(off / PageSize))
	if !it.HasNext() {
		return n
	}
	return max(0, min(n, int64(it.PeekNext())*PageSize-off))
}

// ownedFrom returns how many of the bytes [off, off+n) come before the first page that is protected or private. The content is
// locked; REQUIRES gate, know.
func (c *content) ownedFrom(off, n int64) int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n = c.cleanFrom(off, n)
	if n == 0 {
		return 0
	}
	first, last := pagesOf(off, n)
	for page := first; page <= last && page < pagesUpTo(c.reach); page++ {
		if c.protected(page) {
			return max(0, int64(page)*PageSize-off)
		}
	}
	return n
}

// copyRange has the kernel copy between base files; where it cannot it returns 0. The caller has registered with the era.
func (c *content) copyRange(o *content, from, off, n int64) (done int64, err error) {
	if err := c.p.opt.Hook(Op{Kind: OpCopyBase, ID: c.id, Off: off, Len: n}); err != nil {
		return 0, err
	}
	defer c.p.dirty.mark(c.id) // not before: a sync in between would not cover what is copied
	c.unsolid()                // a clone shares its blocks, on both sides
	o.unsolid()
	err = c.p.base.use(o.id, func(in int) error {
		return c.p.base.use(c.id, func(out int) error {
			return ignoringEINTR(func() error {
				src, dst := from, off
				k, err := unix.CopyFileRange(in, &src, out, &dst, int(n), 0)
				done = int64(max(k, 0))
				return err
			})
		})
	})
	if err == nil {
		return done, nil
	}
	c.measureBase()
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return 0, nil
	}
	return 0, fmt.Errorf("copy %d bytes of content %d at %d: %w", n, o.id, from, noEntryIsEIO(err))
}

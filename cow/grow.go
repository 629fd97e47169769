package cow

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// lockToGrow takes c.change, after zeroing what a content that is end bytes long would uncover of the stale bytes
// behind its present end.
func (c *content) lockToGrow(end int64) error {
	c.change.Lock()
	if !c.stale(end) {
		return nil
	}
	c.change.Unlock()
	c.flushing.Lock()
	defer c.flushing.Unlock()
	c.change.Lock()
	if err := c.uncover(end); err != nil {
		c.change.Unlock()
		return err
	}
	return nil
}

// uncoverStep is how many stale bytes are zeroed at least, in bytes: it bounds how often a file that is cut and then appended to is synced.
const uncoverStep = 256 << 10

// uncover zeroes the stale bytes between the end of the content and end, and makes that durable: the length that uncovers them may
// become durable at any time after it is recorded, and must not bring them back. REQUIRES c.flushing, c.change.
func (c *content) uncover(end int64) error {
	if !c.stale(end) {
		return nil
	}
	c.mu.RLock()
	from := max(c.size, c.blank)
	to := min(max(end, from+uncoverStep), c.baseEnd())
	c.mu.RUnlock()
	if from < to {
		// The record of the shorter length comes first: a power loss must not leave the longer one with its bytes gone.
		if err := c.p.opt.Index.Sync(); err != nil {
			return err
		}
		c.p.dirty.bare(c.id)
		if err := c.zero(from, to, true, c.zeroStale); err != nil {
			return err
		}
	}
	if err := c.syncBytes(); err != nil {
		return err
	}
	c.mu.Lock()
	c.blank = max(c.blank, to)
	c.mu.Unlock()
	return nil
}

// stale reports whether the base file has bytes between the end of the content and end, gets them from a writer, or would have them again
// after a power loss. REQUIRES c.change.
func (c *content) stale(end int64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	from := max(c.size, c.blank)
	return end > from && c.baseEnd() > from || end > c.size && c.p.dirty.isBare(c.id)
}

// Truncate makes the file size bytes long. What is cut off stays in the base file while snapshots read it. (The
// namespace gives the inode a new content where size is 0: then nothing has to be zeroed later.)
func (f *File) Truncate(size int64, record Record) error {
	c := f.c
	if size < 0 {
		return unix.EINVAL
	}
	if size > MaxSize {
		return unix.EFBIG
	}
	if err := c.failed(); err != nil {
		return err
	}
	if size > f.Size() {
		if err := c.intact(size); err != nil {
			return pathError("extend", c.id, err)
		}
	}
	if err := c.lockToGrow(size); err != nil {
		return pathError("extend", c.id, err)
	}
	defer c.change.Unlock()
	epoch := c.p.Enter()
	defer c.p.Leave()
	c.mu.Lock()
	c.roll(epoch)
	reach := c.reach
	c.mu.Unlock()
	if err := record(epoch, size, reach); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if size < c.size {
		c.blank = 0
		err = c.cut(size)
	}
	c.size = size
	if c.baseLen > size {
		c.p.addTail(c)
	}
	return err
}

// cut drops the private bytes beyond size. REQUIRES gate shared, c.change, c.mu exclusive.
func (c *content) cut(size int64) error {
	if c.private.isEmpty() {
		return nil
	}
	if err := c.clearPrivateTail(size); err != nil {
		return err
	}
	if last := c.private.maximum(); last >= pagesUpTo(size) {
		beyond := c.private.within(pagesUpTo(size), last)
		gone := beyond.clone()
		gone.and(c.fresh)
		c.unpromise(gone)
		c.drop(beyond)
		c.p.clean(c)
	}
	return nil
}

// clearPrivateTail zeroes what a private page holds behind the end of a content of the given size: it would show after
// an extension, which looks for stale bytes in the base file only. REQUIRES gate shared, c.change, c.mu exclusive.
func (c *content) clearPrivateTail(size int64) error {
	page, k := uint64(size/PageSize), size%PageSize
	if k == 0 || !c.private.contains(page) {
		return nil
	}
	return c.storePage(page, int(k), zeros[k:])
}

var zeros [PageSize]byte

// Zero makes [off, off+n) read as zeros. punch gives the space back, else it stays or becomes allocated. Unless keepSize, the file
// becomes at least off+n long.
func (f *File) Zero(off, n int64, punch, keepSize bool, record Record) error {
	c := f.c
	if off < 0 || n <= 0 {
		return unix.EINVAL
	}
	if off > MaxSize-n {
		return unix.EFBIG
	}
	if err := c.failed(); err != nil {
		return err
	}
	end := off + n
	if err := c.intact(end); err != nil {
		return pathError("zero", c.id, err)
	}
	grow := int64(0)
	if !keepSize {
		grow = end
	}
	if err := c.lockToZero(grow); err != nil {
		return pathError("zero", c.id, err)
	}
	defer c.flushing.Unlock()
	defer c.change.Unlock()
	c.mu.RLock()
	to := min(end, c.size) // what is stale behind it is zeroed when it is uncovered
	c.mu.RUnlock()
	if off < to {
		if err := c.zero(off, to, punch, c.zeroPart); err != nil {
			return pathError("zero", c.id, err)
		}
	}
	if !punch {
		if err := c.allocate(off, n); err != nil {
			return pathError("allocate", c.id, err)
		}
	}
	return c.recordSize(0, func(size int64) int64 { return max(size, grow) }, record)
}

// lockToZero takes c.flushing and c.change; if end is beyond the content's end, stale bytes up to it are zeroed.
func (c *content) lockToZero(end int64) error {
	c.flushing.Lock()
	c.change.Lock()
	if err := c.uncover(end); err != nil {
		c.change.Unlock()
		c.flushing.Unlock()
		return err
	}
	return nil
}

// Allocate reserves disk space for [off, off+n). Unless keepSize, the file becomes at least off+n long.
func (f *File) Allocate(off, n int64, keepSize bool, record Record) error {
	c := f.c
	if off < 0 || n <= 0 {
		return unix.EINVAL
	}
	if off > MaxSize-n {
		return unix.EFBIG
	}
	if err := c.intact(off + n); err != nil {
		return pathError("allocate", c.id, err)
	}
	grow := int64(0)
	if !keepSize {
		grow = off + n
	}
	if err := c.lockToGrow(grow); err != nil {
		return pathError("extend", c.id, err)
	}
	defer c.change.Unlock()
	if err := c.allocate(off, n); err != nil {
		return pathError("allocate", c.id, err)
	}
	return c.recordSize(0, func(size int64) int64 { return max(size, grow) }, record)
}

// allocate gives base blocks to [off, off+n) without changing a byte or the base file's length.
func (c *content) allocate(off, n int64) error {
	if err := c.p.opt.Hook(Op{Kind: OpReserve, ID: c.id, Off: off, Len: n}); err != nil {
		return err
	}
	defer c.p.dirty.mark(c.id) // after it, for the sync that covers it
	return c.p.base.use(c.id, func(fd int) error {
		return ignoringEINTR(func() error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n) })
	})
}

// zero makes [from, to) read as zeros without changing the length: parts of pages by part, whole pages by saving what
// snapshots need and punching the base file. REQUIRES c.flushing, c.change.
func (c *content) zero(from, to int64, punch bool, part func(from, to int64) error) error {
	first, end := pagesUpTo(from), uint64(to/PageSize)
	c.mu.RLock()
	if to >= max(c.size, c.baseLen) {
		end = pagesUpTo(to) // nothing of the last page is beyond to
	}
	c.mu.RUnlock()
	if first >= end { // nothing but parts of one or two pages
		return part(from, to)
	}
	if err := part(from, int64(first)*PageSize); err != nil {
		return err
	}
	for first < end {
		last, err := c.zeroPages(first, end-1, punch)
		if err != nil {
			return err
		}
		first = last + 1
	}
	return part(pageEnd(end-1), to)
}

// zeroPart writes zeros over [from, to), which lies in at most two pages, where it is not zero anyhow.
func (c *content) zeroPart(from, to int64) error {
	for from < to {
		next := min(to, pageEnd(uint64(from/PageSize)))
		hole, err := c.isHole(uint64(from / PageSize))
		if err != nil {
			return err
		}
		if !hole {
			st, err := c.store(make([]byte, next-from), from)
			if err != nil {
				return err
			}
			c.mu.Lock()
			c.lengthened(st.baseEnd)
			c.mu.Unlock()
		}
		from = next
	}
	return nil
}

// isHole reports whether nothing was ever written to a page: it is zero. REQUIRES c.change.
func (c *content) isHole(page uint64) (bool, error) {
	c.mu.RLock()
	private := c.private.contains(page)
	c.mu.RUnlock()
	if private {
		return false, nil
	}
	data, _, err := c.dataPages(page, page)
	return data.isEmpty(), err
}

// zeroStale zeroes [from, to), which lies in at most two pages, of what is stale behind the end of the content. It does not
// leave that to a private page: the length that uncovers it survives a crash, so the zeros must, too.
func (c *content) zeroStale(from, to int64) error {
	for from < to {
		next := min(to, pageEnd(uint64(from/PageSize)))
		if err := c.zeroStalePage(from, next); err != nil {
			return err
		}
		from = next
	}
	return nil
}

// zeroStalePage is zeroStale within one page.
func (c *content) zeroStalePage(from, to int64) error {
	p, page := c.p, uint64(from/PageSize)
	return c.rewrite(func(newest, epoch Epoch) error {
		var pages pageSet
		pages.add(page)
		if err := p.save(c, pages, newest, epoch); err != nil {
			return err
		}
		head, err := c.privateHead(page, int(from%PageSize))
		if err != nil {
			return err
		}
		return c.writeBase(append(head, zeros[:to-from]...), from-int64(len(head)))
	}, func() error {
		c.owned.add(page)
		c.lengthened(to) // where a writer that has failed was to make it so long
		if c.private.contains(page) {
			return c.storePage(page, int(from%PageSize), zeros[:to-from])
		}
		return nil
	})
}

// privateHead returns the first n bytes of a private page, nothing if it is not private: so that what a crash leaves of the page
// is not older in its first part than in the rest.
func (c *content) privateHead(page uint64, n int) ([]byte, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if n == 0 || !c.private.contains(page) {
		return nil, nil
	}
	head := make([]byte, n, PageSize)
	return head, c.windows[page/windowPages].load(page, 0, head)
}

// rewrite changes protected pages in the base file: change saves and changes them, outside the gate; after is memory
// work, under c.mu. Where a freeze comes in between, its capture may hold older bytes of those pages and its writer
// would write them again: then all is done once more after it. REQUIRES c.flushing, c.change.
func (c *content) rewrite(change func(newest, epoch Epoch) error, after func() error) error {
	p := c.p
	for {
		p.waitCaptures(c)
		epoch, newest := p.Enter(), p.newestSnapshot()
		c.mu.Lock()
		c.roll(epoch)
		held := len(c.captures) > 0
		c.mu.Unlock()
		if held {
			p.Leave()
			continue
		}
		era := p.begin()
		p.Leave()
		err := change(newest, epoch)
		era.inflight.Done()
		if err != nil {
			return err
		}
		if p.Enter() == epoch {
			c.mu.Lock()
			err := after()
			c.mu.Unlock()
			p.Leave()
			return err
		}
		p.Leave()
	}
}

// zeroStep is how many pages are saved and punched at a time.
const zeroStep = 4096

// zeroPages makes pages [first, upTo] zero, as many as are done at a time, and returns the last that is.
func (c *content) zeroPages(first, upTo uint64, punch bool) (last uint64, err error) {
	err = c.rewrite(func(newest, epoch Epoch) (err error) {
		last, err = c.punchSaved(first, upTo, punch, newest, epoch)
		return err
	}, func() error {
		if gone := c.private.within(first, last); !gone.isEmpty() {
			c.unpromise(gone)
			c.drop(gone)
			c.p.clean(c)
		}
		return nil
	})
	return last, err
}

// punchSaved saves the protected data pages of [first, upTo] and punches the base file there. It stops early after
// zeroStep pages of data, and returns the last page that is done.
func (c *content) punchSaved(first, upTo uint64, punch bool, newest, epoch Epoch) (last uint64, err error) {
	data, last, err := c.dataPages(first, upTo)
	if err != nil {
		return 0, err
	}
	if err := c.p.save(c, data, newest, epoch); err != nil {
		return 0, err
	}
	off, n := int64(first)*PageSize, pageEnd(last)-int64(first)*PageSize
	if err := c.p.opt.Hook(Op{Kind: OpPunchBase, ID: c.id, Off: off, Len: n}); err != nil {
		return 0, err
	}
	c.unsolid()
	defer c.p.dirty.mark(c.id) // after it, for the sync that covers it
	err = c.p.base.use(c.id, func(fd int) error { return zeroRange(fd, off, n, punch) })
	if err != nil {
		return 0, fmt.Errorf("zero pages %d to %d: %w", first, last, err)
	}
	return last, nil
}

// zeroRange zeroes a range of the base file without changing its length, by the best means the file system has. What lies behind
// the end of the base file is zero: a content may be longer than the store's file system lets a file be.
func zeroRange(fd int, off, n int64, punch bool) error {
	size, err := fileSize(fd)
	if err != nil || off >= size {
		return err
	}
	n = min(n, pageEnd(uint64(size-1)/PageSize)-off)
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
	if punch {
		mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	}
	err = ignoringEINTR(func() error { return unix.Fallocate(fd, mode, off, n) })
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	for end := min(off+n, size); off < end; {
		k := min(end-off, PageSize)
		if err := pwritevAll(fd, [][]byte{zeros[:k]}, off); err != nil {
			return err
		}
		off += k
	}
	return nil
}

// dataPages returns the pages of [first, upTo] that are not in a hole of the base file, at most zeroStep of them, and
// the last page that was looked at.
func (c *content) dataPages(first, upTo uint64) (data pageSet, last uint64, err error) {
	last = upTo
	err = c.p.base.use(c.id, func(fd int) error {
		return eachData(fd, first, upTo, func(a, b uint64) bool {
			b = min(b, a+zeroStep-uint64(data.len()))
			data.addRange(a, b)
			if data.len() < zeroStep {
				return true
			}
			last = b - 1
			return false
		})
	})
	return data, last, err
}

// unsolid forgets that the base file has no holes. REQUIRES c.change, so that nobody finds out otherwise before they are there.
func (c *content) unsolid() {
	c.mu.Lock()
	c.solid = span{}
	c.mu.Unlock()
}

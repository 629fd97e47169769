package cow

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// WriteAt writes data at off, extending the file as needed. Owned pages are written in place; protected pages go into
// the mapping, where they stay private until they are flushed. Errors: EINVAL, EFBIG, ENOSPC (nothing was accepted
// that may not fit, I6), EIO.
func (f *File) WriteAt(data []byte, off int64, record Record) (int, error) {
	c := f.c
	if off < 0 {
		return 0, unix.EINVAL
	}
	if off > MaxSize-int64(len(data)) {
		return 0, unix.EFBIG
	}
	if len(data) == 0 {
		return 0, nil
	}
	if err := c.failed(); err != nil {
		return 0, err
	}
	if err := c.intact(off + int64(len(data))); err != nil {
		return 0, pathError("write", c.id, err)
	}
	for done := 0; done < len(data); {
		n := min(len(data)-done, (mostWrite-1)*PageSize)
		if err := c.writeSome(data[done:done+n], off+int64(done), record); err != nil {
			if done > 0 {
				return done, nil // as write(2): what was written counts
			}
			return 0, pathError("write", c.id, err)
		}
		done += n
	}
	return len(data), nil
}

// writeSome writes at most mostWrite pages.
func (c *content) writeSome(data []byte, off int64, record Record) error {
	end := off + int64(len(data))
	if err := c.p.room.wait(); err != nil {
		return err
	}
	if err := c.lockToGrow(end); err != nil {
		return err
	}
	defer c.change.Unlock()
	for {
		st, err := c.store(data, off)
		if err != nil {
			c.takeBack()
			return err
		}
		if again, err := c.recordWrite(st, end, record); !again {
			return err
		}
	}
}

// stored is what store did.
type stored struct {
	baseEnd int64 // the last byte written to the base file
	epoch   Epoch // in which something went into private pages; 0: nothing did
}

// store puts data in place: into the mapping where pages are protected or private, else into the base file. REQUIRES c.change; the stale
// bytes that this uncovers are zeroed.
func (c *content) store(data []byte, off int64) (st stored, err error) {
	first, last := pagesOf(off, int64(len(data)))
	log, promised, err := c.reserve(first, last, off+int64(len(data)))
	if err != nil {
		return st, err
	}
	// The gate is held from here on: reserve has entered it.
	c.mu.Lock()
	owned, used, err := c.storePrivate(data, off)
	c.mu.Unlock()
	if log != nil {
		log.settle(promised - used)
	}
	if all := (span{off, int64(len(data))}); len(owned) != 1 || owned[0] != all {
		st.epoch = c.p.era.epoch
	}
	if err != nil || len(owned) == 0 {
		c.p.Leave()
		return st, err
	}
	era := c.p.begin()
	c.p.Leave()
	defer era.inflight.Done()
	for _, s := range owned {
		if err := c.writeBase(data[s.off-off:][:s.n], s.off); err != nil {
			return st, err
		}
		st.baseEnd = s.off + s.n
	}
	return st, nil
}

// writeBase writes owned bytes in place. The caller has registered with the era.
func (c *content) writeBase(data []byte, off int64) error {
	err := c.p.opt.Hook(Op{Kind: OpWriteBase, ID: c.id, Off: off, Len: int64(len(data))})
	if err == nil {
		err = c.p.base.use(c.id, func(fd int) error { return pwritevAll(fd, [][]byte{data}, off) })
	}
	c.p.dirty.mark(c.id)
	if err != nil {
		c.measureBase()
	}
	return err
}

// measureBase asks how long the base file is after a write that failed, of which a part may be there: stale if it is beyond
// the content's length.
func (c *content) measureBase() {
	_ = c.p.base.use(c.id, func(fd int) error {
		size, err := fileSize(fd)
		if err == nil {
			c.mu.Lock()
			c.lengthened(size)
			c.blank = 0
			c.mu.Unlock()
		}
		return err
	})
}

// reserve prepares a write of pages [first, last] that ends at byte end: ownership is known, the base file reaches to
// the pages that will be mapped, and room is promised for what becomes private (I6). On success the gate is held
// shared, in the epoch that all of it holds for, and log (if not nil) has promised the pages returned.
func (c *content) reserve(first, last uint64, end int64) (log *undoLog, promised int64, err error) {
	for {
		epoch, newest, err := c.know(first, last)
		if err != nil {
			return nil, 0, err
		}
		fresh := c.becoming(first, last)
		log, promised = nil, int64(len(fresh))
		if promised > 0 {
			if log, err = c.promise(fresh, newest, epoch, end); err != nil {
				return nil, 0, err
			}
		}
		if c.p.Enter() == epoch {
			return log, promised, nil
		}
		c.p.Leave()
		if log != nil {
			log.settle(promised)
		}
	}
}

// know brings the content into the present epoch and learns which of its pages [first, last] are saved. It holds for the epoch
// returned, of which newest is the newest snapshot. REQUIRES c.change.
func (c *content) know(first, last uint64) (epoch, newest Epoch, err error) {
	epoch = c.p.Enter()
	newest = c.p.newestSnapshot()
	c.mu.Lock()
	c.roll(epoch)
	c.mu.Unlock()
	c.p.Leave()
	return epoch, newest, c.learn(first, last)
}

// promise reserves room in the undo log for pages, and room for their base blocks.
func (c *content) promise(pages []uint64, newest, epoch Epoch, end int64) (*undoLog, error) {
	log, err := c.p.logFor(newest, epoch)
	if err != nil || log == nil {
		return nil, err
	}
	n := int64(len(pages))
	if err := log.promise(n); err != nil {
		return nil, err
	}
	if err := c.cover(pages[0], pages[n-1], end); err != nil {
		log.settle(n)
		return nil, err
	}
	return log, nil
}

// becoming returns the pages of [first, last] that a write would make fresh and that need room in the undo log.
func (c *content) becoming(first, last uint64) []uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []uint64
	for p := first; p <= last && p < pagesUpTo(c.reach); p++ {
		if c.protected(p) && !c.fresh.contains(p) {
			out = append(out, p)
		}
	}
	return out
}

// cover makes pages [first, last] of the base file safe to map and, later, to write: the file reaches to the last of
// them (a mapping beyond the end is SIGBUS), and holes in them have disk space, as have blocks that are shared with another file
// (I6). end is the end of the write.
func (c *content) cover(first, last uint64, end int64) error {
	c.mu.RLock()
	need := min(pageEnd(last), max(c.size, end))
	have := c.baseEnd() // never less than there is: that would cut off what a writer wrote
	c.mu.RUnlock()
	from, length := int64(first)*PageSize, pageEnd(last)-int64(first)*PageSize
	return c.p.base.use(c.id, func(fd int) error {
		if have < need {
			// Longer by zeros: nothing that a snapshot reads changes.
			if err := unix.Ftruncate(fd, need); err != nil {
				return fmt.Errorf("extend: %w", err)
			}
			c.p.dirty.mark(c.id)
			c.mu.Lock()
			c.lengthened(need)
			c.mu.Unlock()
		}
		if c.isSolid(fd, from, min(from+length, need)) {
			return nil
		}
		if err := c.p.opt.Hook(Op{Kind: OpReserve, ID: c.id, Off: from, Len: length}); err != nil {
			return err
		}
		return c.p.base.allocate(fd, from, length)
	})
}

// isSolid reports whether bytes [from, to) of the base file have no hole that the file system tells of, and are shared with no other
// file. The answer of the file system is kept: some walk through all pages for it.
func (c *content) isSolid(fd int, from, to int64) bool {
	c.mu.RLock()
	solid := c.solid
	c.mu.RUnlock()
	if solid.off <= from && to <= solid.off+solid.n {
		return true
	}
	for _, start := range []int64{0, from} {
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return true
		}
		if end >= to && c.p.base.clones {
			end = unsharedUpTo(fd, start, end)
		}
		if end >= to {
			c.mu.Lock()
			c.solid = span{start, end - start}
			c.mu.Unlock()
			return true
		}
	}
	return false
}

// storePrivate stores the parts of data that lie in protected or private pages into the mapping, and returns the spans
// that are owned, and how many pages needed the room promised. REQUIRES gate shared, c.mu exclusive, reserve.
func (c *content) storePrivate(data []byte, off int64) (owned []span, used int64, err error) {
	end := off + int64(len(data))
	for at := off; at < end; {
		page := uint64(at / PageSize)
		next := min(end, pageEnd(page))
		private, protected := c.private.contains(page), c.protected(page)
		switch k := len(owned); {
		case private || protected:
			if protected && !c.fresh.contains(page) {
				used++
			}
			if err := c.storePage(page, int(at%PageSize), data[at-off:next-off]); err != nil {
				return nil, used, err
			}
		case k > 0 && owned[k-1].off+owned[k-1].n == at:
			owned[k-1].n += next - at
		default:
			owned = append(owned, span{at, next - at})
		}
		at = next
	}
	return owned, used, nil
}

// storePage stores data into byte from of a page, which becomes private and fresh. REQUIRES c.mu exclusive.
func (c *content) storePage(page uint64, from int, data []byte) error {
	w, err := c.windowFor(page)
	if err != nil {
		return err
	}
	if err := w.store(page, from, data); err != nil {
		return err
	}
	if c.private.checkedAdd(page) {
		w.private++
		c.p.took(1)
		c.p.stats.firstWrites.Add(1)
		c.p.soil(c)
	}
	c.fresh.add(page)
	return nil
}

// recordSize ends a change: the content's length becomes what size makes of the present one, and the namespace records
// it in the epoch that is current now. baseEnd is how far the base file was written. REQUIRES c.change.
func (c *content) recordSize(baseEnd int64, size func(int64) int64, record Record) error {
	epoch := c.p.Enter()
	defer c.p.Leave()
	c.mu.Lock()
	c.lengthened(baseEnd)
	c.mu.Unlock()
	return c.recordIn(epoch, size, record)
}

// recordIn is recordSize inside the gate, in the given epoch. REQUIRES gate shared, c.change.
func (c *content) recordIn(epoch Epoch, size func(int64) int64, record Record) error {
	c.mu.Lock()
	c.roll(epoch)
	to, reach := size(c.size), c.reach
	c.mu.Unlock()
	err := record(epoch, to, reach)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		return errors.Join(err, c.clearBehind())
	}
	c.size = to
	return nil
}

// recordWrite records a write up to end. again says that it has to be stored once more: a freeze came after it had put bytes behind the end into
// private pages. The capture has those pages and ends where the content ended, so its writer does not write what is behind, and
// its end drops them. REQUIRES c.change.
func (c *content) recordWrite(st stored, end int64, record Record) (again bool, err error) {
	epoch := c.p.Enter()
	defer c.p.Leave()
	c.mu.Lock()
	c.lengthened(st.baseEnd)
	again = st.epoch != 0 && st.epoch != epoch && end > c.size
	c.mu.Unlock()
	if again {
		return true, nil
	}
	return false, c.recordIn(epoch, func(size int64) int64 { return max(size, end) }, record)
}

// takeBack ends a write that failed before its length was recorded. REQUIRES c.change.
func (c *content) takeBack() {
	c.p.Enter()
	defer c.p.Leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.clearBehind() // the write has failed in any case
}

// clearBehind forgets what a change that failed may have put behind the end: in private pages it is gone, in the base file it counts as
// stale. REQUIRES gate shared, c.change, c.mu exclusive.
func (c *content) clearBehind() error {
	c.blank = 0
	return c.cut(c.size)
}

// unpromise gives back the room that was promised for fresh pages which will never be saved. REQUIRES gate.
func (c *content) unpromise(pages pageSet) {
	if a := c.p.active.Load(); a != nil && a.epoch == c.p.era.epoch {
		a.log.settle(pages.len())
	}
}

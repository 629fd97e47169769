package cow

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// SeekExtent finds the next data (hole=false) or hole (hole=true) at or after off, like SEEK_DATA and SEEK_HOLE; the end of the file
// counts as a hole. ENXIO if off is at or past the end, or no data follows.
func (f *File) SeekExtent(off int64, hole bool) (int64, error) {
	c := f.c
	c.mu.RLock()
	size, private := c.size, c.private.clone()
	c.mu.RUnlock()
	return seekExtent(off, size, hole, func(first, last uint64) (pageSet, error) {
		var data pageSet
		err := c.p.baseData(c.id, first, last, &data)
		if err == nil {
			err = c.addLost(first, last, &data)
		}
		data.or(private.within(first, last))
		return data, err
	})
}

// SeekExtent is File.SeekExtent for the frozen bytes.
func (f *Frozen) SeekExtent(off int64, hole bool) (int64, error) {
	return seekExtent(off, f.size, hole, f.data)
}

// extentStep is how many pages are looked at at once, to begin with: 256 MiB. Where nothing was found twice as many come next, or
// the end of a long sparse content would never be reached.
const extentStep = 1 << 16

// seekExtent searches a content of the given size, of which data says which pages of [first, last] may be other than zero.
func seekExtent(off, size int64, hole bool, data func(first, last uint64) (pageSet, error)) (int64, error) {
	if off < 0 || off >= size {
		return 0, unix.ENXIO
	}
	end := pagesUpTo(size)
	for first, step := uint64(off/PageSize), uint64(extentStep); first < end; first, step = first+step, step*2 {
		last := min(first+step, end) - 1
		set, err := data(first, last)
		if err != nil {
			return 0, err
		}
		if page, ok := firstIn(set, first, last, !hole); ok {
			return min(max(off, int64(page)*PageSize), size), nil
		}
	}
	if hole {
		return size, nil
	}
	return 0, unix.ENXIO
}

// firstIn returns the first page of [first, last] that is (in) or is not (!in) in the set.
func firstIn(set pageSet, first, last uint64, in bool) (uint64, bool) {
	if in {
		if set.isEmpty() {
			return 0, false
		}
		return set.minimum(), true
	}
	for _, r := range set.runs(1 << 62) {
		if r.first > first {
			break
		}
		first = r.first + r.n
	}
	return first, first <= last
}

// baseData adds to data the pages of [first, last] that are not in a hole of the base file.
func (p *Pool) baseData(id ID, first, last uint64, data *pageSet) error {
	err := p.base.use(id, func(fd int) error {
		return eachData(fd, first, last, func(a, b uint64) bool {
			data.addRange(a, b)
			return true
		})
	})
	if err != nil {
		return pathError("find data in", id, noEntryIsEIO(err))
	}
	return nil
}

// held returns the pages of [first, last] that captures hold for the snapshot.
func (f *Frozen) held(first, last uint64) (pages pageSet) {
	c := f.c
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, cp := range c.captures {
		if cp.epoch <= f.s {
			pages.or(cp.byID[c.id].pages.within(first, last))
		}
	}
	return pages
}

// eachData calls visit for every span [a, b) of the pages [first, last] of a file that is not a hole, until it returns false.
func eachData(fd int, first, last uint64, visit func(a, b uint64) bool) error {
	for next := first; next <= last; {
		from, err := unix.Seek(fd, int64(next)*PageSize, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		to, err := unix.Seek(fd, from, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		a, b := uint64(from/PageSize), min(pagesUpTo(to), last+1)
		if a >= b || !visit(a, b) {
			return nil
		}
		next = b
	}
	return nil
}

// data returns the pages of [first, last] that may be other than zero in the snapshot. Believed only if nothing was saved
// meanwhile, and the snapshot has not failed, as in readChunk.
func (f *Frozen) data(first, last uint64) (pageSet, error) {
	c := f.c
	for {
		c.p.waitSettled(f.s)
		saves := c.saves.Load()
		var data, saved, zero pageSet
		err := c.p.opt.Index.Find(c.id, first, last, f.s, func(pl Place) bool {
			if saved.checkedAdd(pl.Page) && pl.Zero {
				zero.add(pl.Page)
			}
			return true
		})
		if err != nil {
			return data, fmt.Errorf("look up content %d in snapshot %d: %w", c.id, f.s, err)
		}
		held := f.held(first, last) // before the base file: what is not held any more is in it
		if err := c.p.baseData(c.id, first, last, &data); err != nil {
			return data, err
		}
		if err := c.addLost(first, last, &data); err != nil {
			return data, err
		}
		data.or(saved)
		data.andNot(zero)
		data.or(held)
		if c.saves.Load() == saves {
			return data, c.p.lostSnapshot(f.s)
		}
	}
}

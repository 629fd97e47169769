package cow

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Frozen is a content as it was at the freeze of one snapshot. Methods are safe for concurrent use.
type Frozen struct {
	c    *content
	s    Epoch
	size int64
}

// OpenFrozen opens content id as it was at the freeze of snapshot s, when it was size bytes long.
//
// I3: the record of s may be seen a moment before its freeze is over. By the gate we wait for that: then its capture is known, and its era
// closed. The caller is not inside the gate.
func (p *Pool) OpenFrozen(id ID, s Epoch, size int64) (*Frozen, error) {
	p.Enter()
	p.Leave()
	return &Frozen{c: p.get(id), s: s, size: size}, nil
}

// Size returns the length in bytes.
func (f *Frozen) Size() int64 { return f.size }

// Close ends the use of it.
func (f *Frozen) Close() error {
	f.c.p.put(f.c)
	return nil
}

// source says where a page of a snapshot is. The zero value means the base file.
type source struct {
	place *Place
	cp    *capture
	part  *part
}

// ReadAt reads like io.ReaderAt. Damaged undo pages, lost base pages and pages of a snapshot that failed are errors
// (EIO, ESTALE), never wrong bytes.
func (f *Frozen) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	n := int(max(0, min(int64(len(b)), f.size-off)))
	for done := 0; done < n; {
		k := min(n-done, placeChunk*PageSize-int((off+int64(done))%(placeChunk*PageSize)))
		if err := f.readChunk(b[done:done+k], off+int64(done)); err != nil {
			return done, err
		}
		done += k
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// readChunk reads a range within one chunk of pages.
//
// I3: a page that no undo log has is read from the base file, and believed only if no page of the content was saved
// since before the logs were asked: whoever overwrites a page in the base file has saved it, and counted that, before. Nor is it believed
// if the capture of s failed meanwhile: its pages never come to the base file.
func (f *Frozen) readChunk(b []byte, off int64) error {
	c := f.c
	for {
		c.p.waitSettled(f.s)
		saves := c.saves.Load()
		sources, err := f.resolve(pagesOf(off, int64(len(b))))
		if err != nil {
			return err
		}
		wait, err := f.read(b, off, sources)
		if err != nil {
			return err
		}
		if wait != nil {
			<-wait.done
			continue
		}
		if c.saves.Load() == saves {
			return c.p.lostSnapshot(f.s)
		}
	}
}

// resolve finds the sources of pages [first, last], in the order that the package documentation gives.
func (f *Frozen) resolve(first, last uint64) ([]source, error) {
	c := f.c
	sources := make([]source, last-first+1)
	err := c.p.opt.Index.Find(c.id, first, last, f.s, func(pl Place) bool {
		if s := &sources[pl.Page-first]; s.place == nil { // the oldest log comes first
			s.place = &pl
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("look up content %d in snapshot %d: %w", c.id, f.s, err)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if len(c.captures) == 0 {
		return sources, nil
	}
	for i := range sources {
		if sources[i].place == nil {
			sources[i].cp, sources[i].part = c.holder(f.s, first+uint64(i))
		}
	}
	return sources, nil
}

// read fills b from the sources of its pages. A capture that it returns must end before the read is tried again.
func (f *Frozen) read(b []byte, off int64, sources []source) (wait *capture, err error) {
	p, end := f.c.p, off+int64(len(b))
	page := make([]byte, PageSize)
	for i := 0; i < len(sources); {
		first := uint64(off/PageSize) + uint64(i)
		from, to := max(off, int64(first)*PageSize), min(end, pageEnd(first))
		s := sources[i]
		i++
		switch {
		case s.place != nil:
			if err := p.readPlace(*s.place, page); err != nil {
				return nil, err
			}
			copy(b[from-off:to-off], page[from%PageSize:])
		case s.cp != nil:
			ok, err := s.cp.read(s.part, first, int(from%PageSize), b[from-off:to-off])
			if err != nil {
				return nil, err
			}
			if !ok {
				return s.cp, nil
			}
		default: // the base file, as many pages at once as there are
			for i < len(sources) && sources[i] == (source{}) {
				to = min(end, pageEnd(uint64(off/PageSize)+uint64(i)))
				i++
			}
			if err := f.c.readBase(b[from-off:to-off], from); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

func (p *Pool) readPlace(pl Place, b []byte) error {
	l := p.log(pl.Log)
	if l == nil {
		return fmt.Errorf("undo log %d, which holds page %d of content %d, is missing: %w: %w", pl.Log, pl.Page, pl.ID, ErrDamaged, unix.EIO)
	}
	return l.readPage(pl, b)
}

// lostSnapshot returns an error if the capture of s was not written.
func (p *Pool) lostSnapshot(s Epoch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost[s] {
		return fmt.Errorf("snapshot %d failed: %w", s, unix.ESTALE)
	}
	return nil
}

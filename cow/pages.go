package cow

import (
	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// pageSet is a set of page numbers of one content. The zero value is the empty set, which takes no memory: most contents that are
// open have no private page.
type pageSet struct{ bits *roaring64.Bitmap }

func (s *pageSet) own() *roaring64.Bitmap {
	if s.bits == nil {
		s.bits = roaring64.New()
	}
	return s.bits
}

func (s *pageSet) add(page uint64)             { s.own().Add(page) }
func (s *pageSet) checkedAdd(page uint64) bool { return s.own().CheckedAdd(page) }
func (s *pageSet) addRange(from, to uint64)    { s.own().AddRange(from, to) } // [from, to)
func (s *pageSet) removeRange(from, to uint64) { s.own().RemoveRange(from, to) }
func (s pageSet) contains(page uint64) bool    { return s.bits != nil && s.bits.Contains(page) }
func (s pageSet) isEmpty() bool                { return s.bits == nil || s.bits.IsEmpty() }

// minimum and maximum are of a set that is not empty.
func (s pageSet) minimum() uint64 { return s.bits.Minimum() }
func (s pageSet) maximum() uint64 { return s.bits.Maximum() }

func (s *pageSet) or(t pageSet) {
	if !t.isEmpty() {
		s.own().Or(t.bits)
	}
}

func (s *pageSet) and(t pageSet) {
	if t.isEmpty() {
		*s = pageSet{}
	} else if !s.isEmpty() {
		s.bits.And(t.bits)
	}
}

func (s *pageSet) andNot(t pageSet) {
	if !s.isEmpty() && !t.isEmpty() {
		s.bits.AndNot(t.bits)
	}
}

func (s pageSet) clone() pageSet {
	if s.isEmpty() {
		return pageSet{}
	}
	return pageSet{s.bits.Clone()}
}

func (s pageSet) len() int64 {
	if s.bits == nil {
		return 0
	}
	return int64(s.bits.GetCardinality())
}

// run is a span of consecutive pages.
type run struct{ first, n uint64 }

// runs returns the set as spans in ascending order, none longer than most pages.
func (s pageSet) runs(most uint64) []run {
	if s.isEmpty() {
		return nil
	}
	var out []run
	it := s.bits.ManyIterator()
	var buf [512]uint64
	for {
		n := it.NextMany(buf[:])
		if n == 0 {
			return out
		}
		for _, p := range buf[:n] {
			if k := len(out); k > 0 && out[k-1].first+out[k-1].n == p && out[k-1].n < most {
				out[k-1].n++
				continue
			}
			out = append(out, run{p, 1})
		}
	}
}

// within returns the members of the set in [first, last].
func (s pageSet) within(first, last uint64) pageSet {
	var out pageSet
	if s.isEmpty() {
		return out
	}
	it := s.bits.Iterator() // the span may be of any length, the set is small
	for it.AdvanceIfNeeded(first); it.HasNext() && it.PeekNext() <= last; {
		out.add(it.Next())
	}
	return out
}

// pagesOf returns the first and the last page that [off, off+n) touches; n > 0.
func pagesOf(off, n int64) (first, last uint64) {
	return uint64(off / PageSize), uint64((off + n - 1) / PageSize)
}

// lastPage is the number of the last page that there can be. It has one byte less than the others.
const lastPage = MaxSize / PageSize

// pageEnd returns the offset behind a page.
func pageEnd(page uint64) int64 {
	if page >= lastPage {
		return MaxSize
	}
	return int64(page+1) * PageSize
}

// pagesUpTo returns how many pages size bytes occupy.
func pagesUpTo(size int64) uint64 {
	if size <= 0 {
		return 0
	}
	return uint64(size-1)/PageSize + 1
}

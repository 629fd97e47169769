package cow

import (
	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// pageSet is a set of page numbers of one content.
type pageSet struct{ *roaring64.Bitmap }

func newPageSet() pageSet { return pageSet{roaring64.New()} }

func (s pageSet) clone() pageSet { return pageSet{s.Bitmap.Clone()} }

func (s pageSet) len() int64 { return int64(s.GetCardinality()) }

// run is a span of consecutive pages.
type run struct{ first, n uint64 }

// runs returns the set as spans in ascending order, none longer than most pages.
func (s pageSet) runs(most uint64) []run {
	var out []run
	it := s.ManyIterator()
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
	out := newPageSet()
	it := s.Iterator() // the span may be of any length, the set is small
	for it.AdvanceIfNeeded(first); it.HasNext() && it.PeekNext() <= last; {
		out.Add(it.Next())
	}
	return out
}

// pagesOf returns the first and the last page that [off, off+n) touches; n > 0.
func pagesOf(off, n int64) (first, last uint64) {
	return uint64(off / PageSize), uint64((off + n - 1) / PageSize)
}

// pageEnd returns the offset behind a page.
func pageEnd(page uint64) int64 { return int64(page+1) * PageSize }

// pagesUpTo returns how many pages size bytes occupy.
func pagesUpTo(size int64) uint64 {
	if size <= 0 {
		return 0
	}
	return uint64(size-1)/PageSize + 1
}

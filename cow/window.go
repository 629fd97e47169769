package cow

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// windowPages is how many pages of a base file one mapping covers at most: 32 MiB. Mappings cost the fork even when
// they are clean, so there are few large ones, only where a page is private, and they end with the reach of the file.
const windowPages = 8192

// window is a MAP_PRIVATE mapping of pages [first, first+pages) of a base file. What is written through it stays out
// of the file; the rest of it follows the file.
type window struct {
	first, pages uint64
	addr         uintptr
	private      int // private pages in it
}

// windowFor returns the window of page, mapped at least up to it. REQUIRES c.mu, c.change.
func (c *content) windowFor(page uint64) (*window, error) {
	k := page / windowPages
	first := k * windowPages
	w := c.windows[k]
	if w != nil && page < w.first+w.pages {
		return w, nil
	}
	if page == lastPage {
		return nil, fmt.Errorf("the last page of all cannot be mapped: %w", unix.EFBIG)
	}
	pages := min(windowPages, max(pagesUpTo(c.reach), page+1)-first, lastPage-first)
	if w != nil {
		addr, err := remap(w.addr, w.pages*PageSize, pages*PageSize)
		if err != nil {
			return nil, fmt.Errorf("map more of content %d: %w", c.id, err)
		}
		w.addr, w.pages = addr, pages
		return w, nil
	}
	var addr uintptr
	err := c.p.base.use(c.id, func(fd int) (err error) {
		addr, err = mapPrivate(fd, int64(first)*PageSize, pages*PageSize)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("map content %d: %w", c.id, err)
	}
	w = &window{first: first, pages: pages, addr: addr}
	if c.windows == nil {
		c.windows = map[uint64]*window{}
	}
	c.windows[k] = w
	c.p.room.mapped(1)
	return w, nil
}

// at returns the address of page.
func (w *window) at(page uint64) uintptr { return w.addr + uintptr(page-w.first)*PageSize }

// store copies data to byte from of a page. A bad page of the base file is EIO (the kernel must read the page to copy it).
func (w *window) store(page uint64, from int, data []byte) error {
	if err := copyIn(w.at(page)+uintptr(from), data); err != nil {
		return fmt.Errorf("write private page %d: %w", page, unix.EIO)
	}
	return nil
}

// load copies from byte from of a page into b.
func (w *window) load(page uint64, from int, b []byte) error {
	if err := copyOut(b, w.at(page)+uintptr(from)); err != nil {
		return fmt.Errorf("read private page %d: %w", page, unix.EIO)
	}
	return nil
}

// drop forgets the private bytes of pages (all private, all mapped): the mapping shows the base file again. Windows
// without private pages are unmapped. REQUIRES c.mu exclusive.
func (c *content) drop(pages pageSet) {
	for _, r := range pages.runs(windowPages) {
		for first, end := r.first, r.first+r.n; first < end; {
			w := c.windows[first/windowPages]
			n := min(end, w.first+w.pages) - first
			forget(w.at(first), n*PageSize)
			w.private -= int(n)
			if w.private == 0 {
				unmap(w.addr, w.pages*PageSize)
				delete(c.windows, w.first/windowPages)
				c.p.room.mapped(-1)
			}
			first += n
		}
	}
	c.private.andNot(pages)
	c.fresh.andNot(pages)
	c.p.gave(pages.len())
}

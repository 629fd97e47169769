package cow

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// flushSlice is how many pages are written back while writers of the same content wait: 4 MiB of page cache work.
const flushSlice = 1024

// flush brings the content's private pages into its base file. It never overtakes an outstanding capture of the same
// content: it waits for that to be written. (Not synced: that is File.Sync.)
func (c *content) flush() error {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	for {
		c.p.waitCaptures(c)
		again, err := c.flushOnce()
		if err != nil || !again {
			return err
		}
	}
}

// flushOnce flushes what is private now; again says that a freeze came in between. REQUIRES c.flushing.
func (c *content) flushOnce() (again bool, err error) {
	p := c.p
	epoch := p.Enter()
	c.mu.Lock()
	c.roll(epoch)
	held := len(c.captures) > 0
	pages := c.private.clone()
	c.mu.Unlock()
	newest := p.newestSnapshot()
	if held || pages.isEmpty() {
		p.Leave()
		return held, nil
	}
	era := p.begin()
	p.Leave()
	// Writers go on meanwhile: what is protected in the base file nobody but us may touch.
	err = p.saveGroup([]flushing{{c, pages}}, newest, epoch, true)
	era.inflight.Done()
	if err != nil {
		return false, err
	}
	return c.writeBackAll(pages, epoch)
}

// writeBackAll writes back pages that were saved in the given epoch, slice by slice. REQUIRES c.flushing.
func (c *content) writeBackAll(pages pageSet, epoch Epoch) (again bool, err error) {
	runs := pages.runs(flushSlice)
	for len(runs) > 0 {
		k, n := 0, uint64(0)
		for k < len(runs) && n+runs[k].n <= flushSlice {
			n += runs[k].n
			k++
		}
		if again, err := c.writeBack(runs[:k], epoch); again || err != nil {
			return again, err
		}
		runs = runs[k:]
	}
	return false, nil
}

// writeBack writes those pages of runs that are still private into the base file, where the save of the given epoch made
// them owned, and drops them. again says that a freeze came first: then they are in a capture. REQUIRES c.flushing.
func (c *content) writeBack(runs []run, epoch Epoch) (again bool, err error) {
	p := c.p
	c.change.Lock()
	defer c.change.Unlock()
	if p.Enter() != epoch {
		p.Leave()
		return true, nil
	}
	c.mu.RLock()
	var pages pageSet
	for _, r := range runs {
		pages.addRange(r.first, r.first+r.n)
	}
	pages.and(c.private)
	steps := c.stepsOf(pages, c.size)
	c.mu.RUnlock()
	era := p.begin()
	p.Leave()
	err = p.writeSteps(c.id, steps)
	era.inflight.Done() // before the gate: see begin
	c.measureBase()     // also where it failed, and where a freeze came first
	if err != nil {
		return false, err
	}
	if p.Enter() != epoch {
		p.Leave()
		return true, nil // written with what the capture holds: harmless, but not ours to drop
	}
	defer p.Leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owned.or(pages)
	c.drop(pages)
	p.clean(c)
	p.stats.flushedPages.Add(pages.len())
	return false, nil
}

// step is one write of mapped memory into a base file: what plans are made of. All in bytes.
type step struct {
	addr   uintptr
	off, n int64
}

// stepsOf returns the writes that bring pages into the base file of a content that is size bytes long.
// REQUIRES c.mu; the addresses hold as long as the pages are not dropped and no window moves.
func (c *content) stepsOf(pages pageSet, size int64) []step {
	return stepsIn(pages, size, func(k uint64) window { return *c.windows[k] })
}

// stepsIn returns the writes of pages, cut off at size; in tells where the window with number k is mapped.
func stepsIn(pages pageSet, size int64, in func(k uint64) window) []step {
	var out []step
	for _, r := range pages.runs(windowPages) {
		for first, end := r.first, r.first+r.n; first < end; {
			w := in(first / windowPages)
			n := min(end, w.first+w.pages) - first
			off := int64(first) * PageSize
			if length := min(int64(n)*PageSize, size-off); length > 0 {
				out = append(out, step{w.at(first), off, length})
			}
			first += n
		}
	}
	return out
}

// writeSteps executes steps in process. The caller has registered with the era.
func (p *Pool) writeSteps(id ID, steps []step) error {
	defer p.dirty.mark(id)
	return p.base.use(id, func(fd int) error {
		for _, s := range steps {
			err := p.opt.Hook(Op{Kind: OpWriteBase, ID: id, Off: s.off, Len: s.n})
			if err == nil {
				err = pwriteFrom(fd, s.addr, s.n, s.off)
			}
			if errors.Is(err, unix.EFAULT) { // the mapping lost its page: never write what is not there
				err = unix.EIO
			}
			if err != nil {
				return pathError("write back", id, err)
			}
		}
		return nil
	})
}

// Flush flushes every content that has private pages, also those that a capture holds, once that is written. It returns the first
// error.
func (p *Pool) Flush() error { return p.flushAll(true) }

// flushAll is Flush; without held it leaves out the contents that a capture holds: the background does not wait for a writer while the
// pages of other contents grow old. The next round finds them.
func (p *Pool) flushAll(held bool) error {
	contents := p.private()
	defer p.putAll(contents)
	left, err := p.flushGroups(contents)
	for _, c := range left {
		if !held && c.isHeld() {
			continue
		}
		if e := c.flush(); err == nil {
			err = e
		}
	}
	return err
}

// isHeld reports whether a capture of the content is outstanding.
func (c *content) isHeld() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.captures) > 0
}

// flushGroups flushes contents in groups, and returns those that must be flushed by themselves.
func (p *Pool) flushGroups(contents []*content) (left []*content, err error) {
	for rest := contents; len(rest) > 0; {
		n := groupOf(rest)
		some, e := p.flushGroup(rest[:n])
		left = append(left, some...)
		if err == nil {
			err = e
		}
		rest = rest[n:]
	}
	return left, err
}

func (p *Pool) putAll(contents []*content) {
	for _, c := range contents {
		p.put(c)
	}
}

// A group is flushed with one sync of the undo log: many contents, or few with many pages.
const (
	groupContents = 256
	groupPages    = 16384
)

// groupOf returns how many of the contents make a group; at least one.
func groupOf(contents []*content) int {
	pages := int64(0)
	for i, c := range contents[:min(len(contents), groupContents)] {
		c.mu.RLock()
		pages += c.private.len()
		c.mu.RUnlock()
		if pages > groupPages {
			return i + 1
		}
	}
	return min(len(contents), groupContents)
}

// flushing is a content whose flush is under way, with the pages that are being saved.
type flushing struct {
	c     *content
	pages pageSet
}

// flushGroup flushes contents that nobody else is flushing, and that no capture holds, with one save. It returns those that are
// left to be flushed by themselves.
func (p *Pool) flushGroup(contents []*content) (left []*content, err error) {
	var group []flushing
	for _, c := range contents {
		if c.flushing.TryLock() { // never waits while it holds others of its kind
			group = append(group, flushing{c: c})
			defer c.flushing.Unlock()
		} else {
			left = append(left, c)
		}
	}
	epoch, newest := p.Enter(), p.newestSnapshot()
	for i := range group {
		if f := &group[i]; !f.begin(epoch) {
			left = append(left, f.c)
		}
	}
	era := p.begin()
	p.Leave()
	err = p.saveGroup(group, newest, epoch, true)
	era.inflight.Done()
	if err != nil { // one of them may have a bad page: the others shall not suffer
		return contents, nil
	}
	for _, f := range group {
		again, e := f.c.writeBackAll(f.pages, epoch)
		if again {
			left = append(left, f.c)
		}
		if e != nil && err == nil {
			err = e
		}
	}
	return left, err
}

// begin notes what is private now; false if a capture holds the content. REQUIRES gate, c.flushing.
func (f *flushing) begin(epoch Epoch) bool {
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roll(epoch)
	f.pages = pageSet{}
	if len(c.captures) > 0 {
		return false
	}
	f.pages = c.private.clone()
	return true
}

// private returns the contents that have private pages, each with a reference.
func (p *Pool) private() []*content {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*content, 0, len(p.withPages))
	for c := range p.withPages {
		c.refs++
		out = append(out, c)
	}
	return out
}

// flusher flushes in the background: every interval, and when asked to because memory fills (I12).
func (p *Pool) flusher() {
	defer p.stopped.Done()
	tick := time.NewTicker(p.opt.FlushInterval)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		case <-p.kick:
		}
		p.flushBackground()
	}
}

// flushBackground flushes once and tells waiting writers how it went.
func (p *Pool) flushBackground() {
	err := p.flushAll(false)
	if err != nil {
		p.stats.flushFailures.Add(1)
		p.opt.Report(fmt.Errorf("flush in the background: %w", err))
	}
	p.room.flushed(err)
}

// kickFlusher asks for a flush now.
func (p *Pool) kickFlusher() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

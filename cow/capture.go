package cow

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// capture is what was private at a freeze, held by a forked child until its writer has brought it into the base files.
type capture struct {
	epoch  Epoch // the snapshot
	newest Epoch // the newest snapshot before it: what the writer overwrites is saved for that one
	parts  []*part
	byID   map[ID]*part
	child  *writer
	plan   *plan

	before *capture      // the capture that goes first, if it was outstanding at the freeze
	done   chan struct{} // closed when it is no longer outstanding

	mu      sync.RWMutex // held shared while the child's memory is read: the child is not reaped meanwhile
	exited  bool         // the child's memory is gone. GUARDED_BY mu
	written bool         // the base files hold what the child held. GUARDED_BY mu
}

// part is what a capture holds of one content.
type part struct {
	c       *content
	pages   pageSet           // what this capture is the newest to hold, and its writer writes
	held    pageSet           // everything that was private: what the child could write
	size    int64             // length of the content at the freeze
	windows map[uint64]window // where the pages are in the child
}

// newPart captures c as it is. Its pages are c.fresh itself, which install takes from the content: a freeze of many
// contents copies as little as it can. REQUIRES gate exclusive, c.mu.
func newPart(c *content) *part {
	x := &part{c: c, pages: c.fresh, size: c.size, windows: make(map[uint64]window, len(c.windows))}
	if len(c.captures) > 0 { // one of them may fail and leave its pages to us
		x.held = c.private.clone()
	}
	for k, w := range c.windows {
		x.windows[k] = *w
	}
	return x
}

// steps returns the part's writes, with addresses in the child.
func (x *part) steps() []step {
	return stepsIn(x.pages, x.size, func(k uint64) window { return x.windows[k] })
}

// operation is one step of a writer's plan, as the daemon knows it.
type operation struct {
	kind uint64 // planOpen ...
	part *part  // nil for planSyncFS
	step step   // of a planWrite
}

// operations returns what the writer does, in its order: for each content open, write, sync, close; many files are synced all at once
// instead, at the end. It is the one place that says so: the plan has these steps, with these numbers.
func (cp *capture) operations() []operation {
	single := len(cp.parts) <= mostSingle
	var ops []operation
	for _, x := range cp.parts {
		steps := x.steps()
		if len(steps) == 0 {
			continue
		}
		ops = append(ops, operation{kind: planOpen, part: x})
		for _, s := range steps {
			ops = append(ops, operation{planWrite, x, s})
		}
		if single {
			ops = append(ops, operation{kind: planSync, part: x})
		}
		ops = append(ops, operation{kind: planClose, part: x})
	}
	if !single {
		ops = append(ops, operation{kind: planSyncFS})
	}
	return ops
}

// fill writes the plan, and returns how many pages it writes.
func (cp *capture) fill(ops []operation) (pages int64, err error) {
	for _, op := range ops {
		addr := op.step.addr
		if op.kind == planOpen {
			addr, err = cp.plan.path(basePath(op.part.c.id))
		}
		if err == nil {
			err = cp.plan.add(op.kind, addr, op.step.n, op.step.off)
		}
		if err != nil {
			return pages, fmt.Errorf("plan of snapshot %d: %w", cp.epoch, err)
		}
		pages += int64(pagesUpTo(op.step.n))
	}
	return pages, nil
}

// allowed asks the hook about every operation that it is told of, as it cannot be called in the child, and returns how many
// may run, and the error that stopped it.
func allowed(ops []operation, hook func(Op) error) (int, error) {
	for n, op := range ops {
		var err error
		switch op.kind {
		case planWrite:
			err = hook(Op{Kind: OpWriteBase, ID: op.part.c.id, Off: op.step.off, Len: op.step.n})
		case planSync:
			err = hook(Op{Kind: OpSyncBase, ID: op.part.c.id})
		case planSyncFS:
			err = hook(Op{Kind: OpSyncBase})
		}
		if err != nil {
			return n, err
		}
	}
	return len(ops), nil
}

// failedAt makes err final where the operation of the writer that failed was a sync (I11): other bytes than the writer's may be lost,
// and the kernel tells of it once.
func (p *Pool) failedAt(op operation, err error) {
	switch op.kind {
	case planSync:
		_ = op.part.c.fail(err)
	case planSyncFS:
		_ = p.fail(err)
	}
}

// pages returns how many pages the capture holds.
func (cp *capture) pages() int64 {
	n := int64(0)
	for _, x := range cp.parts {
		n += x.pages.len()
	}
	return n
}

// read copies from byte from of a page that the capture holds into b. ok is false where the child's memory cannot be had: it
// has exited, or this system forbids to look into processes. Then the caller waits for the end of the capture.
func (cp *capture) read(x *part, page uint64, from int, b []byte) (ok bool, err error) {
	cp.mu.RLock()
	defer cp.mu.RUnlock()
	if cp.exited {
		return false, nil
	}
	w := x.windows[page/windowPages]
	err = readProcess(cp.child.pid, b, w.at(page)+uintptr(from))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOSYS):
		return false, nil
	default:
		return false, fmt.Errorf("read page %d of content %d from writer %d: %v: %w", page, x.c.id, cp.child.pid, err, unix.EIO)
	}
}

// holder returns the newest capture not newer than s that holds the page and has not been written. REQUIRES c.mu.
func (c *content) holder(s Epoch, page uint64) (*capture, *part) {
	for i := len(c.captures) - 1; i >= 0; i-- {
		cp := c.captures[i]
		if cp.epoch > s {
			continue
		}
		if x := cp.byID[c.id]; x.pages.contains(page) {
			cp.mu.RLock()
			written := cp.written
			cp.mu.RUnlock()
			if written {
				return nil, nil
			}
			return cp, x
		}
	}
	return nil, nil
}

// waitCaptures returns when no capture of c is outstanding. The caller has not registered with the era, nor entered the gate.
func (p *Pool) waitCaptures(c *content) {
	for {
		c.mu.RLock()
		var first *capture
		if len(c.captures) > 0 {
			first = c.captures[0]
		}
		c.mu.RUnlock()
		if first == nil {
			return
		}
		<-first.done
	}
}

// waitAllCaptures returns when no capture is outstanding.
func (p *Pool) waitAllCaptures() {
	for {
		p.mu.Lock()
		var last *capture
		if n := len(p.captures); n > 0 {
			last = p.captures[n-1]
		}
		p.mu.Unlock()
		if last == nil {
			return
		}
		<-last.done
	}
}

// end takes the capture out of use. If its pages were written they are dropped from memory, unless they were written
// again or a later capture holds them; if not, they go back to where the next flush or capture finds them (I7).
func (p *Pool) end(cp *capture, written bool) {
	if !written {
		for _, x := range cp.parts {
			p.dirty.mark(x.c.id) // what the writer wrote is not synced
			x.c.measureBase()
		}
	}
	p.Enter() // pages that change sides must not do so in the middle of a freeze
	defer p.Leave()
	p.mu.Lock()
	p.captures = without(p.captures, cp)
	if !written {
		p.lost[cp.epoch] = true
	}
	p.mu.Unlock()
	for _, x := range cp.parts {
		x.end(cp, written)
		p.put(x.c)
	}
	cp.plan.free()
	close(cp.done)
}

// baseEnd returns how far the base file reaches once the pages are written; 0 if there are none. REQUIRES c.mu.
func (x *part) baseEnd() int64 {
	if x.pages.isEmpty() {
		return 0
	}
	return min(pageEnd(x.pages.maximum()), x.size)
}

func (x *part) end(cp *capture, written bool) {
	c := x.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.captures = without(c.captures, cp)
	if written {
		c.lengthened(x.baseEnd())
	}
	if !written && len(c.captures) > 0 {
		next := c.captures[0].byID[c.id]
		x.pages.and(next.held) // also what was cut off since: the next snapshot has it
		next.pages.or(x.pages)
		return
	}
	x.pages.and(c.private) // the rest was cut off by a truncation
	if !written {
		c.fresh.or(x.pages)
		return
	}
	x.pages.andNot(c.fresh)
	for _, later := range c.captures {
		x.pages.andNot(later.byID[c.id].pages)
	}
	c.drop(x.pages)
	c.p.clean(c)
}

func without(list []*capture, cp *capture) []*capture {
	out := make([]*capture, 0, len(list))
	for _, x := range list {
		if x != cp {
			out = append(out, x)
		}
	}
	return out
}

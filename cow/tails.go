package cow

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// addTail notes that c's base file is longer than the content: it may be cut once the namespace's record of the new
// length is durable, so that a power loss never leaves the old length with the bytes gone. REQUIRES c.mu.
func (p *Pool) addTail(c *content) {
	if c.lost.n > 0 {
		return // it is too short already, and that is not to be forgotten
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.tails[c]; !ok {
		p.tails[c] = struct{}{}
		c.refs++
	}
}

// Tails takes the base files that are longer than their content and any snapshot need, and returns a function that cuts them. It is to be called
// once: with true after what the namespace recorded up to the call of Tails was made durable, and the index, which forgets the known lengths;
// with false if that failed. What is not cut is taken the next time.
func (p *Pool) Tails() (cut func(durable bool) error) {
	p.measuring.Lock()
	defer p.measuring.Unlock()
	tails := p.takeTails()
	if len(tails) == 0 {
		return func(bool) error { return nil }
	}
	ids := make([]ID, len(tails))
	for i, c := range tails {
		ids[i] = c.id
	}
	if err := p.opt.Index.ForgetLengths(ids); err != nil {
		p.endCuts(tails, func(c *content) error { return c.leaveTail() })
		return func(bool) error { return fmt.Errorf("cut base files: %w", err) }
	}
	return func(durable bool) error {
		return p.endCuts(tails, func(c *content) error {
			if !durable {
				return c.leaveTail()
			}
			err := c.cutTail()
			if err != nil {
				_ = c.leaveTail()
			}
			return err
		})
	}
}

// endCuts ends what takeTails has begun, and returns the first error of cut.
func (p *Pool) endCuts(tails []*content, cut func(*content) error) (first error) {
	for _, c := range tails {
		if err := cut(c); err != nil && first == nil {
			first = err
		}
		p.endCut(c)
		p.dirty.grew(c.id)
		p.put(c)
	}
	return first
}

// leaveTail leaves the base file as it is for now.
func (c *content) leaveTail() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.p.addTail(c)
	return nil
}

// takeTails takes the contents whose base files are to be cut; until endCut nobody records their lengths.
func (p *Pool) takeTails() (tails []*content) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.tails {
		c.cuts++
		tails = append(tails, c)
	}
	clear(p.tails)
	return tails
}

func (p *Pool) endCut(c *content) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.cuts--
}

// wasCutAgain reports whether a content may have become shorter since its base file was taken by Tails: what it is cut to now need not be on
// the disk, and any length in between may be. REQUIRES c.change.
func (p *Pool) wasCutAgain(c *content) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, again := p.tails[c]
	return again || c.cuts > 1
}

// cutTail truncates the base file to what the content and the snapshots need, if the content has not become shorter since Tails: then its
// length of that time is on the disk, or a later, greater one.
func (c *content) cutTail() error {
	p := c.p
	c.flushing.Lock()
	defer c.flushing.Unlock()
	c.change.Lock()
	defer c.change.Unlock()
	epoch := p.Enter()
	c.mu.Lock()
	c.roll(epoch)
	need := c.size
	if p.newestSnapshot() != 0 {
		need = max(need, c.reach)
	}
	was := c.baseLen
	later := len(c.captures) > 0 || p.wasCutAgain(c) // a writer needs the file as it is
	todo := was > need && !later && !c.gone.Load()
	if later {
		p.addTail(c)
	}
	var err error
	if todo {
		err = c.cut(c.size) // a mapping must not be touched beyond the end of the base file
	}
	if todo && err == nil {
		c.baseLen = need // before the file is shorter: see readBase
		c.solid = span{}
	}
	c.mu.Unlock()
	if !todo || err != nil {
		p.Leave()
		return err
	}
	era := p.begin()
	p.Leave()
	defer era.inflight.Done()
	err = p.opt.Hook(Op{Kind: OpTruncBase, ID: c.id, Off: need})
	if err == nil {
		err = p.base.use(c.id, func(fd int) error { return unix.Ftruncate(fd, need) })
	}
	p.dirty.mark(c.id)
	p.dirty.bare(c.id)
	if err != nil {
		c.mu.Lock()
		c.baseLen = was
		c.mu.Unlock()
		return pathError("truncate", c.id, err)
	}
	return nil
}

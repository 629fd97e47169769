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

// Tails returns a function that cuts base files which are longer than their content and any snapshot need. Call it
// after having made durable what the namespace recorded up to the call of Tails, and the index: it forgets the known lengths.
func (p *Pool) Tails() (cut func() error) {
	p.measuring.Lock()
	defer p.measuring.Unlock()
	tails := p.takeTails()
	if len(tails) == 0 {
		return func() error { return nil }
	}
	ids, sizes := make([]ID, len(tails)), make([]int64, len(tails))
	for i, c := range tails {
		c.mu.RLock()
		ids[i], sizes[i] = c.id, c.size
		c.mu.RUnlock()
	}
	if err := p.opt.Index.ForgetLengths(ids); err != nil {
		for _, c := range tails {
			p.endCut(c)
			c.mu.Lock()
			p.addTail(c)
			c.mu.Unlock()
			p.put(c)
		}
		return func() error { return fmt.Errorf("cut base files: %w", err) }
	}
	return func() error {
		var first error
		for i, c := range tails {
			if err := c.cutTail(sizes[i]); err != nil && first == nil {
				first = err
			}
			p.endCut(c)
			p.dirty.grew(c.id)
			p.put(c)
		}
		return first
	}
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

// cutTail truncates the base file to what the content and the snapshots need. durable is a length that is on the disk: one that was
// recorded since, and is less, may be lost, and then the bytes up to this one are needed. They go the next time.
func (c *content) cutTail(durable int64) error {
	p := c.p
	c.flushing.Lock()
	defer c.flushing.Unlock()
	c.change.Lock()
	defer c.change.Unlock()
	epoch := p.Enter()
	c.mu.Lock()
	c.roll(epoch)
	need := max(c.size, durable)
	if p.newestSnapshot() != 0 {
		need = max(need, c.reach)
	}
	was := c.baseLen
	held := len(c.captures) > 0
	todo := was > need && !held && !c.gone.Load()
	if held { // its writer needs the file as it is: later
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

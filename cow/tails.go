package cow

import (
	"golang.org/x/sys/unix"
)

// addTail notes that c's base file is longer than the content: it may be cut once the namespace's record of the new
// length is durable, so that a power loss never leaves the old length with the bytes gone. REQUIRES c.mu.
func (p *Pool) addTail(c *content) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.tails[c]; !ok {
		p.tails[c] = struct{}{}
		c.refs++
	}
}

// Tails returns a function that cuts base files which are longer than their content and any snapshot need. Call it
// after having made durable what the namespace recorded up to the call of Tails.
func (p *Pool) Tails() (cut func() error) {
	p.mu.Lock()
	tails := p.tails
	p.tails = map[*content]struct{}{}
	p.mu.Unlock()
	return func() error {
		var first error
		for c := range tails {
			if err := c.cutTail(); err != nil && first == nil {
				first = err
			}
			p.put(c)
		}
		return first
	}
}

// cutTail truncates the base file to what the content and the snapshots need.
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
	todo := was > need && len(c.captures) == 0 && !c.gone.Load()
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

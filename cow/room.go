package cow

import "sync"

// room bounds the private pages of a pool (I12). A flush is asked for at half of the limit; at the limit writers wait
// until a flush or the end of a capture has given pages back, or until flushing has failed.
type room struct {
	kick func() // asks for a flush

	mu     sync.Mutex
	freed  *sync.Cond
	pages  int64 // private pages
	maps   int64 // windows: mappings cost the fork, and a process may have 65,530
	most   int64
	failed error // what the last flush in the background ended with
}

func newRoom(most int64, kick func()) *room {
	r := &room{kick: kick, most: max(most, 2*mostWrite)}
	r.freed = sync.NewCond(&r.mu)
	return r
}

// mostWrite is how many private pages one write may make: it lets a write in that began below the limit.
const mostWrite = 512

// wait returns when there is room for a write. The error is that of a flush which failed to make some.
func (r *room) wait() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.pages+mostWrite > r.most || r.maps > mostMaps {
		if r.failed != nil {
			return r.failed
		}
		r.kick()
		r.freed.Wait()
	}
	return nil
}

// The number of mappings at which a flush is asked for, and at which writers wait for it: 10,000 of them add 3 to 7 ms to a fork.
const (
	flushMaps = 1 << 10
	mostMaps  = 8 << 10
)

// mapped counts n more (or fewer) mappings.
func (r *room) mapped(n int64) {
	r.mu.Lock()
	r.maps += n
	r.mu.Unlock()
}

func (r *room) took(n int64) {
	r.mu.Lock()
	r.pages += n
	half := r.pages*2 > r.most || r.maps > flushMaps
	r.mu.Unlock()
	if half {
		r.kick()
	}
}

func (r *room) gave(n int64) {
	r.mu.Lock()
	r.pages -= n
	r.mu.Unlock()
	r.freed.Broadcast()
}

// flushed records how a flush in the background ended.
func (r *room) flushed(err error) {
	r.mu.Lock()
	r.failed = err
	r.mu.Unlock()
	if err != nil { // else what it gave back has woken them, if it was anything
		r.freed.Broadcast()
	}
}

func (r *room) used() (pages, maps int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pages, r.maps
}

// took counts pages that became private, gave those that are no longer.
func (p *Pool) took(n int64) { p.room.took(n) }
func (p *Pool) gave(n int64) { p.room.gave(n) }

// soil notes that the content has private pages now, which keep it in memory. REQUIRES c.mu exclusive.
func (p *Pool) soil(c *content) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.withPages[c]; !ok {
		p.withPages[c] = struct{}{}
		c.refs++
	}
}

// clean notes that the content may have no private pages any more. REQUIRES c.mu exclusive.
func (p *Pool) clean(c *content) {
	if !c.private.isEmpty() {
		return
	}
	p.mu.Lock()
	_, was := p.withPages[c]
	delete(p.withPages, c)
	p.mu.Unlock()
	if was {
		p.put(c)
	}
}

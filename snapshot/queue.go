package snapshot

import "sync"

// queue gives turns in the order of its tickets.
type queue struct {
	mu   sync.Mutex
	last chan struct{} // closed when the holder of the last ticket is done
}

// ticket is a place in a queue. wait returns when it is its turn; done, called exactly once, ends the turn.
type ticket struct {
	before, mine chan struct{}
}

func (q *queue) ticket() ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := ticket{q.last, make(chan struct{})}
	q.last = t.mine
	return t
}

func (t ticket) wait() {
	if t.before != nil {
		<-t.before
	}
}

func (t ticket) done() { close(t.mine) }

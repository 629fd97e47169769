package cow

import "sync"

// era is the span of one epoch in the life of a pool.
type era struct {
	epoch    Epoch
	inflight sync.WaitGroup // disk I/O on base files that began in this era
	settled  chan struct{}  // closed when the era is over and its last I/O is done
}

func newEra(e Epoch) *era { return &era{epoch: e, settled: make(chan struct{})} }

// Enter takes the freeze gate shared and returns the current epoch. Every change of the namespace is made between
// Enter and Leave: memory work and unsynced metadata batches only, no disk I/O. It is not reentrant (a waiting
// freeze would deadlock it).
func (p *Pool) Enter() Epoch {
	p.gate.RLock()
	return p.era.epoch
}

// Leave gives the gate back.
func (p *Pool) Leave() { p.gate.RUnlock() }

// Current returns the current epoch (it may change at once unless the caller is between Enter and Leave).
func (p *Pool) Current() Epoch {
	defer p.Leave()
	return p.Enter()
}

// begin registers disk I/O on a base file, which goes on outside the gate, with the current era. The caller ends it with
// inflight.Done, and takes neither the gate nor waits for a capture before it has. REQUIRES gate shared.
func (p *Pool) begin() *era {
	p.era.inflight.Add(1)
	return p.era
}

// turn closes the current era and opens the next. REQUIRES gate exclusive.
func (p *Pool) turn() *era {
	old := p.era
	p.era = newEra(old.epoch + 1)
	p.mu.Lock()
	p.unsettled[old.epoch] = old.settled
	p.mu.Unlock()
	go func() {
		old.inflight.Wait()
		p.mu.Lock()
		delete(p.unsettled, old.epoch)
		p.mu.Unlock()
		close(old.settled)
	}()
	return old
}

// waitSettled returns when no disk I/O of epoch s or before is under way.
func (p *Pool) waitSettled(s Epoch) {
	p.mu.Lock()
	var wait []chan struct{}
	for e, settled := range p.unsettled {
		if e <= s {
			wait = append(wait, settled)
		}
	}
	p.mu.Unlock()
	for _, settled := range wait {
		<-settled
	}
}

// Newest returns the newest snapshot, 0 if there is none. The caller is inside the gate, or does not mind that it may
// change at once.
func (p *Pool) Newest() Epoch { return p.newestSnapshot() }

// newestSnapshot returns the newest snapshot, 0 if there is none. It changes only with the gate held exclusively.
func (p *Pool) newestSnapshot() Epoch { return Epoch(p.newest.Load()) }

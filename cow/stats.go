package cow

import "sync/atomic"

// counters are the figures of a pool since it was opened.
type counters struct {
	firstWrites   atomic.Int64 // pages that became private
	savedPages    atomic.Int64
	flushedPages  atomic.Int64
	flushFailures atomic.Int64
	forks         atomic.Int64
	forkFailures  atomic.Int64
}

// Stats are the figures of a pool. Bytes unless the name says otherwise.
type Stats struct {
	PrivateBytes   int64 // private pages now
	LimitBytes     int64 // most there may be (I12)
	Windows        int64 // mappings now
	UndoBytes      int64 // length of all undo logs now
	FirstWrites    int64 // pages that became private, since the start
	SavedPages     int64
	FlushedPages   int64
	FlushFailures  int64
	Forks          int64
	ForkFailures   int64 // captures that ran in process because fork was refused
	NewestSnapshot Epoch
	Epoch          Epoch
}

// Stats returns the figures.
func (p *Pool) Stats() Stats {
	undo := int64(0)
	p.mu.Lock()
	for _, l := range p.logs {
		l.mu.Lock()
		undo += l.tail
		l.mu.Unlock()
	}
	p.mu.Unlock()
	pages, maps := p.room.used()
	return Stats{
		PrivateBytes: pages * PageSize, LimitBytes: p.room.most * PageSize, Windows: maps, UndoBytes: undo,
		FirstWrites: p.stats.firstWrites.Load(), SavedPages: p.stats.savedPages.Load(),
		FlushedPages: p.stats.flushedPages.Load(), FlushFailures: p.stats.flushFailures.Load(),
		Forks: p.stats.forks.Load(), ForkFailures: p.stats.forkFailures.Load(),
		NewestSnapshot: p.newestSnapshot(), Epoch: p.Current(),
	}
}

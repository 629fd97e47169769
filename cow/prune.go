package cow

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// RemoveSnapshot forgets snapshot s and gives back the undo pages that no other snapshot reads; it returns how many
// bytes that were. bound(q) is the first content id that was born after the freeze of snapshot q. No Freeze is between Save and Finish
// meanwhile, and nobody reads s any more. It may be called again for the same s after a crash or a failure (I10).
//
// The log of s serves every snapshot up to s, so it is not just unlinked: pages saved there since the freeze of s may
// be the only copy of what an older snapshot reads.
func (p *Pool) RemoveSnapshot(s Epoch, bound func(q Epoch) ID) (freed int64, err error) {
	next := p.forgetSnapshot(s)
	for _, l := range p.logsIn(0, next) {
		q := p.newestUpTo(l.epoch)
		if q != 0 && l.epoch < s {
			continue // nothing has changed for this one
		}
		n, err := p.prune(l, q, bound)
		freed += n
		if err != nil {
			return freed, fmt.Errorf("prune undo log %d: %w", l.epoch, err)
		}
	}
	return freed, nil
}

// forgetSnapshot takes s out of the pool's snapshots and returns the one after it, the highest epoch if there is none.
func (p *Pool) forgetSnapshot(s Epoch) (next Epoch) {
	p.gate.Lock()
	defer p.gate.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.snaps = slices.DeleteFunc(p.snaps, func(e Epoch) bool { return e == s })
	delete(p.lost, s)
	newest := Epoch(0)
	if n := len(p.snaps); n > 0 {
		newest = p.snaps[n-1]
	}
	p.newest.Store(uint64(newest))
	for _, e := range p.snaps {
		if e > s {
			return e
		}
	}
	return ^Epoch(0)
}

// newestUpTo returns the newest snapshot that is not newer than e, 0 if there is none.
func (p *Pool) newestUpTo(e Epoch) Epoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := Epoch(0)
	for _, s := range p.snaps {
		if s <= e {
			q = s
		}
	}
	return q
}

// logsIn returns the logs with numbers in [from, below), ascending.
func (p *Pool) logsIn(from, below Epoch) []*undoLog {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*undoLog
	for e, l := range p.logs {
		if from <= e && e < below {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *undoLog) int { return int(a.epoch) - int(b.epoch) })
	return out
}

// unneeded splits the pages of a log: those that snapshot q, the newest it serves, does not read from it (0: none does), and how many
// it does; end is the offset up to which that is said.
func (p *Pool) unneeded(l *undoLog, q Epoch, bound func(Epoch) ID) (drop []Place, kept int, end int64, err error) {
	born := ID(0)
	if q != 0 {
		born = bound(q)
	}
	places, end := l.all()
	for _, pl := range places {
		if q != 0 && pl.ID < born {
			first, err := p.firstPlace(pl, q)
			if err != nil {
				return nil, 0, 0, err
			}
			if first == pl.Log {
				kept++
				continue
			}
		}
		drop = append(drop, pl)
	}
	return drop, kept, end, nil
}

// prune gives back the pages of the log that nobody needs.
func (p *Pool) prune(l *undoLog, q Epoch, bound func(Epoch) ID) (freed int64, err error) {
	drop, kept, end, err := p.unneeded(l, q, bound)
	if err != nil {
		return 0, err
	}
	if err := p.opt.Index.Remove(drop); err != nil {
		return 0, err
	}
	if err := p.opt.Index.Sync(); err != nil { // before the bytes go: an indexed page is a page that is there
		return 0, err
	}
	if q == 0 { // whatever is saved in it meanwhile: there is no snapshot that it serves
		end = anyLength
	}
	if kept == 0 && (q == 0 || !p.isLatest(l)) {
		if freed, removed, err := p.removeLog(l, end); removed || err != nil {
			return freed, err
		}
	}
	return l.punch(drop)
}

// Exclusive returns the bytes of undo pages that RemoveSnapshot(s) would give back.
func (p *Pool) Exclusive(s Epoch, bound func(q Epoch) ID) (bytes int64, err error) {
	before, next := Epoch(0), ^Epoch(0)
	p.mu.Lock()
	for _, e := range p.snaps {
		if e < s {
			before = e
		}
		if e > s {
			next = min(next, e)
		}
	}
	p.mu.Unlock()
	for _, l := range p.logsIn(s, next) {
		drop, _, _, err := p.unneeded(l, before, bound)
		if err != nil {
			return 0, err
		}
		for _, pl := range drop {
			if pl.Zero {
				continue
			}
			there, err := p.hasPlace(pl) // else it was given back before
			if err != nil {
				return 0, err
			}
			if there {
				bytes += PageSize
			}
		}
	}
	return bytes, nil
}

// Logs returns the numbers of the undo logs, ascending.
func (p *Pool) Logs() []Epoch {
	var out []Epoch
	for _, l := range p.logsIn(0, ^Epoch(0)) {
		out = append(out, l.epoch)
	}
	return out
}

// firstPlace returns the log in which snapshot q finds the page of pl, 0 if none.
func (p *Pool) firstPlace(pl Place, q Epoch) (log Epoch, err error) {
	err = p.opt.Index.Find(pl.ID, pl.Page, pl.Page, q, func(found Place) bool {
		log = found.Log
		return false
	})
	return log, err
}

// isLatest reports whether pages may still be saved in l.
func (p *Pool) isLatest(l *undoLog) bool {
	return p.latestLog(p.newestSnapshot(), ^Epoch(0)) == l
}

// all returns the places of every page in the durable part of the log, and the offset at which it ends.
func (l *undoLog) all() (out []Place, end int64) {
	l.life.RLock()
	defer l.life.RUnlock()
	if l.closed {
		return nil, 0
	}
	return l.placesTo(l.synced.Load())
}

// placesTo returns the places of every page in the first upTo bytes of the log, and the offset at which they end. REQUIRES life.
func (l *undoLog) placesTo(upTo int64) (out []Place, end int64) {
	end = PageSize
	// An unreadable header ends the scan early: its pages stay where they are.
	_ = l.scan(PageSize, func(h *batchHeader) error {
		if h.offset+h.size() > upTo {
			return errTorn
		}
		out, end = append(out, h.places(l.epoch)...), h.offset+h.size()
		return nil
	})
	return out, end
}

// anyLength, as the end of a log, says that it does not matter.
const anyLength = -1

// removeLog deletes a log of which nothing up to end is needed; not if more was saved in it since that was found out, or will be (I6): a flush
// which began before a freeze, and a capture that is still to be saved, use it for an older snapshot.
//
// Its name is durably gone before the index forgets how far it was indexed, and that is durable before a log of this number can be
// made again: a log which came back with holes would pass for damage, an offset of another log for its own.
func (p *Pool) removeLog(l *undoLog, end int64) (freed int64, removed bool, err error) {
	p.making.Lock()
	defer p.making.Unlock()
	freed, late, removed := l.closeAt(end)
	if !removed {
		return 0, false, nil
	}
	p.mu.Lock()
	delete(p.logs, l.epoch)
	p.mu.Unlock()
	p.active.Store(nil)
	if len(late) > 0 {
		err := p.opt.Index.Remove(late)
		if err == nil {
			err = p.opt.Index.Sync()
		}
		if err != nil {
			return 0, true, err
		}
	}
	path := "undo/" + logName(l.epoch)
	if err := p.opt.Hook(Op{Kind: OpRemoveUndo, Log: l.epoch}); err != nil {
		return 0, true, &os.PathError{Op: "remove", Path: path, Err: err}
	}
	if err := unix.Unlinkat(p.undoDir, logName(l.epoch), 0); err != nil {
		return 0, true, &os.PathError{Op: "remove", Path: path, Err: err}
	}
	if err := unix.Fsync(p.undoDir); err != nil {
		return 0, true, &os.PathError{Op: "sync directory of", Path: path, Err: err}
	}
	if err := p.opt.Index.RemoveLog(l.epoch); err != nil {
		return 0, true, err
	}
	return freed, true, p.opt.Index.Sync()
}

// closeAt closes a log that ends at end, and returns the bytes it takes on disk. With anyLength it returns its places, too: the index may
// have got some since the log was looked at, and gets none from now on.
func (l *undoLog) closeAt(end int64) (bytes int64, late []Place, done bool) {
	l.life.Lock()
	defer l.life.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || end != anyLength && (l.tail != end || l.promised > 0) {
		return 0, nil, l.closed
	}
	if end == anyLength {
		late, _ = l.placesTo(l.tail)
	}
	var st unix.Stat_t
	_ = unix.Fstat(l.fd, &st)
	l.closed = true
	_ = unix.Close(l.fd)
	return st.Blocks * 512, late, true
}

// punch gives the room of places back.
func (l *undoLog) punch(places []Place) (freed int64, err error) {
	var blocks pageSet
	for _, pl := range places {
		if !pl.Zero {
			blocks.add(pl.Block)
		}
	}
	l.life.RLock()
	defer l.life.RUnlock()
	if l.closed || blocks.isEmpty() {
		return 0, nil
	}
	var before, after unix.Stat_t
	if err := unix.Fstat(l.fd, &before); err != nil {
		return 0, err
	}
	for _, r := range blocks.runs(1 << 40) {
		err := unix.Fallocate(l.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(r.first)*PageSize, int64(r.n)*PageSize)
		if err == unix.EOPNOTSUPP {
			return 0, nil // the room comes back with the whole log
		}
		if err != nil {
			return 0, fmt.Errorf("punch undo log %d: %w", l.epoch, err)
		}
	}
	if err := unix.Fstat(l.fd, &after); err != nil {
		return 0, err
	}
	return max(0, before.Blocks-after.Blocks) * 512, nil
}

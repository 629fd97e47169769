package cow

import (
	"fmt"
	"time"
)

// Freeze is one snapshot on its way from the freeze to being durable. Its steps are called in the order in which
// they are declared here, by the commit in package snapshot, whose documentation has the crash table; Finish
// always, and last.
type Freeze struct {
	Epoch     Epoch         // the closed epoch: the snapshot's number
	Took      time.Duration // how long the gate was held exclusively
	Fork      time.Duration // how much of that was fork
	Captured  int64         // bytes of private pages in the capture
	InProcess error         // why the plan ran in process, under the freeze; nil if it did not

	p  *Pool
	cp *capture // nil if nothing was private
}

// Freeze closes the current epoch: what is read of it from now on is frozen (I3). record is called with the gate held
// exclusively and must, without disk I/O, record the snapshot as pending; if it fails there is no snapshot.
//
// If fork is refused, the same plan runs in process while the gate is held, after a flush that leaves it little to do.
func (p *Pool) Freeze(record func(closed Epoch) error) (*Freeze, error) {
	p.freezing.Lock()
	defer p.freezing.Unlock()
	fz, err := p.freezeForked(record)
	if err == nil || !forkRefused(err) {
		return fz, err
	}
	p.stats.forkFailures.Add(1)
	return p.freezeInProcess(record, err)
}

// freezeForked freezes with a child that holds the capture. If the fork fails nothing has changed.
func (p *Pool) freezeForked(record func(Epoch) error) (*Freeze, error) {
	plan, err := newPlan(2 * p.room.most)
	if err != nil {
		return nil, fmt.Errorf("memory for the plan: %w", err)
	}
	p.gate.Lock()
	start := time.Now()
	fz := &Freeze{p: p, Epoch: p.era.epoch}
	if cp := p.capture(plan); cp != nil {
		if cp.child, fz.Fork, err = p.startWriter(plan); err != nil {
			p.gate.Unlock()
			p.letGo(cp)
			return nil, err
		}
		fz.cp, fz.Captured = cp, cp.pages()*PageSize
	}
	if err := record(fz.Epoch); err != nil {
		p.gate.Unlock()
		if fz.cp != nil {
			fz.cp.child.abandon(fz.cp)
			p.letGo(fz.cp)
		} else {
			plan.free()
		}
		return nil, err
	}
	p.install(fz)
	fz.Took = time.Since(start)
	p.gate.Unlock()
	if fz.cp == nil {
		plan.free()
	} else {
		p.stats.forks.Add(1)
		fz.cp.child.preferForKill()
	}
	return fz, nil
}

// capture describes everything that is private now; nil if nothing is. REQUIRES gate exclusive.
func (p *Pool) capture(plan *plan) *capture {
	p.mu.Lock()
	cp := &capture{epoch: p.era.epoch, newest: p.newestSnapshot(), plan: plan, byID: make(map[ID]*part, len(p.withPages)), done: make(chan struct{})}
	contents := make([]*content, 0, len(p.withPages))
	for c := range p.withPages {
		c.refs++
		contents = append(contents, c)
	}
	if n := len(p.captures); n > 0 {
		cp.before = p.captures[n-1]
	}
	p.mu.Unlock()
	for _, c := range contents {
		c.mu.RLock() // the end of an earlier capture may be dropping pages
		x := newPart(c)
		c.mu.RUnlock()
		cp.parts = append(cp.parts, x)
		cp.byID[c.id] = x
	}
	if len(cp.parts) == 0 {
		return nil
	}
	return cp
}

// letGo forgets a capture that never came to be.
func (p *Pool) letGo(cp *capture) {
	for _, x := range cp.parts {
		p.put(x.c)
	}
	cp.plan.free()
}

// install makes the closed epoch a snapshot and opens the next one. REQUIRES gate exclusive.
func (p *Pool) install(fz *Freeze) {
	if fz.cp != nil {
		for _, x := range fz.cp.parts {
			x.c.mu.Lock()
			x.c.captures = append(x.c.captures, fz.cp)
			x.c.fresh = pageSet{}
			x.c.mu.Unlock()
		}
	}
	p.mu.Lock()
	if fz.cp != nil {
		p.captures = append(p.captures, fz.cp)
	}
	p.snaps = append(p.snaps, fz.Epoch)
	p.mu.Unlock()
	p.newest.Store(uint64(fz.Epoch))
	p.turn()
}

// freezeInProcess is Freeze without a child. refused is why.
func (p *Pool) freezeInProcess(record func(Epoch) error, refused error) (*Freeze, error) {
	if err := p.Flush(); err != nil { // outside the freeze, so that little is left for inside
		return nil, err
	}
	p.waitAllCaptures() // no new one can come: we hold p.freezing
	p.gate.Lock()
	defer p.gate.Unlock()
	start := time.Now()
	p.era.inflight.Wait() // it never waits for the gate: see begin
	pages, _ := p.room.used()
	fz := &Freeze{p: p, Epoch: p.era.epoch, InProcess: refused, Captured: pages * PageSize}
	contents := p.private()
	defer p.putAll(contents)
	if err := p.flushFrozen(contents); err != nil {
		return nil, err
	}
	if err := record(fz.Epoch); err != nil {
		return nil, err
	}
	for _, c := range contents {
		c.mu.Lock()
		c.drop(c.private.clone()) // not before there is a snapshot: a write that is not recorded yet looks at the epoch, see recordWrite
		p.clean(c)
		c.mu.Unlock()
	}
	p.install(fz)
	fz.Took = time.Since(start)
	return fz, nil
}

// flushFrozen brings all private pages of contents into their base files while nothing else moves; they are not dropped. REQUIRES gate
// exclusive, nothing in flight, no captures.
func (p *Pool) flushFrozen(contents []*content) error {
	newest, epoch := p.newestSnapshot(), p.era.epoch
	log, err := p.logFor(newest, epoch)
	if err != nil {
		return err
	}
	if log != nil {
		s := p.newSaver(log, newest)
		for _, c := range contents {
			if err := s.add(c, c.private); err != nil {
				return err
			}
		}
		if err := s.commit(); err != nil {
			return err
		}
	}
	for _, c := range contents {
		steps := c.stepsOf(c.private, c.size)
		err := p.writeSteps(c.id, steps)
		c.measureBase()
		if err != nil {
			return err
		}
	}
	return nil
}

// Save waits until the frozen bytes have settled and earlier captures are done, and makes durable what the writer will
// overwrite (I1).
func (fz *Freeze) Save() error {
	fz.p.waitSettled(fz.Epoch)
	if err := fz.save(); err != nil {
		return err
	}
	fz.p.trimLogs(fz)
	return nil
}

// trimLogs ends the use of the logs of earlier snapshots, in which everything that was promised room is saved now.
func (p *Pool) trimLogs(fz *Freeze) {
	p.mu.Lock()
	first := len(p.captures) == 0 || p.captures[0] == fz.cp
	p.mu.Unlock()
	if !first {
		return // an earlier capture is still to be saved
	}
	for _, l := range p.logsIn(0, fz.Epoch) {
		l.trim()
	}
}

func (fz *Freeze) save() error {
	cp := fz.cp
	if cp == nil {
		return nil
	}
	if cp.before != nil {
		<-cp.before.done
		cp.before = nil
	}
	if fz.p.newestUpTo(cp.newest) == 0 {
		return nil // no snapshot was reading those pages, or none is any more
	}
	log, err := fz.p.logFor(cp.newest, cp.epoch)
	if err != nil {
		return err
	}
	s := fz.p.newSaver(log, cp.newest)
	for _, x := range cp.parts {
		if err := s.add(x.c, x.pages); err != nil {
			return fmt.Errorf("save for snapshot %d: %w", cp.epoch, err)
		}
	}
	if err := s.commit(); err != nil {
		return fmt.Errorf("save for snapshot %d: %w", cp.epoch, err)
	}
	return nil
}

// Write lets the writer go and waits until it has written the capture into the base files and synced them. progress, if
// not nil, is told how many of the pages are written.
func (fz *Freeze) Write(progress func(done, total int64)) error {
	cp := fz.cp
	if cp == nil {
		return nil
	}
	ops := cp.operations()
	total, err := cp.fill(ops)
	if err != nil {
		return err
	}
	steps, hookErr := allowed(ops, fz.p.opt.Hook)
	cp.plan.seal(steps)
	err = cp.child.run(cp, func(done int64) {
		if progress != nil {
			progress(done, total)
		}
	})
	if err == nil {
		err = hookErr
	}
	if err != nil {
		if _, errno, step := cp.plan.outcome(); errno != 0 {
			steps = int(step)
		}
		if steps < len(ops) { // not where it was killed after the last
			fz.p.failedAt(ops[steps], err)
		}
		return fmt.Errorf("write snapshot %d: %w", cp.epoch, err)
	}
	cp.mu.Lock()
	cp.written = true
	cp.mu.Unlock()
	return nil
}

// Sync makes durable all other bytes that the snapshot reads.
func (fz *Freeze) Sync() error { return fz.p.SyncBase() }

// Finish ends the capture and gives the memory back. If Write has not succeeded the pages stay private (I7), and the
// snapshot must have been marked as failed: what it reads is no longer right.
func (fz *Freeze) Finish() {
	cp := fz.cp
	if cp == nil {
		return
	}
	cp.mu.Lock()
	exited, written := cp.exited, cp.written
	cp.mu.Unlock()
	if !exited {
		cp.child.abandon(cp)
	}
	if cp.before != nil {
		<-cp.before.done
	}
	fz.p.end(cp, written)
	fz.cp = nil
}

// WriterPID returns the process id of the writer, 0 if there is none (any more).
func (fz *Freeze) WriterPID() int {
	cp := fz.cp
	if cp == nil {
		return 0
	}
	cp.mu.RLock()
	defer cp.mu.RUnlock()
	if cp.exited {
		return 0
	}
	return cp.child.pid
}

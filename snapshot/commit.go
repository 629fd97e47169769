package snapshot

import (
	"errors"
	"fmt"
	"time"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Taken is the outcome of a snapshot command.
type Taken struct {
	Name          string    `json:"name"`
	Epoch         cow.Epoch `json:"epoch"`
	Time          time.Time `json:"time"`
	State         State     `json:"state"`
	FreezeUsec    int64     `json:"freeze_usec"` // how long changes had to wait
	ForkUsec      int64     `json:"fork_usec"`   // how much of that was fork
	CapturedBytes int64     `json:"captured_bytes"`
	Seconds       float64   `json:"seconds"` // from the request to durable
}

// Request asks for a snapshot.
type Request struct {
	Name        string // "" means the default name, the time in UTC
	Description string
	Temporary   bool                    // removed when the store is opened again, unless it is held; see Drop
	NoWait      bool                    // return once frozen; the commit goes on in the background
	Frozen      func(Taken)             // if set: called after the freeze, before the bytes are durable; the snapshot is visible now
	Progress    func(done, total int64) // if set: told the pages written and to be written, from time to time
	Hidden      func(Info)              // if set: called where the snapshot fails, when no new view of it can be had; as for Delete
}

// pending is a snapshot between its freeze and its end.
type pending struct {
	req   Request
	start time.Time
	fz    *cow.Freeze
	entry *snap
	turn  ticket
}

// Snapshot takes a snapshot of the live tree. It is frozen in milliseconds; the call returns when it is durable (I4).
// Errors: ErrName, ErrExists, ErrClosing, or why its bytes could not be written.
func (s *Store) Snapshot(r Request) (Taken, error) {
	if err := s.enter(); err != nil {
		return Taken{}, err
	}
	p := &pending{req: r, start: time.Now()}
	name, err := s.snaps.reserve(r.Name, p.start)
	if err != nil {
		s.busy.Done()
		return Taken{}, fmt.Errorf("snapshot %w", err)
	}
	if err := s.freeze(p, name); err != nil {
		s.snaps.drop(name)
		s.stats.ended(p.taken(name), err)
		s.busy.Done()
		return Taken{}, fmt.Errorf("snapshot %q: %w", name, err)
	}
	taken := p.taken(name)
	taken.State = Writing
	if r.Frozen != nil {
		r.Frozen(taken)
	}
	if r.NoWait {
		go func() {
			if _, err := s.end(p, name); err != nil {
				s.report(err)
			}
		}()
		return taken, nil
	}
	return s.end(p, name)
}

// taken describes the snapshot as of now.
func (p *pending) taken(name string) Taken {
	t := Taken{Name: name, Time: p.start.UTC(), State: Durable, Seconds: time.Since(p.start).Seconds()}
	if p.fz != nil {
		t.Epoch, t.CapturedBytes = p.fz.Epoch, p.fz.Captured
		t.FreezeUsec, t.ForkUsec = p.fz.Took.Microseconds(), p.fz.Fork.Microseconds()
	}
	return t
}

// freeze closes the epoch and makes the snapshot visible.
func (s *Store) freeze(p *pending, name string) (err error) {
	if err := s.ballast.look(snapshotBytes); err != nil {
		return err
	}
	if err := s.live.flushAttrs(); err != nil { // so that few are left for the freeze itself
		return err
	}
	rec := meta.Snapshot{Name: name, Time: p.start.UTC(), State: meta.Pending, Description: p.req.Description,
		Temporary: p.req.Temporary}
	p.fz, err = s.pool.Freeze(func(closed cow.Epoch) error {
		if err := s.live.flushAttrsLocked(closed); err != nil {
			return err
		}
		rec.Epoch, rec.NextContent = closed, s.db.ContentBound()
		b := s.db.NewBatch()
		if err := b.PutSnapshot(&rec); err != nil {
			b.Discard()
			return err
		}
		b.SetEpoch(closed + 1)
		if _, err := b.Commit(false); err != nil {
			return err
		}
		p.entry = s.snaps.add(rec)
		p.turn = s.turns.ticket()
		return nil
	})
	if err == nil {
		s.stats.began(p)
	}
	return err
}

// end brings a frozen snapshot to durable, or removes it.
func (s *Store) end(p *pending, name string) (Taken, error) {
	defer s.busy.Done()
	p.turn.wait()
	defer p.turn.done()
	err := s.commit(p)
	if err != nil {
		s.snaps.update(p.entry, func(e *snap) { e.failed = true }) // before its pages change sides
	}
	p.fz.Finish()
	taken := p.taken(name)
	s.stats.ended(taken, err)
	if err == nil {
		return taken, nil
	}
	err = fmt.Errorf("snapshot %q failed and is removed: %w", name, err)
	return Taken{}, errors.Join(err, s.discard(p))
}

// commit makes a frozen snapshot durable. The order of its steps, and what recovery finds when the power goes in between:
//
//	step                          a crash after it leaves                        recovery
//	------------------------------------------------------------------------------------------------------------------
//	freeze (record "pending",     nothing, or a pending record (unsynced); the   a pending snapshot is removed. Records
//	unsynced; fork)               capture is lost with the memory                of the next epoch come after it in the log
//	1 sync the records            a pending record                               of the store: they are lost before it is
//	2 undo saved and synced       pages in the log of the snapshot before:       entries stay: they equal the base file, or
//	                              the base still has the same bytes              (after 3) are what the older snapshot reads
//	3 capture written and synced  a base file with some or all of the pages,     the older snapshot reads the log (I1); the
//	                              each old or new (or torn)                      live tree has old or new bytes, none synced
//	4 base files synced           all bytes of the snapshot, but not its word    removed all the same
//	5 record "durable", synced    the snapshot (I4)                              nothing to do
//	6 memory given back           the same                                       nothing to do
//
// Where only the daemon dies in 3 its writer finishes the writing (I8), so that the live tree has all of the new bytes. The
// snapshot is removed all the same: nobody was told that it is there, and whether everything else of it would be whole (4) only the
// daemon knew.
//
// A failure of any step removes the snapshot as recovery does; its pages are still private (I7).
func (s *Store) commit(p *pending) error {
	if err := s.db.Sync(); err != nil { // 1
		return err
	}
	if err := p.fz.Save(); err != nil { // 2
		return err
	}
	if err := p.fz.Write(func(done, total int64) { s.progress(p, done, total) }); err != nil { // 3
		return err
	}
	if err := p.fz.Sync(); err != nil { // 4
		return err
	}
	rec := p.entry.rec
	t := p.taken(rec.Name)
	rec.State, rec.FreezeUsec, rec.ForkUsec, rec.CapturedBytes, rec.Seconds = meta.Durable, t.FreezeUsec, t.ForkUsec, t.CapturedBytes, t.Seconds
	if err := s.putSnapshots(rec); err != nil { // 5
		return err
	}
	s.snaps.update(p.entry, func(e *snap) { rec.Name = e.rec.Name; e.rec = rec })
	return nil // 6 is Finish
}

// putSnapshots writes records, durably.
func (s *Store) putSnapshots(recs ...meta.Snapshot) error {
	b := s.db.NewBatch()
	for i := range recs {
		if err := b.PutSnapshot(&recs[i]); err != nil {
			b.Discard()
			return err
		}
	}
	_, err := b.Commit(true)
	return err
}

func (s *Store) progress(p *pending, done, total int64) {
	s.stats.wrote(done, total)
	if p.req.Progress != nil {
		p.req.Progress(done, total)
	}
}

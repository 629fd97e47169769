package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Deleted says what a deletion gave back (or would, for a dry run). Where somebody still reads the snapshot its bytes come
// back when he is done, and Bytes is what that will be.
type Deleted struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// Delete deletes snapshots: all, or none if a name is unknown (ErrUnknown) or held (ErrHeld). hidden, if not nil, is called for each when
// no new view of it can be had, so that caches let go of theirs; also where Delete fails later on. A snapshot that is still being written
// is waited for.
func (s *Store) Delete(names []string, dryRun bool, hidden func(Info)) ([]Deleted, error) {
	return s.delete(func() ([]*snap, error) { return s.toDelete(names) }, dryRun, hidden)
}

// Drop is Delete for a snapshot that is known by its epoch, whatever it is called by now.
func (s *Store) Drop(e cow.Epoch, hidden func(Info)) (Deleted, error) {
	out, err := s.delete(func() ([]*snap, error) {
		name, err := s.snaps.nameOf(e)
		if err != nil {
			return nil, err
		}
		return s.toDelete([]string{name})
	}, false, hidden)
	if len(out) == 0 {
		return Deleted{}, err
	}
	return out[0], err
}

// delete deletes the snapshots that choose returns in the deletion's turn.
func (s *Store) delete(choose func() ([]*snap, error), dryRun bool, hidden func(Info)) ([]Deleted, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.busy.Done()
	out, err := s.deleteInTurn(choose, dryRun, hidden)
	if err != nil || dryRun {
		return out, err
	}
	return out, s.tidy()
}

// deleteInTurn is delete in its turn, but for tidying: that may wait for a flush which waits for the writer of a snapshot whose
// turn comes after ours.
func (s *Store) deleteInTurn(choose func() ([]*snap, error), dryRun bool, hidden func(Info)) ([]Deleted, error) {
	turn, entries, err := s.turnFor(choose)
	defer turn.done()
	if err != nil {
		return nil, err
	}
	out := make([]Deleted, len(entries))
	for i, e := range entries {
		bytes, err := s.exclusive(e)
		if err != nil {
			return nil, fmt.Errorf("measure snapshot %q: %w", e.rec.Name, err)
		}
		out[i] = Deleted{e.rec.Name, bytes}
	}
	if dryRun {
		return out, nil
	}
	recs := make([]meta.Snapshot, len(entries))
	for i, e := range entries {
		recs[i] = e.rec
		recs[i].State = meta.Deleting
	}
	if err := s.putSnapshots(recs...); err != nil {
		return nil, fmt.Errorf("delete snapshots: %w", err)
	}
	for i, e := range entries { // none stays in sight after a failure: the next start removes what says that it is being deleted
		freed, failed := s.hideAndRemove(e, hidden)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("delete snapshot %q (it is gone; its space comes back when the store is opened again): %w",
				e.rec.Name, failed))
		}
		if freed != nil {
			out[i].Bytes = *freed
		}
	}
	return out, err
}

// turnFor waits for a turn in which what choose finds can be deleted. A snapshot that was frozen since our ticket was drawn has its commit in a
// later turn, which would record it as durable once more: it is waited for, too.
func (s *Store) turnFor(choose func() ([]*snap, error)) (turn ticket, entries []*snap, err error) {
	for {
		turn = s.turns.ticket()
		turn.wait()
		if entries, err = choose(); err != nil || !s.snaps.anyPending(entries) {
			return turn, entries, err
		}
		turn.done()
	}
}

// toDelete finds the snapshots of names, each once.
func (s *Store) toDelete(names []string) ([]*snap, error) {
	s.snaps.mu.Lock()
	defer s.snaps.mu.Unlock()
	seen := map[string]bool{}
	var out []*snap
	for _, name := range names {
		e, err := s.snaps.find(name)
		switch {
		case err != nil:
			return nil, fmt.Errorf("delete snapshot %w", err)
		case seen[name]:
			return nil, fmt.Errorf("delete snapshot %q: named twice: %w", name, ErrName)
		case len(e.rec.Holds) > 0:
			return nil, fmt.Errorf("delete snapshot %q: it is held: %w", name, ErrHeld)
		}
		seen[name] = true
		out = append(out, e)
	}
	return out, nil
}

// hideAndRemove takes a snapshot whose record says "deleting" out of sight and removes it: now if nobody reads it, and then says
// what that freed, else when the last view comes back.
func (s *Store) hideAndRemove(e *snap, hidden func(Info)) (freed *int64, err error) {
	var info Info
	s.snaps.update(e, func(e *snap) {
		e.rec.State = meta.Deleting
		info = e.info()
	})
	var mu sync.Mutex
	here := true // still in this call, which holds the turn
	s.snaps.hideThen(e, func() {
		if hidden != nil {
			hidden(info)
		}
	}, func() {
		mu.Lock()
		defer mu.Unlock()
		if here {
			var n int64
			n, err = s.remove(e)
			freed = &n
			return
		}
		s.removeLater(e)
	})
	mu.Lock()
	here = false
	mu.Unlock()
	return freed, err
}

// removeLater removes a snapshot that was deleted while it was read, in a turn of its own. If the store is going down, recovery does it.
func (s *Store) removeLater(e *snap) {
	if s.enter() != nil {
		return
	}
	go func() {
		defer s.busy.Done()
		turn := s.turns.ticket()
		turn.wait()
		_, err := s.remove(e)
		turn.done() // before tidying, as in Delete
		if err = errors.Join(err, s.tidy()); err != nil {
			s.report(fmt.Errorf("remove snapshot %q: %w", e.rec.Name, err))
		}
	}()
}

// discard removes a snapshot that failed. In the commit's turn.
func (s *Store) discard(p *pending) error {
	rec := p.entry.rec
	rec.State = meta.Deleting
	_ = s.putSnapshots(rec) // pending is removed by recovery just as well
	_, err := s.hideAndRemove(p.entry, p.req.Hidden)
	return err
}

// remove gives back what only this snapshot holds. Each step may be repeated after a crash (I10): the record stays until all is done.
func (s *Store) remove(e *snap) (freed int64, err error) {
	epoch := e.rec.Epoch
	current := s.pool.Current() // first: freezes go on meanwhile, and the next snapshot reads nothing that is younger than this
	before, after := s.snaps.neighbours(epoch)
	after = min(after, current)
	freed, err = s.pool.RemoveSnapshot(epoch, s.snaps.bound)
	if err != nil {
		return freed, err
	}
	n, err := s.removeVersions(between{before, epoch, after})
	freed += n
	if err != nil {
		return freed, err
	}
	if err := s.db.Sync(); err != nil {
		return freed, err
	}
	b := s.db.NewBatch()
	b.DeleteSnapshot(epoch)
	if _, err := b.Commit(true); err != nil {
		return freed, err
	}
	s.snaps.forget(epoch)
	return freed, nil
}

// removeBatch bounds how many keys one batch of a removal touches.
const removeBatch = 2000

// versionOf is one version of a key.
type versionOf struct {
	epoch cow.Epoch
	key   meta.Key
}

// between is what the snapshot of an epoch is between, when it goes: the snapshots before and after it, or what stands for them.
//
// Of every key there is at most one version between two snapshots that follow each other, and no tombstone with nothing below (but see
// unread). When the snapshot goes that is restored: what was written before its freeze goes if something was written after it. So the keys
// that were touched on either side of it include all that matter, and the side with fewer is looked through: a removal costs what
// changed before or after the snapshot, whichever is less. Of the oldest one, what changed before is the whole tree.
//
// The live tree, which is the later side of the newest snapshot, goes on meanwhile. It takes away itself what it replaces: the pool has
// forgotten the snapshot before with the gate held exclusively, so every change since then knows it (see meta.Batch.ReadUpTo).
type between struct{ before, epoch, after cow.Epoch }

// quieterSide returns the first and the last epoch of the side on which fewer keys were touched.
func (s *Store) quieterSide(r between) (from, to cow.Epoch, err error) {
	for limit := removeBatch; ; limit *= 8 {
		for _, side := range [...][2]cow.Epoch{{r.epoch + 1, r.after}, {r.before + 1, r.epoch}} {
			n := 0
			err := s.db.Touched(side[0], side[1], func(cow.Epoch, meta.Key) bool {
				n++
				return n < limit
			})
			if err != nil || n < limit {
				return side[0], side[1], err
			}
		}
	}
}

// removeVersions drops the versions that no other view reads, now that the snapshot goes.
func (s *Store) removeVersions(r between) (freed int64, err error) {
	from, to, err := s.quieterSide(r)
	if err != nil {
		return 0, err
	}
	var touched []versionOf
	var failed error
	flush := func() {
		n, err := s.removeTouched(touched, r)
		freed += n
		touched = touched[:0]
		failed = err
	}
	err = s.db.Touched(from, to, func(e cow.Epoch, k meta.Key) bool {
		touched = append(touched, versionOf{e, k})
		if len(touched) >= removeBatch {
			flush()
		}
		return failed == nil
	})
	if failed == nil && err == nil {
		flush()
	}
	return freed, cmp.Or(failed, err)
}

// removeTouched drops the unread versions of some keys, and lists contents that lost their last reader as garbage.
func (s *Store) removeTouched(touched []versionOf, r between) (freed int64, err error) {
	b := s.db.NewBatch()
	defer func() {
		if b != nil {
			b.Discard()
		}
	}()
	dropped := map[meta.Ino][]cow.Epoch{}
	for _, t := range touched {
		unread, later, err := s.unread(t, r)
		if err != nil {
			return 0, err
		}
		for _, e := range unread {
			b.DropVersion(t.key, e)
		}
		if later != 0 {
			b.Touch(t.key, later+1)
		}
		if len(unread) > 0 && t.key.Kind() == meta.KindInode {
			dropped[t.key.Ino()] = append(dropped[t.key.Ino()], unread...)
		}
	}
	for ino, epochs := range dropped {
		n, err := s.dropContents(b, ino, epochs)
		if err != nil {
			return 0, err
		}
		freed += n
	}
	_, err = b.Commit(false)
	b = nil
	return freed, err
}

// unread returns the epochs of the versions of a touched key that no view reads without the snapshot: a newer one hides them, or
// they are a tombstone with nothing below. A mark without its version counts as one. What is of the current epoch belongs to the live
// tree, which may be writing it again at this moment: such a tombstone stays, and later is its epoch. It has to go with the snapshot that
// ends that epoch, so its key is marked once more, on the other side of that.
func (s *Store) unread(t versionOf, r between) (epochs []cow.Epoch, later cow.Epoch, err error) {
	current := s.pool.Current() // first: what is older does not change any more
	vs, err := s.db.Versions(t.key)
	if err != nil {
		return nil, 0, err
	}
	marked := false
	var last meta.Version // the oldest that stays
	for i, v := range vs {
		marked = marked || v.Epoch == t.epoch
		if i > 0 && r.before < v.Epoch && v.Epoch <= r.epoch && vs[i-1].Epoch <= r.after {
			epochs = append(epochs, v.Epoch)
			continue
		}
		last = v
	}
	switch {
	case !last.Tombstone:
	case last.Epoch >= current:
		later = last.Epoch
	case last.Epoch <= r.after:
		epochs = append(epochs, last.Epoch)
	}
	if !marked && t.epoch < current {
		epochs = append(epochs, t.epoch)
	}
	return epochs, later, nil
}

// dropContents lists as garbage the contents that only the dropped versions of an inode had.
func (s *Store) dropContents(b *meta.Batch, ino meta.Ino, epochs []cow.Epoch) (freed int64, err error) {
	kept, gone := map[cow.ID]bool{}, map[cow.ID]int64{}
	err = s.db.InodeVersions(ino, func(e cow.Epoch, rec *meta.Inode) bool {
		if rec == nil || rec.Content == 0 {
			return true
		}
		for _, x := range epochs {
			if x == e {
				gone[rec.Content] = max(gone[rec.Content], rec.Blocks*512)
				return true
			}
		}
		kept[rec.Content] = true
		return true
	})
	for id, bytes := range gone {
		if !kept[id] {
			b.AddGarbage(id)
			freed += bytes
		}
	}
	return freed, err
}

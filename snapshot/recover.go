package snapshot

import (
	"slices"

	"github.com/snapfs/snapfs/cow"
)

// recover brings the store to order after whatever ended its last life (I10). The pool has already brought the undo logs
// and their index together. Every step may be repeated:
//
//  1. after a crash, what base files hold may be in the page cache only, and nobody remembers which: all is synced;
//  2. snapshots that are not durable, or temporary, are removed, like any other, and so are undo logs whose snapshot has no record (its
//     record was not synced yet, but pages that an older snapshot reads may have been saved there);
//  3. inodes that had no name any more are dropped;
//  4. contents that nobody has any more are removed.
func (s *Store) recover() error {
	clean, measured, err := s.db.Clean()
	if err != nil {
		return err
	}
	s.unmeasured.Store(!measured)
	if clean {
		s.live.synced = s.db.ContentBound()
	} else if err := s.pool.SyncAll(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	b.RemoveClean()
	b.SetEpoch(s.pool.Current())
	if _, err := b.Commit(true); err != nil {
		return err
	}
	if err := s.removePending(); err != nil {
		return err
	}
	if err := s.live.sweepOrphans(); err != nil {
		return err
	}
	return s.tidy()
}

// removePending removes the snapshots that were being written or deleted when the store went down, and those that nobody needs since.
func (s *Store) removePending() error {
	var epochs []cow.Epoch
	for epoch, e := range s.snaps.byEpoch { // nobody else is here yet
		if passing(&e.rec) {
			epochs = append(epochs, epoch)
		}
	}
	slices.Sort(epochs)
	for _, epoch := range epochs {
		if _, err := s.remove(s.snaps.byEpoch[epoch]); err != nil {
			return err
		}
	}
	for _, epoch := range s.pool.Logs() {
		if s.snaps.byEpoch[epoch] == nil {
			if _, err := s.pool.RemoveSnapshot(epoch, s.snaps.bound); err != nil {
				return err
			}
		}
	}
	return nil
}

package snapshot

import (
	"cmp"
	"fmt"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// List returns the visible snapshots, oldest first, with what only they hold.
func (s *Store) List() ([]Info, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.busy.Done()
	entries := s.snaps.entries()
	out := make([]Info, len(entries))
	for i, e := range entries {
		bytes, err := s.exclusive(e)
		if err != nil {
			return nil, fmt.Errorf("measure snapshot %q: %w", e.rec.Name, err)
		}
		s.snaps.update(e, func(e *snap) { out[i] = e.info() })
		out[i].Bytes = bytes
	}
	return out, nil
}

// Visible returns the visible snapshots, oldest first, without what only they hold: it costs nothing.
func (s *Store) Visible() []Info {
	entries := s.snaps.entries()
	out := make([]Info, len(entries))
	for i, e := range entries {
		s.snaps.update(e, func(e *snap) { out[i] = e.info() })
	}
	return out
}

// Count returns how many snapshots are visible.
func (s *Store) Count() int { return len(s.snaps.entries()) }

// exclusive returns the bytes that deleting the snapshot would give back. It costs what changed before or after it (see between); it is kept until
// a neighbour changes (the newest has the live tree for one, and is measured anew each time).
func (s *Store) exclusive(e *snap) (bytes int64, err error) {
	var epoch cow.Epoch
	var known *size
	s.snaps.update(e, func(e *snap) { epoch, known = e.rec.Epoch, e.sized })
	before, after := s.snaps.neighbours(epoch)
	if known != nil && known.before == before && known.after == after {
		return known.bytes, nil
	}
	bytes, err = s.pool.Exclusive(epoch, s.snaps.bound)
	if err != nil {
		return 0, err
	}
	n, err := s.exclusiveContents(before, epoch, after)
	if err != nil {
		return 0, err
	}
	bytes += n
	if after != meta.Latest {
		s.snaps.update(e, func(e *snap) { e.sized = &size{before, after, bytes} })
	}
	return bytes, nil
}

// exclusiveContents returns the size of the contents that only the snapshot of the given epoch has: what removeVersions would free.
func (s *Store) exclusiveContents(before, epoch, after cow.Epoch) (bytes int64, err error) {
	r := between{before, epoch, min(after, s.pool.Current())}
	from, to, err := s.quieterSide(r)
	if err != nil {
		return 0, err
	}
	dropped := map[meta.Ino][]cow.Epoch{}
	var failed error
	err = s.db.Touched(from, to, func(e cow.Epoch, k meta.Key) bool {
		if k.Kind() != meta.KindInode {
			return true
		}
		var unread []cow.Epoch
		if unread, _, failed = s.unread(versionOf{e, k}, r); len(unread) > 0 {
			dropped[k.Ino()] = append(dropped[k.Ino()], unread...)
		}
		return failed == nil
	})
	if failed != nil || err != nil {
		return 0, cmp.Or(failed, err)
	}
	b := s.db.NewBatch()
	defer b.Discard()
	for ino, epochs := range dropped {
		n, err := s.dropContents(b, ino, epochs)
		if err != nil {
			return 0, err
		}
		bytes += n
	}
	return bytes, nil
}

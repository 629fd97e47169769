package snapshot

import "fmt"

// Rename gives a snapshot another name, durably. Errors: ErrUnknown, ErrName, ErrExists.
func (s *Store) Rename(old, new string) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.busy.Done()
	turn := s.turns.ticket() // a snapshot that is being written is waited for: its commit writes the record, too
	turn.wait()
	defer turn.done()
	c := s.snaps
	c.mu.Lock()
	e, err := c.find(old)
	if err == nil {
		err = checkSnapshotName(new)
	}
	if _, taken := c.byName[new]; err == nil && taken && new != old {
		err = fmt.Errorf("%q: %w", new, ErrExists)
	}
	if err != nil || new == old {
		c.mu.Unlock()
		if err != nil {
			return fmt.Errorf("rename snapshot %w", err)
		}
		return nil
	}
	c.byName[new] = nil
	rec := e.rec
	c.mu.Unlock()
	rec.Name = new
	err = s.putSnapshots(rec)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		delete(c.byName, new)
		return fmt.Errorf("rename snapshot %q: %w", old, err)
	}
	delete(c.byName, old)
	e.rec.Name = new
	c.byName[new] = e
	return nil
}

package fs

import (
	"fmt"
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot"
)

// take pushes what the kernel holds dirty, then takes a snapshot. The kernel is not notified, but where the snapshot fails after
// somebody may have seen it.
func (m *Mount) take(r snapshot.Request) (snapshot.Taken, error) {
	if err := m.writable(); err != nil {
		return snapshot.Taken{}, err
	}
	if err := m.push(); err != nil {
		return snapshot.Taken{}, fmt.Errorf("snapshot: %w", err)
	}
	r.Hidden = func(i snapshot.Info) {
		m.views.drop(i.Epoch)
		m.touched()
		go m.announceGone(i.Epoch, i.Name) // the caller may hold locks
	}
	taken, err := m.store.Snapshot(r)
	m.touched()
	return taken, err
}

// remove deletes snapshots, and returns those that are gone, which a failure half way may also leave some of. The kernel is
// not notified.
func (m *Mount) remove(names []string, dryRun bool) ([]snapshot.Info, []snapshot.Deleted, error) {
	if err := m.writable(); err != nil && !dryRun {
		return nil, nil, err
	}
	var gone []snapshot.Info
	deleted, err := m.store.Delete(names, dryRun, m.hiding(&gone))
	if len(gone) > 0 {
		m.touched()
	}
	return gone, deleted, err
}

// hiding returns what is called for each snapshot that is out of sight: it notes it in gone.
func (m *Mount) hiding(gone *[]snapshot.Info) func(snapshot.Info) {
	return func(i snapshot.Info) {
		m.views.drop(i.Epoch)
		*gone = append(*gone, i)
	}
}

// rename renames a snapshot. The kernel is not notified.
func (m *Mount) rename(old, new string) error {
	if err := m.writable(); err != nil {
		return err
	}
	err := m.store.Rename(old, new)
	m.touched()
	return err
}

func (m *Mount) writable() error {
	if m.readOnly() {
		return fmt.Errorf("mounted read-only: %w", syscall.EROFS)
	}
	return nil
}

// Snapshot pushes what the kernel holds dirty, takes a snapshot and makes it visible under .snapshots, from the freeze
// on. Not for handlers: see announce.
func (m *Mount) Snapshot(r snapshot.Request) (snapshot.Taken, error) {
	frozen := r.Frozen
	var visible chan struct{}
	var name string
	r.Frozen = func(t snapshot.Taken) {
		name, visible = t.Name, make(chan struct{})
		go func() { // the caller may hold locks
			defer close(visible)
			m.announce(name)
		}()
		if frozen != nil {
			frozen(t)
		}
	}
	taken, err := m.take(r)
	if visible != nil {
		<-visible
		if err != nil { // it was there for a moment, and is not
			m.announce(name)
		}
	}
	return taken, err
}

// Delete deletes snapshots, all or none, and says what each gave back (or would). Not for handlers: see announce.
func (m *Mount) Delete(names []string, dryRun bool) ([]snapshot.Deleted, error) {
	gone, deleted, err := m.remove(names, dryRun)
	for _, info := range gone {
		m.announceGone(info.Epoch, info.Name)
	}
	return deleted, err
}

// Drop deletes the snapshot of epoch e, whatever it is called by now. Not for handlers: see announce.
func (m *Mount) Drop(e cow.Epoch) error {
	var gone []snapshot.Info
	_, err := m.store.Drop(e, m.hiding(&gone))
	m.touched()
	for _, info := range gone {
		m.announceGone(info.Epoch, info.Name)
	}
	return err
}

// Rename renames a snapshot. Not for handlers: see announce.
func (m *Mount) Rename(old, new string) error {
	if err := m.rename(old, new); err != nil {
		return err
	}
	m.announce(old)
	m.announce(new)
	return nil
}

// List returns the snapshots, oldest first.
func (m *Mount) List() ([]snapshot.Info, error) { return m.store.List() }

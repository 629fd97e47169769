package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// State of a snapshot.
type State string

// The states that users see. A snapshot that is being deleted is not seen.
const (
	Writing State = "writing" // frozen and readable; its bytes are not all durable yet
	Durable State = "durable"
	Failed  State = "failed" // being removed, because its bytes could not be written
)

// Info describes one snapshot. Bytes is what only it holds; List fills it in.
type Info struct {
	Name        string    `json:"name"`
	Epoch       cow.Epoch `json:"epoch"`
	Time        time.Time `json:"time"`
	State       State     `json:"state"`
	Held        bool      `json:"held"`
	Bytes       int64     `json:"bytes"`
	Description string    `json:"description"`
	Temporary   bool      `json:"temporary,omitempty"` // see Request
}

// catalogue is the table of snapshots in memory.
type catalogue struct {
	mu      sync.Mutex
	byName  map[string]*snap    // GUARDED_BY mu; names that are being taken are reserved with nil
	byEpoch map[cow.Epoch]*snap // GUARDED_BY mu; also those that are being removed
}

// snap is one snapshot.
type snap struct {
	rec    meta.Snapshot
	failed bool
	hidden bool   // being removed: no new view
	views  int    // views that are out
	unused func() // called once when hidden and the last view is back
	sized  *size
}

// size is what a snapshot alone holds, which stays so as long as its neighbours do.
type size struct {
	before, after cow.Epoch
	bytes         int64
}

func newCatalogue(recs []meta.Snapshot) *catalogue {
	c := &catalogue{byName: map[string]*snap{}, byEpoch: map[cow.Epoch]*snap{}}
	for _, rec := range recs {
		e := &snap{rec: rec, hidden: passing(&rec)}
		c.byEpoch[rec.Epoch] = e
		if !e.hidden {
			c.byName[rec.Name] = e
		}
	}
	return c
}

// passing reports whether the next start removes a snapshot: it was not durable, or was of use only to a command of the last life.
func passing(rec *meta.Snapshot) bool {
	return rec.State != meta.Durable || rec.Temporary && len(rec.Holds) == 0
}

func (e *snap) info() Info {
	i := Info{Name: e.rec.Name, Epoch: e.rec.Epoch, Time: e.rec.Time, State: Durable, Held: len(e.rec.Holds) > 0, Description: e.rec.Description,
		Temporary: e.rec.Temporary}
	switch {
	case e.failed:
		i.State = Failed
	case e.rec.State == meta.Pending:
		i.State = Writing
	}
	return i
}

// checkSnapshotName returns ErrName for a name that no snapshot may have.
func checkSnapshotName(name string) error {
	if name == "" || len(name) > 255 || name == "." || name == ".." || name[0] == '-' || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	return nil
}

// nameLayout is the default name, in UTC: it sorts by time and has no colon.
const nameLayout = "2006-01-02T150405.000Z"

// reserve takes a name, the default one where name is empty.
func (c *catalogue) reserve(name string, now time.Time) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name != "" {
		if err := checkSnapshotName(name); err != nil {
			return "", err
		}
		if _, taken := c.byName[name]; taken {
			return "", fmt.Errorf("%q: %w", name, ErrExists)
		}
		c.byName[name] = nil
		return name, nil
	}
	for ; ; now = now.Add(time.Millisecond) { // many in one millisecond
		name = now.UTC().Format(nameLayout)
		if _, taken := c.byName[name]; !taken {
			c.byName[name] = nil
			return name, nil
		}
	}
}

// drop gives a reserved name back, or forgets the name of a snapshot.
func (c *catalogue) drop(name string) {
	c.mu.Lock()
	delete(c.byName, name)
	c.mu.Unlock()
}

// add makes a snapshot visible under its reserved name.
func (c *catalogue) add(rec meta.Snapshot) *snap {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &snap{rec: rec}
	c.byName[rec.Name] = e
	c.byEpoch[rec.Epoch] = e
	return e
}

// find returns a visible snapshot by name; ErrUnknown.
func (c *catalogue) find(name string) (*snap, error) {
	if e := c.byName[name]; e != nil && !e.failed {
		return e, nil
	}
	return nil, fmt.Errorf("%q: %w", name, ErrUnknown)
}

// update changes an entry under the lock.
func (c *catalogue) update(e *snap, change func(*snap)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(e)
}

// hideThen makes a snapshot invisible, calls hidden, and has unused called when no view of it is out (at once if none is).
func (c *catalogue) hideThen(e *snap, hidden, unused func()) {
	c.mu.Lock()
	if c.byName[e.rec.Name] == e {
		delete(c.byName, e.rec.Name)
	}
	e.hidden = true
	e.views++ // ours: unused is not called before hidden is done
	e.unused = unused
	c.mu.Unlock()
	hidden()
	c.release(e)
}

// forget removes a snapshot that is gone.
func (c *catalogue) forget(epoch cow.Epoch) {
	c.mu.Lock()
	delete(c.byEpoch, epoch)
	c.mu.Unlock()
}

// neighbours returns the epochs of the snapshots before and after e, 0 and the highest epoch where there is none. Those that
// are being removed count.
func (c *catalogue) neighbours(e cow.Epoch) (before, after cow.Epoch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	after = meta.Latest
	for x := range c.byEpoch {
		if x < e {
			before = max(before, x)
		}
		if x > e {
			after = min(after, x)
		}
	}
	return before, after
}

// bound returns the first content id that was born after the freeze of snapshot e; of one that is not known, more than any.
func (c *catalogue) bound(e cow.Epoch) cow.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.byEpoch[e]; x != nil {
		return x.rec.NextContent
	}
	return ^cow.ID(0)
}

// entries returns the visible snapshots, oldest first.
func (c *catalogue) entries() []*snap {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*snap
	for _, e := range c.byName {
		if e != nil && !e.failed {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *snap) int { return int(a.rec.Epoch) - int(b.rec.Epoch) })
	return out
}

// anyPending reports whether one of the snapshots is not committed yet.
func (c *catalogue) anyPending(entries []*snap) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(entries, func(e *snap) bool { return e.rec.State == meta.Pending })
}

// nameOf returns the name of the visible snapshot of epoch e; ErrUnknown.
func (c *catalogue) nameOf(e cow.Epoch) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.byEpoch[e]
	if x == nil || x.hidden || x.failed {
		return "", fmt.Errorf("snapshot of epoch %d: %w", e, ErrUnknown)
	}
	return x.rec.Name, nil
}

// Find returns the snapshot of a name, without Bytes; ErrUnknown.
func (s *Store) Find(name string) (Info, error) {
	s.snaps.mu.Lock()
	defer s.snaps.mu.Unlock()
	e, err := s.snaps.find(name)
	if err != nil {
		return Info{}, err
	}
	return e.info(), nil
}

// View returns the frozen tree of epoch e, ErrUnknown if there is none; Release must be called. While it is out the
// snapshot's data stays, even if it is deleted.
func (s *Store) View(e cow.Epoch) (*Frozen, error) {
	c := s.snaps
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.byEpoch[e]
	if x == nil || x.hidden || x.failed {
		return nil, fmt.Errorf("snapshot %d: %w", e, ErrUnknown)
	}
	x.views++
	return newFrozen(s.db, s.pool, e, sync.OnceFunc(func() { c.release(x) })), nil
}

func (c *catalogue) release(x *snap) {
	c.mu.Lock()
	x.views--
	var unused func()
	if x.views == 0 {
		unused, x.unused = x.unused, nil
	}
	c.mu.Unlock()
	if unused != nil {
		unused()
	}
}

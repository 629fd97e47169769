package snapshot

import (
	"errors"
	"testing"

	"github.com/snapfs/snapfs/cow"
)

// TestTemporary: a temporary snapshot is dropped by its epoch whatever it is called by then, and does not outlive the
// store's life unless somebody holds it; an older snapshot still shows what it showed.
func TestTemporary(t *testing.T) {
	w := newStoreWorld(t, Options{})
	create(t, w, "one")
	w.ok("snapshot", w.snapshot("before", true))
	take := func(name string) cow.Epoch {
		taken, err := w.s.Snapshot(Request{Name: name, Temporary: true})
		w.ok("snapshot "+name, err)
		info, err := w.s.Find(name)
		if err != nil || !info.Temporary || info.State != Durable {
			t.Fatalf("%s is %+v, %v", name, info, err)
		}
		return taken.Epoch
	}
	renamed := take("first")
	create(t, w, "two")
	w.ok("rename", w.s.Rename("first", "second"))
	hidden := cow.Epoch(0)
	dropped, err := w.s.Drop(renamed, func(i Info) { hidden = i.Epoch })
	w.ok("drop", err)
	if hidden != renamed || dropped.Name != "second" {
		t.Errorf("dropped %+v; caches were told of %d, not of %d", dropped, hidden, renamed)
	}
	if _, err := w.s.Drop(renamed, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("dropped again: %v", err)
	}
	take("third")
	create(t, w, "three")
	take("held")
	w.s.snaps.mu.Lock()
	held := w.s.snaps.byName["held"]
	held.rec.Holds = []string{"somebody"}
	w.s.snaps.mu.Unlock()
	w.ok("hold", w.s.putSnapshots(held.rec))
	if _, err := w.s.Drop(held.rec.Epoch, nil); !errors.Is(err, ErrHeld) {
		t.Errorf("dropped although it is held: %v", err)
	}
	w.want["held"] = dump(t, w.s.Live())
	w.ok("close", w.s.Close())
	w.open()
	w.verify() // "before" and "held", nothing else
}

// create makes an empty file in the root.
func create(t *testing.T, w *storeWorld, name string) {
	t.Helper()
	_, err := w.s.Live().Create(Root, name, Spec{Mode: 0o100644})
	w.ok("create "+name, err)
}

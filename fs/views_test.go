package fs

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot"
)

// takeSnapshot returns the epoch of a new snapshot.
func takeSnapshot(t *testing.T, m *Mount, name string) cow.Epoch {
	t.Helper()
	taken, err := m.Snapshot(snapshot.Request{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return taken.Epoch
}

func (v *views) idle() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.open)
}

func TestViewsAreSharedAndBounded(t *testing.T) {
	m := newTestMount(t)
	var epochs []cow.Epoch
	for i := range maxIdleViews + 8 {
		epochs = append(epochs, takeSnapshot(t, m, fmt.Sprint(i)))
	}
	v := newViews(m.store)
	defer v.close()
	first, err := v.get(epochs[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range epochs[1:] {
		r, err := v.get(e)
		if err != nil {
			t.Fatal(err)
		}
		v.put(r)
	}
	if n := v.idle(); n > maxIdleViews {
		t.Errorf("%d views are kept, the bound is %d", n, maxIdleViews)
	}
	again, err := v.get(epochs[0]) // in use all the time, so never evicted
	if err != nil || again != first {
		t.Errorf("the view in use was opened twice: %v", err)
	}
	v.put(first)
	v.put(again)
}

func TestViewOfDeletedSnapshot(t *testing.T) {
	m := newTestMount(t)
	e := takeSnapshot(t, m, "s")
	used, err := m.views.get(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Delete([]string{"s"}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := m.views.get(e); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("a new view of a deleted snapshot: %v", err)
	}
	if _, err := used.view.Stat(snapshot.Root); err != nil {
		t.Errorf("the view that was out: %v", err)
	}
	if n := m.views.idle(); n != 0 {
		t.Errorf("%d views are kept", n)
	}
	m.views.put(used)
}

// TestViewsWhileDeleting: however it comes, no view of a deleted snapshot is kept, as that would keep its data.
func TestViewsWhileDeleting(t *testing.T) {
	m := newTestMount(t)
	for i := range 30 {
		name := fmt.Sprint(i)
		e := takeSnapshot(t, m, name)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for {
					r, err := m.views.get(e)
					if err != nil {
						if !errors.Is(err, syscall.ESTALE) {
							t.Error(err)
						}
						return
					}
					m.views.put(r)
				}
			})
		}
		if _, err := m.Delete([]string{name}, false); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if n := m.views.idle(); n != 0 {
			t.Fatalf("%d views of deleted snapshots are kept", n)
		}
	}
}

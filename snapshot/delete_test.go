package snapshot

import (
	"errors"
	"sync"
	"syscall"
	"testing"

	"github.com/snapfs/snapfs/cow"
)

// TestDeleteWhileFreezing: while a snapshot is being removed the next one is frozen, and then the live tree changes what the
// new one shows. The removal must not take for unread what only the new snapshot reads (I3).
func TestDeleteWhileFreezing(t *testing.T) {
	var w *storeWorld
	var once sync.Once
	meanwhile := func() {}
	w = newStoreWorld(t, Options{hook: func(op cow.Op) error {
		if op.Kind == cow.OpRemoveUndo {
			once.Do(func() { meanwhile() })
		}
		return nil
	}})
	l := w.s.Live()
	a, err := l.Create(Root, "name", Spec{Mode: syscall.S_IFREG | 0o644})
	w.ok("create", err)
	h, err := l.OpenFile(a.Ino)
	w.ok("open", err)
	defer h.Close()
	_, err = h.WriteAt(make([]byte, cow.PageSize), 0, false)
	w.ok("write", err)
	w.ok("snapshot", w.snapshot("one", true))
	_, err = h.WriteAt([]byte("new"), 0, false)
	w.ok("write", err)
	w.ok("sync", h.Sync(false)) // now there is an undo log, whose removal the hook sees
	meanwhile = func() {
		w.ok("snapshot", w.snapshot("two", false))
		w.ok("rename", l.Rename(Root, "name", Root, "other", 0))
	}
	delete(w.want, "one")
	_, err = w.s.Delete([]string{"one"}, false, nil)
	w.ok("delete", err)
	w.settle()
	if len(w.want) != 1 {
		t.Fatal("no snapshot was taken meanwhile: the test tests nothing")
	}
	w.verify()
	w.check()
}

// TestDeleteWhileRemovingAName: a snapshot is removed between the moment at which the live tree looks at what a name hides and the one
// at which it removes that name. What the snapshot before shows must not be seen in the live tree again.
func TestDeleteWhileRemovingAName(t *testing.T) {
	w := newStoreWorld(t, Options{})
	l := w.s.Live()
	file := Spec{Mode: syscall.S_IFREG | 0o644}
	_, err := l.Create(Root, "name", file)
	w.ok("create", err)
	w.ok("snapshot", w.snapshot("one", true))
	w.ok("unlink", l.Unlink(Root, "name"))
	w.ok("snapshot", w.snapshot("two", true))
	_, err = l.Create(Root, "name", file)
	w.ok("create", err)

	func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		e, err := l.doomed("unlink", Root, "name")
		w.ok("look", err)
		_, err = w.s.Delete([]string{"two"}, false, nil)
		w.ok("delete", err)
		delete(w.want, "two")
		c, err := l.begin()
		w.ok("begin", err)
		defer c.end()
		c.removeEntry(&e)
		w.ok("commit", c.commit())
	}()
	if a, err := l.Lookup(Root, "name"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the removed name leads to inode %d, %v", a.Ino, err)
	}
	w.verify()
}

package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
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
		w.ok("rename", failure(l.Rename(Root, "name", Root, "other", 0)))
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

// noneUnread checks that no version of the namespace is kept which nobody reads: between two snapshots that follow each other there is at
// most one of every key, and none is a tombstone with nothing below, but one that is marked to go with the next snapshot.
func (w *storeWorld) noneUnread() {
	w.t.Helper()
	var snaps []cow.Epoch
	for e := range w.s.snaps.byEpoch {
		snaps = append(snaps, e)
	}
	seen := map[meta.Key]bool{}
	marked := map[versionOf]bool{}
	w.ok("touched", w.s.db.Touched(0, meta.Latest-1, func(e cow.Epoch, k meta.Key) bool {
		marked[versionOf{e, k}] = true
		return true
	}))
	err := w.s.db.Touched(0, meta.Latest-1, func(_ cow.Epoch, k meta.Key) bool {
		if seen[k] {
			return true
		}
		seen[k] = true
		vs, err := w.s.db.Versions(k)
		w.ok("versions", err)
		for i := 1; i < len(vs); i++ {
			if !slices.ContainsFunc(snaps, func(s cow.Epoch) bool { return vs[i].Epoch <= s && s < vs[i-1].Epoch }) {
				w.t.Errorf("%q has versions of epochs %d and %d, snapshots are %d", k, vs[i-1].Epoch, vs[i].Epoch, snaps)
			}
		}
		if n := len(vs); n > 0 && vs[n-1].Tombstone && vs[n-1].Epoch < w.s.pool.Current() && !marked[versionOf{vs[n-1].Epoch + 1, k}] {
			w.t.Errorf("%q has a tombstone of epoch %d with nothing below", k, vs[n-1].Epoch)
		}
		return true
	})
	w.ok("touched", err)
}

// TestDeletionCostsWhatChanged: the deletion of a snapshot looks through what changed before it or after it, whichever is less.
func TestDeletionCostsWhatChanged(t *testing.T) {
	w := newStoreWorld(t, Options{})
	l := w.s.Live()
	makeFiles := func(dir string, n int) {
		d, err := l.Create(Root, dir, Spec{Mode: syscall.S_IFDIR | 0o755})
		w.ok("mkdir", err)
		for i := range n {
			_, err := l.Create(d.Ino, fmt.Sprint(i), Spec{Mode: syscall.S_IFREG | 0o644})
			w.ok("create", err)
		}
	}
	makeFiles("many", 2000)
	w.ok("snapshot", w.snapshot("a", true))
	makeFiles("few", 3)
	w.ok("snapshot", w.snapshot("b", true))
	makeFiles("more", 2000)
	for name, want := range map[string]string{"a": "after", "b": "before"} {
		info, err := w.s.Find(name)
		w.ok("find", err)
		before, after := w.s.snaps.neighbours(info.Epoch)
		r := between{before, info.Epoch, min(after, w.s.pool.Current())}
		from, _, err := w.s.quieterSide(r)
		w.ok("quieter side", err)
		side := "before"
		if from > info.Epoch {
			side = "after"
		}
		if side != want {
			t.Errorf("less changed %s snapshot %s", side, name)
		}
	}
	for _, name := range []string{"a", "b"} {
		_, err := w.s.Delete([]string{name}, false, nil)
		w.ok("delete", err)
		delete(w.want, name)
		w.noneUnread()
	}
	w.verify()
	w.check()
}

// TestDeleteSeveralFails: the removal of the first of two snapshots fails. What is recorded as being deleted is out of sight, as it is
// after the next start.
func TestDeleteSeveralFails(t *testing.T) {
	fails := false
	w := newStoreWorld(t, Options{hook: func(op cow.Op) error {
		if op.Kind == cow.OpRemoveUndo && fails {
			return syscall.EIO
		}
		return nil
	}})
	a, err := w.s.Live().Create(Root, "name", Spec{Mode: syscall.S_IFREG | 0o644})
	w.ok("create", err)
	h, err := w.s.Live().OpenFile(a.Ino)
	w.ok("open", err)
	w.handles[a.Ino] = h
	for _, name := range []string{"one", "two", "three"} {
		_, err = h.WriteAt([]byte(name), 0, false)
		w.ok("write", err)
		w.ok("sync", h.Sync(false))
		w.ok("snapshot", w.snapshot(name, true))
	}
	delete(w.want, "one")
	delete(w.want, "two")
	fails = true
	var hidden []string
	if _, err := w.s.Delete([]string{"one", "two"}, false, func(i Info) { hidden = append(hidden, i.Name) }); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the deletion: %v", err)
	}
	if len(hidden) != 2 {
		t.Errorf("caches were told of %q", hidden)
	}
	w.verify() // "three", nothing else
	fails = false
	w.reopen()
	w.verify()
	w.check()
}

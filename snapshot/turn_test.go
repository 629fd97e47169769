package snapshot

import (
	"syscall"
	"testing"
	"time"

	"github.com/snapfs/snapfs/cow"
)

// TestDeleteBesideFlush deletes a snapshot while an fsync waits for the writer of a younger one, whose turn comes after the
// deletion: the deletion must not wait for that fsync in its turn.
func TestDeleteBesideFlush(t *testing.T) {
	w := newStoreWorld(t, Options{})
	l := w.s.Live()
	a, err := l.Create(Root, "f", Spec{Mode: syscall.S_IFREG | 0o644})
	w.ok("create", err)
	h, err := l.OpenFile(a.Ino)
	w.ok("open", err)
	defer h.Close()
	page := make([]byte, 4*cow.PageSize)
	_, err = h.WriteAt(page, 0, false)
	w.ok("write", err)
	w.ok("snapshot", w.snapshot("one", true))
	page[0] = 1
	_, err = h.WriteAt(page[:10], 0, false) // private
	w.ok("write", err)
	_, err = l.SetAttr(a.Ino, Change{Set: SetSize, Size: 2*cow.PageSize + 5}) // the tail may be cut
	w.ok("truncate", err)
	synced, deleted := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := w.s.Delete([]string{"one"}, false, func(Info) { // in the turn of the deletion
			if err := w.snapshot("two", false); err != nil {
				t.Error(err)
			}
			go func() { synced <- h.Sync(false) }()
			time.Sleep(30 * time.Millisecond)
		})
		deleted <- err
	}()
	for what, done := range map[string]chan error{"delete": deleted, "fsync": synced} {
		select {
		case err := <-done:
			w.ok(what, err)
		case <-time.After(20 * time.Second):
			t.Fatalf("%s hangs", what)
		}
	}
	w.settle()
	delete(w.want, "one")
	w.verify()
	w.check()
}

// TestDeleteOfYounger deletes a snapshot by name that is frozen while the deletion waits for its turn: its commit comes after that, and must not
// bring it back.
func TestDeleteOfYounger(t *testing.T) {
	w := newStoreWorld(t, Options{})
	before := w.s.turns.ticket() // somebody who takes his time
	before.wait()
	deleted := make(chan error, 1)
	go func() {
		_, err := w.s.Delete([]string{"young"}, false, nil)
		deleted <- err
	}()
	for drawn := false; !drawn; time.Sleep(time.Millisecond) {
		w.s.turns.mu.Lock()
		drawn = w.s.turns.last != before.mine
		w.s.turns.mu.Unlock()
	}
	_, err := w.s.Snapshot(Request{Name: "young", NoWait: true})
	w.ok("snapshot", err)
	before.done()
	select {
	case err := <-deleted:
		w.ok("delete", err)
	case <-time.After(20 * time.Second):
		t.Fatal("delete hangs")
	}
	w.settle()
	w.verify()
	w.reopen()
	if list := w.s.Visible(); len(list) > 0 {
		t.Errorf("after the deletion there is %+v", list)
	}
	w.verify()
	w.check()
}

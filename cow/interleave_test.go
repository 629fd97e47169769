package cow

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRemoveOfCapturedContent removes a content that nobody has any more while a writer is about to write its pages: the
// snapshot must not suffer.
func TestRemoveOfCapturedContent(t *testing.T) {
	w := newWorld(t, Options{})
	gone, kept := w.create(), w.create()
	must(t, w.write(gone, 0, fill(1, 4*PageSize)))
	must(t, w.write(kept, 0, fill(2, 4*PageSize)))
	s1, err := w.freeze()
	must(t, err)
	must(t, w.commit(s1))
	must(t, w.write(gone, 0, fill(3, PageSize)))
	must(t, w.write(kept, 0, fill(4, PageSize)))
	w.closeFile(gone)
	delete(w.live, gone)
	delete(w.inode, gone)
	s2, err := w.freeze() // captures the private page of a content that it does not show
	must(t, err)
	delete(s1.files, gone) // as if s1 had been deleted before
	removed := make(chan error, 1)
	go func() { removed <- w.pool.Remove(gone) }()
	time.Sleep(20 * time.Millisecond)
	must(t, w.commit(s2))
	must(t, <-removed)
	if w.pool.Stats().PrivateBytes != 0 {
		t.Error("private pages of a removed content are left")
	}
	must(t, w.pool.Flush())
	if _, err := os.Stat(w.dir + "/base/" + basePath(gone)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the base file is there still:", err)
	}
	w.verify()
	w.check()
}

// TestSyncBaseWaitsForFsync: bytes of which an fsync has begun are not durable before it is done.
func TestSyncBaseWaitsForFsync(t *testing.T) {
	var block atomic.Bool
	begun, goOn := make(chan struct{}), make(chan struct{})
	w := newWorld(t, Options{Hook: func(op Op) error {
		if op.Kind == OpSyncBase && block.CompareAndSwap(true, false) {
			close(begun)
			<-goOn
			return fmt.Errorf("%w: %w", errInjected, unix.EIO)
		}
		return nil
	}})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 3*PageSize)))
	block.Store(true)
	synced := make(chan error, 1)
	go func() { synced <- w.file(id).Sync() }()
	<-begun
	done := make(chan error, 1)
	go func() { done <- w.pool.SyncBase() }()
	select {
	case err := <-done:
		t.Errorf("SyncBase returned %v while an fsync of the bytes was under way", err)
		close(goOn)
		return
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	if err := <-synced; !errors.Is(err, unix.EIO) {
		t.Errorf("fsync: %v, want EIO", err)
	}
	if err := <-done; !errors.Is(err, unix.EIO) {
		t.Errorf("SyncBase: %v, want EIO: the bytes are lost", err)
	}
	// I11: nobody forgets, not even when the file is closed.
	w.closeFile(id)
	if err := w.pool.SyncBase(); !errors.Is(err, unix.EIO) {
		t.Errorf("SyncBase, again: %v, want EIO", err)
	}
	if err := w.file(id).Sync(); !errors.Is(err, unix.EIO) {
		t.Errorf("fsync, opened again: %v, want EIO", err)
	}
}

// TestNewFileIsDurable: the name of a base file counts, also where nothing was written into it.
func TestNewFileIsDurable(t *testing.T) {
	synced := map[ID]bool{}
	w := newWorld(t, Options{Hook: func(op Op) error {
		if op.Kind == OpSyncBase {
			synced[op.ID] = true
		}
		return nil
	}})
	id := w.create()
	must(t, w.truncate(id, 10*PageSize))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	if !synced[id] {
		t.Error("a snapshot is durable before the base file of a content that it has")
	}
}

// TestLogUsedWhileRemoved saves a page that an older snapshot reads in a log between the moment when nothing in it is needed and
// its removal.
func TestLogUsedWhileRemoved(t *testing.T) {
	w := newWorld(t, Options{})
	a, b := w.create(), w.create()
	must(t, w.write(a, 0, fill(1, 2*PageSize)))
	must(t, w.write(b, 0, fill(2, 2*PageSize)))
	for range 2 {
		s, err := w.freeze()
		must(t, err)
		must(t, w.commit(s))
	}
	old, young := w.snaps[0], w.snaps[1]
	log, err := w.pool.logFor(young.epoch, w.pool.Current()) // empty yet
	must(t, err)
	w.snaps = w.snaps[:1]
	w.pool.forgetSnapshot(young.epoch)
	_, kept, end, err := w.pool.unneeded(log, old.epoch, w.bound)
	if kept != 0 || err != nil {
		t.Fatal(kept, err)
	}
	must(t, w.write(a, 0, fill(3, PageSize))) // saved in that log, for the old snapshot
	must(t, w.pool.Flush())
	if _, removed, err := w.pool.removeLog(log, end); removed || err != nil {
		t.Errorf("a log in use was removed: %v, %v", removed, err)
	}
	w.verify()
	w.check()
}

// TestSaveMeetsRemovedLog removes a log under a save that had chosen it: the save takes another.
func TestSaveMeetsRemovedLog(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 4*PageSize)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, 0, fill(2, 2*PageSize)))
	removed := false
	w.index.onFind = func() {
		if l := w.pool.log(s.epoch); l != nil && !removed {
			l.trim() // with room promised it would stay
			_, removed, err = w.pool.removeLog(l, PageSize)
		}
	}
	must(t, w.sync(id))
	if !removed || err != nil {
		t.Fatal("the log was not removed:", err)
	}
	w.verify()
	w.check()
}

// TestReservedRoomIsEnough (I6): whatever order pages are saved in, no byte of an undo log is written where no room was
// reserved before the write was accepted.
func TestReservedRoomIsEnough(t *testing.T) {
	var full atomic.Bool
	var end [10]atomic.Int64
	w := newWorld(t, Options{Hook: func(op Op) error {
		switch {
		case op.Kind == OpReserve && op.Log != 0:
			if full.Load() || op.Len >= reserveStep { // the disk has just what is asked for
				return unix.ENOSPC
			}
			end[op.Log].Store(op.Off + op.Len)
		case op.Kind == OpWriteUndo && op.Off > 0:
			if got := end[op.Log].Load(); op.Off+op.Len > got {
				return fmt.Errorf("undo log %d written up to %d, reserved up to %d: %w", op.Log, op.Off+op.Len, got, unix.ENOSPC)
			}
		}
		return nil
	}})
	var ids []ID
	for range 200 {
		id := w.create()
		must(t, w.write(id, 0, fill(byte(id), 8*PageSize)))
		ids = append(ids, id)
	}
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	for _, id := range ids {
		must(t, w.write(id, 0, fill(byte(id+1), PageSize)))
	}
	full.Store(true)
	for _, id := range ids[:50] { // needs room that nobody promised it: it is refused, or leaves the others theirs
		if err := w.zero(id, 2*PageSize, 4*PageSize, true, true); err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	for _, id := range ids { // each by itself: a header for every page
		must(t, w.sync(id))
	}
	w.verify()
}

// TestDeletionBetweenFreezeAndSave (I6): deleting the snapshot before one that is not saved yet leaves the room that writes were promised.
// Where it was the only other one nothing has to be saved at all.
func TestDeletionBetweenFreezeAndSave(t *testing.T) {
	for name, older := range map[string]int{"the only one": 0, "one of two": 1} {
		t.Run(name, func(t *testing.T) {
			var full atomic.Bool
			var end [10]atomic.Int64
			w := newWorld(t, Options{Hook: func(op Op) error {
				switch {
				case op.Kind == OpRemoveUndo:
					end[op.Log].Store(0)
				case op.Kind == OpReserve && op.Log != 0:
					if full.Load() {
						return unix.ENOSPC
					}
					end[op.Log].Store(op.Off + op.Len)
				case op.Kind == OpWriteUndo && op.Off > 0 && op.Off+op.Len > end[op.Log].Load():
					return fmt.Errorf("undo log %d is written beyond what was reserved: %w", op.Log, unix.ENOSPC)
				}
				return nil
			}})
			id := w.create()
			must(t, w.write(id, 0, fill(1, 20*PageSize)))
			for range older + 1 {
				s, err := w.freeze()
				must(t, err)
				must(t, w.commit(s))
			}
			must(t, w.write(id, 0, fill(2, 10*PageSize)))
			s, err := w.freeze()
			must(t, err)
			must(t, w.remove(w.snaps[older]))
			full.Store(true)
			must(t, w.commit(s))
			w.verify()
			if logs := w.pool.Logs(); len(logs) != older {
				t.Errorf("undo logs %v, want %d", logs, older)
			}
			w.check()
		})
	}
}

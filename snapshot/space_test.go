package snapshot

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// counterGate is a gate without bytes: a freeze is the next epoch.
type counterGate struct {
	mu    sync.RWMutex
	epoch cow.Epoch
}

func (g *counterGate) Enter() cow.Epoch { g.mu.RLock(); return g.epoch }
func (g *counterGate) Leave()           { g.mu.RUnlock() }

// space is a namespace: with a pool where bytes is set, else files stay empty.
type space struct {
	fs      *vfs.MemFS
	db      *meta.DB
	counter *counterGate
	live    *Live
	newest  cow.Epoch

	bytes   bool
	dir     string
	pool    *cow.Pool
	snaps   []cow.Epoch
	writing sync.WaitGroup  // snapshots whose bytes are not written yet
	last    <-chan struct{} // closed when the newest of them is
	failed  atomic.Pointer[error]
}

type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
	Cleanup(func())
}

func newSpace(t tester) *space {
	s := &space{fs: vfs.NewCrashableMem(), counter: &counterGate{epoch: 1}}
	s.open(t)
	return s
}

// newByteSpace returns a space whose files have bytes, below dir.
func newByteSpace(t tester, dir string) *space {
	s := &space{fs: vfs.NewCrashableMem(), bytes: true, dir: dir}
	s.open(t)
	return s
}

func (s *space) open(t tester) {
	t.Helper()
	report := func(err error) { t.Errorf("reported: %v", err) }
	db, err := meta.Open("meta", meta.Options{FS: s.fs, Report: report})
	if err != nil {
		t.Fatal(err)
	}
	if err := initRoot(db, 1, 0, 0, 0o755); err != nil {
		t.Fatal(err)
	}
	s.db = db
	if s.bytes {
		s.pool, err = cow.OpenPool(s.dir, s.snaps, s.newest+1, cow.Options{Index: db, FlushInterval: -1, Report: report})
		if err != nil {
			t.Fatal(err)
		}
		db.BeforeLog(s.pool.SyncOrdered)
	}
	s.live = newLive(db, s.pool, report)
	if !s.bytes {
		s.live.gate = s.counter
	}
	s.live.newest = func() cow.Epoch { return s.newest }
	if err := s.live.sweepOrphans(); err != nil {
		t.Fatal(err)
	}
}

func (s *space) close(t tester) {
	t.Helper()
	s.finish(t)
	if err := s.live.flushAttrs(); err != nil {
		t.Fatal(err)
	}
	if s.bytes {
		agree(t, "close the pool", s.pool.Close(), nil)
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
}

// freeze closes the epoch and returns its number.
func (s *space) freeze(t tester) cow.Epoch {
	t.Helper()
	if s.bytes {
		return s.freezeBytes(t)
	}
	s.counter.mu.Lock()
	defer s.counter.mu.Unlock()
	if err := s.live.flushAttrsLocked(s.counter.epoch); err != nil {
		t.Fatal(err)
	}
	s.newest = s.counter.epoch
	s.counter.epoch++
	return s.newest
}

func (s *space) freezeBytes(t tester) cow.Epoch {
	fz, err := s.pool.Freeze(func(e cow.Epoch) error {
		s.newest = e
		return s.live.flushAttrsLocked(e)
	})
	agree(t, "freeze", err, nil)
	s.snaps = append(s.snaps, fz.Epoch)
	before, done := s.last, make(chan struct{})
	s.last = done
	s.writing.Go(func() {
		defer close(done)
		if before != nil {
			<-before
		}
		time.Sleep(time.Millisecond) // so that the test goes on meanwhile
		if err := commitBytes(fz); err != nil {
			s.failed.Store(&err)
		}
	})
	return fz.Epoch
}

// commitBytes makes the bytes of a snapshot durable.
func commitBytes(fz *cow.Freeze) error {
	defer fz.Finish()
	for _, step := range []func() error{fz.Save, func() error { return fz.Write(nil) }, fz.Sync} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// finish waits until the bytes of all snapshots are written.
func (s *space) finish(t tester) {
	s.writing.Wait()
	if err := s.failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

func (s *space) frozen(e cow.Epoch) *Frozen { return newFrozen(s.db, s.pool, e, func() {}) }

// vfsCrash is a power loss that keeps nothing but what was synced.
var vfsCrash = vfs.CrashCloneCfg{}

// TestRenameOverDirectory: the directory that goes no longer counts in its parent's links.
func TestRenameOverDirectory(t *testing.T) {
	s := newSpace(t)
	defer s.close(t)
	inos := map[string]Ino{}
	for _, name := range []string{"from", "to"} {
		a, err := s.live.Create(Root, name, Spec{Mode: syscall.S_IFDIR | 0o700})
		agree(t, "mkdir", err, nil)
		b, err := s.live.Create(a.Ino, "sub", Spec{Mode: syscall.S_IFDIR | 0o700})
		agree(t, "mkdir", err, nil)
		inos[name], inos[name+"/sub"] = a.Ino, b.Ino
	}
	agree(t, "rename", failure(s.live.Rename(inos["from"], "sub", inos["to"], "sub", 0)), nil)
	for ino, want := range map[Ino]uint32{Root: 4, inos["from"]: 2, inos["to"]: 3, inos["from/sub"]: 2, inos["to/sub"]: 0} {
		if a, err := s.live.Stat(ino); err != nil || a.Nlink != want {
			t.Errorf("inode %d has nlink %d, %v, want %d", ino, a.Nlink, err, want)
		}
	}
	if p, err := s.live.Parent(inos["from/sub"]); err != nil || p != inos["to"] {
		t.Errorf("the moved directory is in %d, %v", p, err)
	}
}

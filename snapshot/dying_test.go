package snapshot

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/snapfs/snapfs/cow"
)

// dyingDisk fails what it is told to, from a moment on.
type dyingDisk struct {
	errno atomic.Uint64 // 0: all is well
	meta  func(op, path string) bool
	bytes func(op cow.Op) bool
}

func (d *dyingDisk) fault(op, path string) error {
	if e := d.errno.Load(); e != 0 && d.meta(op, path) {
		return fmt.Errorf("%s %s: %w", op, filepath.Base(path), syscall.Errno(e))
	}
	return nil
}

func (d *dyingDisk) hook(op cow.Op) error {
	if e := d.errno.Load(); e != 0 && op.Kind != cow.OpFork && op.Kind != cow.OpSynced && d.bytes(op) {
		return fmt.Errorf("%s: %w", op.Kind, syscall.Errno(e))
	}
	return nil
}

// TestDyingDisk: whatever of the disk fails while everybody is at work, each call returns, and so does Close. The next life finds a whole store.
// Where it fails for a moment only, and not for good, all goes on in this one.
func TestDyingDisk(t *testing.T) {
	always := func(string, string) bool { return true }
	never := func(string, string) bool { return false }
	tables := func(_, path string) bool { return strings.HasSuffix(path, ".sst") }
	all, none := func(cow.Op) bool { return true }, func(cow.Op) bool { return false }
	undo := func(op cow.Op) bool { return op.Kind == cow.OpWriteUndo || op.Kind == cow.OpReserve }
	for name, x := range map[string]struct {
		disk     *dyingDisk
		errno    syscall.Errno
		recovers bool
	}{
		"all":             {&dyingDisk{meta: always, bytes: all}, syscall.EIO, false},
		"metadata":        {&dyingDisk{meta: always, bytes: none}, syscall.EIO, false},
		"tables":          {&dyingDisk{meta: tables, bytes: none}, syscall.EIO, true},
		"bytes":           {&dyingDisk{meta: never, bytes: all}, syscall.EIO, false},
		"full for bytes":  {&dyingDisk{meta: never, bytes: undo}, syscall.ENOSPC, true},
		"full for tables": {&dyingDisk{meta: tables, bytes: undo}, syscall.ENOSPC, true},
	} {
		for _, noFork := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in process: %v", name, noFork), func(t *testing.T) {
				dieWith(t, x.disk, x.errno, x.recovers, noFork)
			})
		}
	}
}

func dieWith(t *testing.T, disk *dyingDisk, errno syscall.Errno, recovers, noFork bool) {
	disk.errno.Store(0)
	dir := filepath.Join(scratch(t), "store")
	s, err := Open(dir, Options{Create: true, FlushInterval: 3 * time.Millisecond, DirtyLimit: 4 << 20, noFork: noFork,
		hook: disk.hook, MetaFault: disk.fault})
	must(t, err)
	seed := rand.Uint64()
	t.Log("seed", seed)
	var stop atomic.Bool
	var all sync.WaitGroup
	for k := range 8 {
		w := &dying{s: s, r: rand.New(rand.NewPCG(seed, uint64(k)))}
		all.Go(func() {
			for !stop.Load() {
				w.act()
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	disk.errno.Store(uint64(errno))
	time.Sleep(150 * time.Millisecond)
	if recovers {
		disk.errno.Store(0)
		time.Sleep(150 * time.Millisecond)
	}
	stop.Store(true)
	returns(t, "the crowd", all.Wait)
	if recovers {
		for start := time.Now(); s.Stats().Mode != "rw" && time.Since(start) < time.Minute; {
			time.Sleep(time.Millisecond)
		}
		must(t, putFile(s, "file", 'c', 10_000))
		_, err := s.Snapshot(Request{Name: "afterwards"})
		must(t, err)
	}
	returns(t, "close", func() { err = s.Close() })
	if recovers && err != nil {
		t.Errorf("close: %v", err)
	}
	report, err := Check(dir)
	if err != nil || len(report.Problems) > 0 {
		t.Errorf("check: %+v, %v", report.Problems, err)
	}
}

// returns fails the test if do takes long: then somebody waits for ever.
func returns(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(3 * time.Minute):
		stacks := make([]byte, 1<<20)
		t.Fatalf("%s: somebody waits for ever\n%s", what, stacks[:runtime.Stack(stacks, true)])
	}
}

// dying does what users do, and does not mind if it fails.
type dying struct {
	s *Store
	r *rand.Rand
}

func (w *dying) act() {
	l, name := w.s.Live(), fmt.Sprint("f", w.r.IntN(6))
	switch w.r.IntN(12) {
	case 0:
		_, _ = w.s.Snapshot(Request{Name: fmt.Sprint("s", w.r.IntN(4)), NoWait: w.r.IntN(2) == 0})
	case 1:
		_, _ = w.s.Delete([]string{fmt.Sprint("s", w.r.IntN(4))}, false, nil)
	case 2:
		_ = w.s.tidy()
	case 3:
		_, _ = l.Rename(Root, name, Root, fmt.Sprint("f", w.r.IntN(6)), 0)
	case 4:
		_ = l.Unlink(Root, name)
	case 5:
		_ = l.SetXattr(Root, "user."+name, make([]byte, w.r.IntN(60_000)), 0)
	case 6:
		w.look()
	default:
		w.change(name)
	}
}

// look reads a snapshot.
func (w *dying) look() {
	for _, i := range w.s.Visible() {
		v, err := w.s.View(i.Epoch)
		if err != nil {
			continue
		}
		_ = v.ReadDir(Root, 0, func(e Dirent) bool {
			if f, err := v.Open(e.Ino); err == nil {
				_, _ = f.ReadAt(make([]byte, 1<<16), int64(w.r.IntN(1<<18)))
				_ = f.Close()
			}
			return true
		})
		v.Release()
	}
}

// change changes the bytes of a file, and syncs it now and then.
func (w *dying) change(name string) {
	l := w.s.Live()
	a, err := l.Lookup(Root, name)
	if errors.Is(err, syscall.ENOENT) {
		a, err = l.Create(Root, name, Spec{Mode: syscall.S_IFREG | 0o644})
	}
	if err != nil {
		return
	}
	h, err := l.OpenFile(a.Ino)
	if err != nil {
		return
	}
	defer h.Close()
	for range 4 {
		off, n := int64(w.r.IntN(1<<18)), 1+w.r.IntN(40_000)
		switch w.r.IntN(6) {
		case 0:
			_, _ = l.SetAttr(a.Ino, Change{Set: SetSize, Size: off})
		case 1:
			_ = h.Fallocate(3, off, int64(n), false)
		case 2:
			_ = h.Sync(w.r.IntN(2) == 0)
		default:
			_, _ = h.WriteAt(make([]byte, n), off, false)
		}
	}
}

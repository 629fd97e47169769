package meta

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// failingDisk fails writes and syncs of the log while fail is set.
type failingDisk struct{ fail atomic.Bool }

func (f *failingDisk) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileWrite, errorfs.OpFileFlush:
			if f.fail.Load() {
				return syscall.EIO
			}
		}
		return nil
	}))
}

// faultAt makes the i-th operation that changes the disk fail, and all after it if forever is set.
type faultAt struct {
	at      int64
	errno   syscall.Errno
	forever bool
	armed   atomic.Bool
	seen    atomic.Int64
	hits    atomic.Int64
}

func (f *faultAt) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !f.armed.Load() || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		n := f.seen.Add(1) - 1
		if n < f.at || n > f.at && !f.forever {
			return nil
		}
		f.hits.Add(1)
		return f.errno
	}))
}

// inSeconds fails the test if do takes long: then somebody waits for ever.
func inSeconds(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Fatalf("%s waits for ever", what)
	}
}

// load commits batches that fill several memtables, every third synced, and returns how many of them are known to be durable.
func load(d *DB, batches int) (durable int, err error) {
	for i := range batches {
		b := d.NewBatch()
		b.PutXattr(Ino(i+16), "user.x", bytes.Repeat([]byte{byte(i)}, 25_000), 1, 0)
		if _, e := b.Commit(i%3 == 2); e != nil {
			if err == nil {
				err = e
			}
		} else if i%3 == 2 && err == nil {
			durable = i + 1
		}
	}
	return durable, err
}

// TestEveryFailure runs a load whose i-th operation of the disk fails, for i = 0, 1, 2 ... until none does. Pebble neither panics nor
// hangs, what was said to be durable is there in the next life, and what is in memory can be read in this one.
func TestEveryFailure(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
		for _, forever := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v %v", errno, forever), func(t *testing.T) {
				t.Parallel()
				step := int64(7)
				if errno == syscall.EIO && !forever {
					step = 1
				}
				at := int64(0)
				for failWith(t, &faultAt{at: at, errno: errno, forever: forever}) {
					at += step
				}
				if at < 20 {
					t.Errorf("the load has only %d operations", at)
				}
			})
		}
	}
}

func failWith(t *testing.T, fault *faultAt) (hit bool) {
	fs := vfs.NewCrashableMem()
	d, err := Open("meta", Options{FS: fault.wrap(fs)})
	if err != nil {
		t.Fatal(err)
	}
	d.guard.patience, d.guard.rest = 10*time.Millisecond, time.Millisecond
	fault.armed.Store(true)
	var durable int
	inSeconds(t, "a commit", func() { durable, err = load(d, 24) })
	if err != nil && !errors.Is(err, fault.errno) && !errors.Is(err, syscall.EIO) {
		t.Errorf("fault at %d: %v", fault.at, err)
	}
	inSeconds(t, "a read", func() { wantLoad(t, d, fault.at, durable) })
	image := fs.CrashClone(vfs.CrashCloneCfg{})
	fault.armed.Store(false)
	inSeconds(t, "close", func() { _ = d.Close() })
	for _, fs := range []vfs.FS{image, fs} {
		d, err := Open("meta", Options{FS: fs})
		if err != nil {
			t.Fatalf("open after a fault at %d: %v", fault.at, err)
		}
		wantLoad(t, d, fault.at, durable)
		mustClose(t, d)
	}
	return fault.hits.Load() > 0
}

func wantLoad(t *testing.T, d *DB, at int64, durable int) {
	t.Helper()
	for i := range durable {
		v, _, err := d.Xattr(Ino(i+16), "user.x", Latest)
		if err != nil || len(v) != 25_000 || v[0] != byte(i) {
			t.Fatalf("fault at %d: attribute %d of %d has %d bytes, %v", at, i, durable, len(v), err)
		}
	}
}

// TestNoSpin: a table that cannot be made is not tried for all the time.
func TestNoSpin(t *testing.T) {
	var tries atomic.Int64
	failing := atomic.Bool{}
	d, err := Open("meta", Options{FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".sst") && failing.Load() {
			tries.Add(1)
			return syscall.EIO
		}
		return nil
	}))})
	if err != nil {
		t.Fatal(err)
	}
	failing.Store(true)
	start := time.Now()
	_, _ = load(d, 200)
	for tries.Load() == 0 && time.Since(start) < 20*time.Second {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond)
	if n, most := tries.Load(), int64(time.Since(start)/flushRest)+2; n == 0 || n > most {
		t.Errorf("a table was tried for %d times, want 1 to %d", n, most)
	}
	failing.Store(false)
	for d.Stuck() != nil && time.Since(start) < time.Minute { // it goes on by itself
		time.Sleep(time.Millisecond)
	}
	mustClose(t, d)
}

// noCompactions is a file system on which compactions cannot make tables while on is set.
type noCompactions struct {
	vfs.FS
	on *atomic.Bool
}

func (n noCompactions) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if n.on.Load() && strings.HasSuffix(name, ".sst") && category != flushCategory {
		return nil, syscall.EIO
	}
	return n.FS.Create(name, category)
}

// TestFailingCompactions: while all compactions fail changes are refused before Pebble makes anybody wait for them; then all goes on.
func TestFailingCompactions(t *testing.T) {
	var failing atomic.Bool
	var reported atomic.Int64
	fs := vfs.NewMem()
	d, err := Open("meta", Options{FS: noCompactions{fs, &failing}, Report: func(error) { reported.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	d.backlog.most, d.guard.rest = 8, time.Millisecond
	failing.Store(true)
	var durable int
	inSeconds(t, "a commit", func() {
		for range 50 {
			if durable, err = load(d, 170); err != nil {
				break
			}
		}
	})
	if !errors.Is(err, syscall.EIO) || !errors.Is(d.Stuck(), syscall.EIO) || d.Err() != nil {
		t.Errorf("commit: %v, stuck %v, failed %v", err, d.Stuck(), d.Err())
	}
	inSeconds(t, "a report", func() {
		for reported.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
	})
	wantLoad(t, d, 0, durable)
	failing.Store(false)
	for start := time.Now(); d.Stuck() != nil && time.Since(start) < time.Minute; {
		time.Sleep(time.Millisecond)
	}
	if durable, err = load(d, 24); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	mustClose(t, d)
	d = open(t, fs)
	defer mustClose(t, d)
	wantLoad(t, d, 0, durable)
}

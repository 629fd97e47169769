package meta

import (
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// guard is the file system that Pebble works on. Pebble ends the process, or stops with its locks held, where its log, its manifest or
// a mark cannot be written, so it never hears of such a failure:
//
//   - A full disk (ENOSPC, or EDQUOT) is met with the room that the store keeps back for it. Where that is used up, log and manifest
//     wait a while for somebody to make room, and tables fail, which Pebble repeats.
//   - Any other failure of log, manifest, mark or directory is final (I11). From then on the guard lets nothing through that would
//     change what the next Open finds: new logs and manifests go to memory, nothing is removed. It is as if the power had gone at
//     that moment, except that what was there, and what Pebble has in memory, can be read on. DB refuses all further changes.
type guard struct {
	vfs.FS
	fail     func(op string, err error) // keeps the first failure
	release  func(n int64) bool         // see Options.Release
	patience time.Duration              // how long log and manifest wait for room on a full disk
	rest     time.Duration              // before Pebble hears of a failed compaction, which it repeats at once
	dead     atomic.Bool                // after a failure
	open     atomic.Bool                // false while Open can still be refused: then failures go to Pebble
	void     *vfs.MemFS                 // where logs and manifests go after a failure

	before atomic.Pointer[func()]      // see DB.BeforeLog
	fault  func(op, name string) error // see Options.Fault

	hard atomic.Int64 // how many wait for a sync of the log
	soft atomic.Int64 // how many asked for one, and only mean that it is written out: see carry.go
}

const (
	fullPause    = 20 * time.Millisecond // between two tries on a full disk
	fullPatience = 30 * time.Second
	tableRest    = time.Second
	flushRest    = 50 * time.Millisecond // the same for a table of a memtable, which others may wait for
	leastRelease = 256 << 10
)

// flushCategory is how Pebble calls the writing of a memtable.
const flushCategory vfs.DiskWriteCategory = "pebble-memtable-flush"

func newGuard(opt *Options, fail func(string, error)) *guard {
	g := &guard{FS: opt.FS, fail: fail, release: opt.Release, fault: opt.Fault, patience: fullPatience, rest: tableRest, void: vfs.NewMem()}
	if g.release == nil {
		g.release = func(int64) bool { return false }
	}
	if g.fault == nil {
		g.fault = func(string, string) error { return nil }
	}
	return g
}

// critical tells whether Pebble cannot go on without writing a file.
func critical(name string) bool {
	name = filepath.Base(name)
	return isLog(name) || strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "marker.")
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// try does what may need room, again after room was made. patient says to wait for it.
func (g *guard) try(patient bool, n int64, do func() error) error {
	for start := time.Now(); ; {
		err := do()
		if err == nil || !isFull(err) {
			return err
		}
		if g.release(max(n, leastRelease)) {
			continue
		}
		if !patient || !g.open.Load() || time.Since(start) > g.patience {
			return err
		}
		time.Sleep(fullPause)
	}
}

// final reports whether a failure was taken as final; else it is Pebble's.
func (g *guard) final(op string, err error) bool {
	if !g.open.Load() {
		return false
	}
	g.fail(op, err)
	g.dead.Store(true)
	return true
}

// inVoid makes a critical file that goes to memory.
func (g *guard) inVoid() (vfs.File, error) {
	return g.void.Create("void", vfs.WriteCategoryUnspecified)
}

// make makes a file by do.
func (g *guard) make(name string, category vfs.DiskWriteCategory, do func() (vfs.File, error)) (vfs.File, error) {
	critical := critical(name)
	if critical && g.dead.Load() {
		return g.inVoid()
	}
	var f vfs.File
	err := g.try(critical, 0, func() (err error) {
		if err = g.fault("create", name); err == nil {
			f, err = do()
		}
		return err
	})
	if err != nil && critical && g.final("create "+filepath.Base(name), err) {
		return g.inVoid()
	}
	file := &guardedFile{File: f, g: g, name: name, critical: critical, flush: category == flushCategory}
	if err != nil {
		return nil, file.pause(err)
	}
	return file, nil
}

// Create implements vfs.FS.
func (g *guard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.make(name, category, func() (vfs.File, error) { return g.FS.Create(name, category) })
}

// ReuseForWrite implements vfs.FS.
func (g *guard) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.make(name, category, func() (vfs.File, error) { return g.FS.ReuseForWrite(old, name, category) })
}

// OpenDir implements vfs.FS.
func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardedFile{File: f, g: g, name: name, critical: true}, nil
}

// Remove implements vfs.FS. After a failure everything stays for the next Open.
func (g *guard) Remove(name string) error {
	if g.dead.Load() {
		return nil
	}
	return g.try(false, 0, func() error { return g.FS.Remove(name) })
}

// Rename implements vfs.FS.
func (g *guard) Rename(old, name string) error {
	if g.dead.Load() {
		return nil
	}
	return g.try(false, 0, func() error { return g.FS.Rename(old, name) })
}

// guardedFile is a file that Pebble writes, or a directory that it syncs.
type guardedFile struct {
	vfs.File
	g        *guard
	name     string
	critical bool
	flush    bool        // a table of a memtable
	owed     atomic.Bool // of a log: a sync was left out
}

// swallow keeps the failure of a critical file from Pebble.
func (f *guardedFile) swallow(op string, err error) error {
	if err != nil && f.critical && f.g.final(op+" "+filepath.Base(f.name), err) {
		return nil
	}
	return err
}

func (f *guardedFile) dead() bool { return f.critical && f.g.dead.Load() }

func (f *guardedFile) Write(b []byte) (n int, err error) {
	if f.dead() {
		return len(b), nil
	}
	if before := f.g.before.Load(); before != nil && isLog(f.name) {
		(*before)()
	}
	write := func() error {
		if err := f.g.fault("write", f.name); err != nil {
			return err
		}
		k, err := f.File.Write(b[n:])
		n += k
		return err
	}
	if !f.critical && !f.flush { // a compaction can wait: what is kept back is not for it
		err = write()
		return n, f.pause(err)
	}
	err = f.g.try(f.critical, int64(len(b)), write)
	if f.critical && err != nil {
		if err = f.swallow("write", err); err == nil {
			n = len(b)
		}
		return n, err
	}
	return n, f.pause(err)
}

// pause delays the failure of a table: Pebble tries again at once.
func (f *guardedFile) pause(err error) error {
	switch {
	case err == nil || f.critical || !f.g.open.Load():
	case f.flush:
		time.Sleep(min(flushRest, f.g.rest))
	default:
		time.Sleep(f.g.rest)
	}
	return err
}

// Preallocate reserves room for a log. What is kept back is for what has to be written.
func (f *guardedFile) Preallocate(off, n int64) error {
	if f.dead() {
		return nil
	}
	return f.File.Preallocate(off, n)
}

// leaveOut reports whether a sync is one that nobody waits for. Who does has said so before he asked Pebble: then it is
// seen here.
func (f *guardedFile) leaveOut() bool {
	if !isLog(f.name) || f.g.soft.Load() == 0 || f.g.hard.Load() > 0 {
		return false
	}
	f.owed.Store(true)
	return true
}

// sync is one of the ways to sync a file.
func (f *guardedFile) sync(do func() error) error {
	if f.dead() || f.leaveOut() {
		return nil
	}
	err := f.g.fault("sync", f.name)
	if err == nil {
		err = do()
	}
	return f.pause(f.swallow("sync", err))
}

// Sync implements vfs.File.
func (f *guardedFile) Sync() error { return f.sync(f.File.Sync) }

// SyncData implements vfs.File.
func (f *guardedFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *guardedFile) SyncTo(length int64) (fullSync bool, err error) {
	if f.dead() {
		return false, nil
	}
	fullSync, err = f.File.SyncTo(length)
	return fullSync, f.swallow("sync", err)
}

// Close syncs a log where that was left out: what comes after it in the next log must not be durable before it.
func (f *guardedFile) Close() error {
	if f.owed.Load() && !f.dead() {
		if err := f.swallow("sync", f.File.SyncData()); err != nil {
			return errors.Join(err, f.File.Close())
		}
	}
	return f.swallow("close", f.File.Close())
}

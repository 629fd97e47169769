package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Options of a store. The zero value of a field means its default.
type Options struct {
	DirtyLimit    int64         // most bytes of private pages (I12); default 256 MiB
	FlushInterval time.Duration // how often they are flushed; default 1s
	Create        bool          // make the store if the directory is missing or empty
	Report        func(error)   // told about failures in the background; may be nil
	StopOnError   bool          // no changes after a failed snapshot, until one succeeds; see Store.Stopped

	MetaFault func(op, path string) error // fault injection: see meta.Options.Fault; may be nil

	hook   func(cow.Op) error // fault injection
	noFork bool
	quiet  bool // nothing happens by itself: tests call what the background would do
}

// Store is an open store: the live tree and its snapshots.
type Store struct {
	dir     string
	report  func(error)
	lock    *os.File
	ballast *ballast
	db      *meta.DB
	pool    *cow.Pool
	live    *Live
	snaps   *catalogue
	turns   queue
	stats   storeStats
	usage   usage

	opened     time.Time
	counted    chan struct{} // closed when the live files have been counted
	unmeasured atomic.Bool   // the lengths of base files may be unknown: see count

	mu      sync.Mutex
	closing bool
	busy    sync.WaitGroup // operations under way: Close waits for them
	stop    chan struct{}
	stopped sync.WaitGroup
}

// Open opens the store in dir and brings it to order after whatever happened to it (I10). Errors: ErrHeld if another
// process has it, ErrNewer, ErrDamaged, or that dir is no store (with Options.Create a missing or empty directory becomes
// one). A refused directory is not changed.
func Open(dir string, opt Options) (*Store, error) {
	if opt.Create {
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			s, err := open(dir, opt)
			if err != nil {
				_ = os.Remove(dir)
			}
			return s, err
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	return open(dir, opt)
}

func open(dir string, opt Options) (s *Store, err error) {
	dir, err = filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	fresh, err := examine(dir, opt.Create)
	if err != nil {
		return nil, err
	}
	s = &Store{dir: dir, report: newReports(opt.Report).report, stop: make(chan struct{}),
		opened: time.Now(), counted: make(chan struct{})}
	if s.lock, err = lock(dir); err != nil {
		return nil, err
	}
	if fresh { // still, now that nobody else can make it
		fresh, err = examine(dir, true)
	}
	if fresh && err == nil {
		err = writeFormat(dir)
	}
	if err == nil {
		err = s.openParts(opt)
	}
	if err != nil {
		s.abandon(fresh)
		if errors.Is(err, meta.ErrDamaged) || errors.Is(err, cow.ErrDamaged) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s.count()
	if !opt.quiet {
		s.stopped.Add(1)
		go s.background(opt.FlushInterval)
	}
	return s, nil
}

// count has the live files counted in the background, as they are now. Where the last life of the store did not end with the lengths of
// all base files known, they are measured on the way (cow's Pool.RecordLengths).
func (s *Store) count() {
	started := make(chan struct{})
	s.stopped.Add(1)
	go func() {
		defer s.stopped.Done()
		defer close(s.counted)
		all, err := s.live.countAll(s.stop, started, s.unmeasured.Load())
		if err != nil {
			s.report(fmt.Errorf("count the live files: %w", err))
		}
		if all {
			s.unmeasured.Store(false)
		}
	}()
	<-started
}

// examine reports whether dir is to be made a store; an error if it is neither one nor may become one.
func examine(dir string, create bool) (fresh bool, err error) {
	_, err = readFormat(dir)
	if err == nil {
		return false, nil
	}
	if !errors.Is(err, errNoStore) {
		return false, fmt.Errorf("open store %s: %w", dir, err)
	}
	if wasStore(dir) {
		return false, fmt.Errorf("open store %s: %s: %w: %w", dir, formatFile, err, ErrDamaged)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		switch name.Name() { // what a daemon that died while it made the store leaves
		case lockFile, formatFile + ".new", "control.sock", "snapfs.log":
		default:
			if _, err := readFormat(dir); err == nil {
				return false, nil // somebody has made it a store between our two looks: the format comes first
			}
			return false, fmt.Errorf("%s is %w, and not empty", dir, errNoStore)
		}
	}
	if !create {
		return false, fmt.Errorf("%s is %w", dir, errNoStore)
	}
	return true, nil
}

// openParts opens the metadata store and the pool, and recovers. See recover.go.
func (s *Store) openParts(opt Options) (err error) {
	if err := os.Chmod(s.dir, 0o700); err != nil {
		return err
	}
	if s.ballast, err = openBallast(s.dir); err != nil {
		return err
	}
	if err := s.ballast.canOpen(); err != nil {
		return err
	}
	metaDir := filepath.Join(s.dir, "meta")
	if err := vetDir(metaDir); err != nil {
		return err
	}
	s.db, err = meta.Open(metaDir, meta.Options{
		Exists: wasUsed(s.dir),
		Report: s.report, Release: s.ballast.release, Admit: s.ballast.admit, Fault: opt.MetaFault,
	})
	if err != nil {
		return err
	}
	recs, err := s.db.Snapshots()
	if err != nil {
		return err
	}
	epoch, err := s.db.Epoch()
	if err != nil {
		return err
	}
	epoch = max(epoch, 1)
	var epochs []cow.Epoch
	for _, rec := range recs {
		epochs = append(epochs, rec.Epoch)
		epoch = max(epoch, rec.Epoch+1)
	}
	interval := opt.FlushInterval
	if opt.quiet {
		interval = -1
	}
	s.pool, err = cow.OpenPool(s.dir, epochs, epoch, cow.Options{Index: s.db, LockFD: int(s.lock.Fd()), DirtyLimit: opt.DirtyLimit,
		FlushInterval: interval, Report: s.report, Hook: opt.hook, NoFork: opt.noFork})
	if err != nil {
		return err
	}
	s.db.BeforeLog(s.pool.SyncOrdered)
	if err := initRoot(s.db, s.pool.Current(), uint32(os.Geteuid()), uint32(os.Getegid()), 0o755); err != nil {
		return err
	}
	s.live = newLive(s.db, s.pool, s.report)
	s.live.newest = s.pool.Newest
	s.live.disk = s.ballast
	s.snaps = newCatalogue(recs)
	s.stats.stopOnError = opt.StopOnError
	s.stats.committed = s.db.Committed
	s.stats.copied = func() int64 { return s.pool.Stats().FirstWrites }
	return s.recover()
}

// Dir returns the store's directory, absolute if that given to Open was.
func (s *Store) Dir() string { return s.dir }

// Live returns the live tree.
func (s *Store) Live() *Live { return s.live }

// enter begins an operation that Close has to wait for.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return ErrClosing
	}
	s.busy.Add(1)
	return nil
}

// Close waits for snapshots and deletions under way, puts everything on disk and gives the store's lock up. The live tree
// must not be used any more. The store is closed also where it returns an error.
func (s *Store) Close() error {
	s.mu.Lock()
	again := s.closing
	s.closing = true
	s.mu.Unlock()
	if again {
		return ErrClosing
	}
	s.busy.Wait()
	close(s.stop)
	s.stopped.Wait()
	if err := s.live.dropLeft(); err != nil {
		s.report(err) // the next mount does it
	}
	err := errors.Join(s.live.flushAttrs(), s.tidy(), s.pool.Flush(), s.pool.SyncBase())
	measured := err == nil && s.recordLengths(closeMeasure) && !s.unmeasured.Load()
	err = errors.Join(err, s.pool.Close())
	if err == nil {
		b := s.db.NewBatch()
		b.SetClean(measured)
		_, err = b.Commit(true)
	}
	err = errors.Join(err, s.db.Close())
	s.ballast.close()
	return errors.Join(err, s.lock.Close())
}

// abandon closes what Open had opened before it failed, and removes it where it was made just now.
func (s *Store) abandon(fresh bool) {
	if s.pool != nil {
		_ = s.pool.Close()
	}
	if s.db != nil {
		_ = s.db.Close()
	}
	if s.ballast != nil {
		s.ballast.close()
	}
	if fresh {
		for _, name := range []string{"undo", "base", "meta", ballastFile, formatFile, lockFile} {
			_ = os.RemoveAll(filepath.Join(s.dir, name))
		}
	}
	_ = s.lock.Close()
}

// background does about every flush interval what nobody asks for.
func (s *Store) background(interval time.Duration) {
	defer s.stopped.Done()
	if interval <= 0 {
		interval = time.Second
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	idle := idleness{}
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			_ = s.ballast.refill()
			if err := errors.Join(s.live.flushAttrs(), s.live.dropLeft(), s.tidy()); err != nil {
				s.report(err)
			}
			s.recordLengths(tickMeasure)
			idle.look(s.db.Committed())
		}
	}
}

// How long the lengths of base files are recorded, of a great many: those that are left are not known when the store is opened again, and
// are measured then.
const (
	tickMeasure  = 100 * time.Millisecond
	closeMeasure = 3 * time.Second
)

// recordLengths records what base files have become longer since, and reports whether that is all. A failure costs no more than that
// damage to them will not be seen. A full disk is none: it is tried again.
func (s *Store) recordLengths(limit time.Duration) (all bool) {
	all, err := s.pool.RecordLengths(time.Now().Add(limit))
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		s.report(fmt.Errorf("record the lengths of base files: %w", err))
	}
	return all
}

// idleness gives memory back to the system when nothing has changed for a while: every resident page of the daemon costs the next
// fork, and so the next freeze.
type idleness struct {
	batches  uint64
	since    time.Time
	released bool
}

const idleFor = 5 * time.Second

func (i *idleness) look(batches uint64) {
	if batches != i.batches || i.since.IsZero() {
		*i = idleness{batches: batches, since: time.Now()}
		return
	}
	if !i.released && time.Since(i.since) > idleFor {
		debug.FreeOSMemory()
		i.released = true
	}
}

// tidy makes what the namespace has recorded durable, and then gives back the bytes that it dropped: never before, so that a power
// loss cannot bring a name back whose bytes are gone.
func (s *Store) tidy() error {
	cut := s.pool.Tails()
	var garbage []cow.ID
	err := s.db.Garbage(func(id cow.ID) bool { garbage = append(garbage, id); return len(garbage) < 10000 })
	if err == nil {
		err = s.db.Sync()
	}
	if err != nil {
		return errors.Join(err, cut(false))
	}
	err = cut(true)
	b := s.db.NewBatch()
	for _, id := range garbage {
		if e := s.pool.Remove(id); e != nil {
			err = errors.Join(err, e)
			continue
		}
		b.RemoveGarbage(id)
	}
	if len(garbage) == 0 {
		b.Discard()
		return err
	}
	_, e := b.Commit(false)
	return errors.Join(err, e)
}

// Statfs returns the figures of the file system that the store is on.
func (s *Store) Statfs() (st unix.Statfs_t, err error) {
	err = unix.Statfs(s.dir, &st)
	return st, err
}

package meta

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options of a DB.
type Options struct {
	FS     vfs.FS      // default: the operating system's; fault tests pass their own
	Exists bool        // it is damage if there is no store in the directory
	Report func(error) // told about failures in the background; may be nil

	// What the store keeps back on the disk; both may be nil. Release frees n bytes of it (or more) for a write that met a full
	// disk; false: there is nothing left. Admit returns ENOSPC while there is too little for a batch.
	Release func(n int64) bool
	Admit   func() error

	// Fault is fault injection: what it returns is what an operation of the disk fails with. It is asked before a file is created,
	// written or synced (op is "create", "write" or "sync").
	Fault func(op, path string) error
}

// DB is an open metadata store. Its methods are safe for concurrent use.
type DB struct {
	db     *pebble.DB
	cache  *pebble.Cache
	guard  *guard
	report func(error)
	admit  func() error
	salt   [saltSize]byte

	inos, contents counter

	committed atomic.Uint64         // batches handed to Pebble so far, in the order of its log. Raised under applying
	synced    atomic.Uint64         // batches known to be durable; INVARIANT: synced <= committed
	failure   atomic.Pointer[error] // set once, by the first failed write or sync (I11)

	background atomic.Pointer[error] // why Pebble cannot write memtables now; see Stuck
	backlog    backlog
	memtables  memtables   // GUARDED_BY applying
	halted     atomic.Bool // Pebble met a fatal error in the background; see log.Fatalf
	applying   sync.Mutex  // see apply

	carrier *carrier

	undoMu sync.Mutex  // held across each read-modify-write of the undo index
	undo   atomic.Bool // false: the undo index is empty
}

// Sizes that keep the daemon small: memory is bounded by the cache and four memtables, descriptors by openFiles.
const (
	cacheSize    = 8 << 20
	memTableSize = 4 << 20
	memTables    = 4
	openFiles    = 74 // Pebble keeps 10 of them for logs and manifests
)

// stopTables is how many tables of memtables may wait for a compaction before Pebble makes writers wait: so many that it is not met
// while a full disk lets no compaction through. Nobody shall wait there: see backlog.
const stopTables = 1000

// Open opens the store in directory dir and makes it if there is none.
func Open(dir string, opt Options) (*DB, error) {
	d := &DB{report: opt.Report, admit: opt.Admit, cache: pebble.NewCache(cacheSize), carrier: newCarrier()}
	d.backlog.most = stopTables / 2
	if d.report == nil {
		d.report = func(error) {}
	}
	if d.admit == nil {
		d.admit = func() error { return nil }
	}
	if opt.FS == nil {
		opt.FS = vfs.Default
	}
	d.guard = newGuard(&opt, d.fail)
	if err := d.openPebble(dir, opt.Exists); err != nil {
		d.cache.Unref()
		return nil, fmt.Errorf("meta: open %s: %w", dir, err)
	}
	d.guard.open.Store(true)
	if err := d.load(opt.Exists); err != nil {
		return nil, errors.Join(fmt.Errorf("meta: open %s: %w", dir, err), d.closePebble())
	}
	go d.carrier.run(d)
	return d, nil
}

// BeforeLog has f called each time before the log is written: what f makes durable is on the disk before any record that was
// committed since. f must not use the DB. Commits do not wait for it, unless they are synced or begin a new log.
func (d *DB) BeforeLog(f func()) { d.guard.before.Store(&f) }

func (d *DB) openPebble(dir string, exists bool) (err error) {
	defer d.catch(&err)
	d.db, err = pebble.Open(dir, &pebble.Options{
		FS:                          d.guard,
		Cache:                       d.cache,
		MemTableSize:                memTableSize,
		MemTableStopWritesThreshold: memTables,
		L0StopWritesThreshold:       stopTables,
		MaxOpenFiles:                openFiles,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      quiet{d},
		ErrorIfNotExists:            exists,
		EventListener: &pebble.EventListener{
			BackgroundError: d.failedInBackground,
			FlushEnd:        func(i pebble.FlushInfo) { d.flushed(i.Err) },
			CompactionEnd:   func(i pebble.CompactionInfo) { d.backlog.ended(i.Err) },
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				d.report(fmt.Errorf("meta: %w: %s: %s", ErrDamaged, i.Path, i.Details.Error())) // with %v it has a stack in it
			},
		},
	})
	if err != nil && (!isOfSystem(err) || exists && errors.Is(err, syscall.ENOENT)) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// isOfSystem reports whether an error came from a system call. Else Pebble did not understand what it read.
func isOfSystem(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno)
}

// load checks the format, or writes it into an empty store, and reads what is kept in memory.
func (d *DB) load(exists bool) error {
	v, ok, err := d.mark(markFormat)
	if err != nil {
		return err
	}
	if !ok {
		if exists {
			return fmt.Errorf("meta: it is empty: %w", ErrDamaged)
		}
		if err := d.format(); err != nil {
			return err
		}
	} else if err := d.upgrade(v); err != nil {
		return err
	}
	salt, ok, err := d.mark(markSalt)
	if err != nil {
		return err
	}
	if !ok || len(salt) != saltSize {
		return damaged("mark "+markSalt, salt)
	}
	copy(d.salt[:], salt)
	d.inos = counter{mark: markIno, limit: maxIno}
	d.contents = counter{mark: markContent, limit: 1 << 62}
	return errors.Join(d.loadCounter(&d.inos, firstIno), d.loadCounter(&d.contents, 1), d.loadUndo())
}

func (d *DB) format() error {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return fmt.Errorf("draw a salt: %w", err)
	}
	b := d.NewBatch()
	b.setMark(markSalt, salt)
	b.setFormat()
	_, err := b.Commit(true)
	return err
}

func (b *Batch) setFormat() {
	b.setMark(markFormat, binary.BigEndian.AppendUint32(nil, formatVersion))
}

// upgrade checks the format; a store of an older version becomes one of this version, before anything is in it that the older program
// would not understand.
func (d *DB) upgrade(v []byte) error {
	if err := checkFormat(v); err != nil || binary.BigEndian.Uint32(v) == formatVersion {
		return err
	}
	b := d.NewBatch()
	b.setFormat()
	_, err := b.Commit(true)
	return err
}

func checkFormat(v []byte) error {
	if len(v) != 4 {
		return damaged("mark "+markFormat, v)
	}
	if n := binary.BigEndian.Uint32(v); n > formatVersion {
		return fmt.Errorf("its metadata has version %d, this program reads up to %d: use a newer program: %w",
			n, formatVersion, syscall.EPROTONOSUPPORT)
	} else if n == 0 {
		return damaged("mark "+markFormat, v)
	}
	return nil
}

// mark returns the value of a mark and whether it is there.
func (d *DB) mark(name string) ([]byte, bool, error) { return d.get(markKey(name)) }

func (d *DB) get(key []byte) ([]byte, bool, error) {
	v, closer, err := d.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, readError(err)
	}
	v = append([]byte{}, v...)
	return v, true, closer.Close()
}

// scan visits the keys in [from, to) until visit returns false. What it passes is valid during the call only.
func (d *DB) scan(from, to []byte, visit func(k, v []byte) bool) error {
	it, err := d.iterator(from, to)
	if err != nil {
		return err
	}
	for ok := it.First(); ok && visit(it.Key(), it.Value()); ok = it.Next() {
	}
	return d.ended(it)
}

func (d *DB) iterator(from, to []byte) (*pebble.Iterator, error) {
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, readError(err)
	}
	return it, nil
}

// ended closes an iterator and returns what went wrong with it.
func (d *DB) ended(it *pebble.Iterator) error {
	if err := it.Close(); err != nil {
		return readError(err)
	}
	return nil
}

func readError(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("meta: read: %w: %w: %w", syscall.EIO, ErrDamaged, err)
	}
	return fmt.Errorf("meta: read: %w: %w", syscall.EIO, err)
}

// Sync makes durable every batch that was committed, or could be seen, before the call. It is free when they are already.
func (d *DB) Sync() error {
	upTo := d.committed.Load()
	if err := d.Err(); err != nil {
		return err
	}
	if d.synced.Load() >= upTo {
		return nil
	}
	b := d.db.NewBatch()
	if err := b.LogData([]byte{1}, nil); err != nil {
		return err
	}
	if _, err := d.apply("sync", b, true, 0); err != nil { // takes no room: not for admit
		return err
	}
	return b.Close()
}

// apply hands a batch to Pebble and, if sync is set, waits until it and all before it are durable. counts is 1 for what Committed
// counts, else 0; seq is the count then. Nothing is handed over that might have to wait for room on the disk. One batch at a time is, so
// that those few that are on their way find what is kept back for them.
func (d *DB) apply(op string, b *pebble.Batch, sync bool, counts uint64) (seq uint64, err error) {
	if sync {
		d.guard.hard.Add(1)
		defer d.guard.hard.Add(-1)
	}
	if seq, err = d.hand(op, b, sync, counts); err == nil && sync {
		raiseTo(&d.synced, seq)
	}
	return seq, err
}

// hand is apply for a caller that has told the guard whether it means a sync.
func (d *DB) hand(op string, b *pebble.Batch, sync bool, counts uint64) (seq uint64, err error) {
	if err := d.writable(); err != nil { // also while somebody waits for room
		return 0, err
	}
	seq, err = d.handOver(op, b, sync, counts)
	if err != nil || !sync {
		return seq, err
	}
	if err := d.final(op, b.SyncWait); err != nil {
		return seq, err
	}
	return seq, d.Err() // the guard tells us of a failed sync, not Pebble
}

// handOver gives a batch to Pebble when there is room for it.
func (d *DB) handOver(op string, b *pebble.Batch, sync bool, counts uint64) (seq uint64, err error) {
	d.applying.Lock()
	defer d.applying.Unlock()
	if err := d.writable(); err != nil {
		return 0, err
	}
	if err := d.room(b.Len()); err != nil {
		return 0, err
	}
	err = d.final(op, func() error {
		// Before it can be seen: a Sync by somebody who has seen it must not take it for durable. In the order of the log.
		seq = d.committed.Add(counts)
		if sync {
			return d.db.ApplyNoSyncWait(b, pebble.Sync)
		}
		return d.db.Apply(b, pebble.NoSync)
	})
	return seq, err
}

// Committed returns the number of the last batch; every batch that can be seen now has it or a lower one.
func (d *DB) Committed() uint64 { return d.committed.Load() }

// Synced tells whether the batch with the given number (see Batch.Commit) is durable.
func (d *DB) Synced(seq uint64) bool { return d.synced.Load() >= seq }

// Err returns the failure that ended all writing, nil while there is none.
func (d *DB) Err() error {
	if err := d.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Close syncs and closes the store. After a failure it only lets go of it.
func (d *DB) Close() error {
	d.carrier.end()
	err := errors.Join(d.settle(&d.inos), d.settle(&d.contents), d.Sync())
	if failed := d.Err(); failed != nil {
		err = failed
	}
	if d.halted.Load() {
		return err // Pebble waits for what has ended; its files go with the process
	}
	if err == nil {
		d.writeTables()
	}
	return errors.Join(err, d.closePebble())
}

// writeTables has Pebble write what is in its log only into tables: they and their list have checksums and lengths, while of a log
// that ends early nobody knows that it was longer. It may fail: then the log stays.
func (d *DB) writeTables() {
	err := d.final("write tables", func() error {
		flushed, err := d.db.AsyncFlush()
		if err != nil {
			return err
		}
		select {
		case <-flushed:
		case <-time.After(flushLimit):
		}
		return nil
	})
	if err != nil {
		d.report(err)
	}
}

// flushLimit bounds the wait of Close for tables.
const flushLimit = 5 * time.Second

func (d *DB) closePebble() (err error) {
	defer d.catch(&err)
	if err = d.db.Close(); err != nil {
		err = fmt.Errorf("meta: close: %w", err)
	}
	d.cache.Unref()
	return err
}

// final runs a write; its failure is kept and ends all writing: what has reached the disk is unknown from then on (I11).
func (d *DB) final(op string, write func() error) error {
	err := func() (err error) {
		defer d.catch(&err)
		return write()
	}()
	if err == nil {
		return nil
	}
	d.fail(op, err)
	return d.Err()
}

// fail keeps the first failure, and reports it.
func (d *DB) fail(op string, err error) {
	err = fmt.Errorf("meta: %s: %w: %w", op, syscall.EIO, err)
	if d.failure.CompareAndSwap(nil, &err) {
		d.report(fmt.Errorf("the metadata store takes no more changes until it is opened again: %w", err))
	}
}

// catch turns Pebble's fatal errors, where they come up in a caller of ours, into errors.
func (d *DB) catch(err *error) {
	switch r := recover().(type) {
	case nil:
	case runtime.Error: // a mistake in the program
		panic(r)
	case error: // fatal, or what a write to Pebble's log ended with
		*err = r
	default:
		panic(r)
	}
}

// failedInBackground reports that a flush or a compaction failed. Pebble tries again. Damage is no reason to stop either: what is whole
// can be read and written on.
func (d *DB) failedInBackground(err error) {
	if pebble.IsCorruptionError(err) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	d.report(fmt.Errorf("meta: in the background: %w", err))
}

// flushed notes the end of the writing of a memtable. An error without an errno says that there was nothing to write.
func (d *DB) flushed(err error) {
	if !isOfSystem(err) {
		d.background.Store(nil)
		d.backlog.look.Store(true)
		return
	}
	d.background.Store(&err)
}

func raiseTo(v *atomic.Uint64, n uint64) {
	for old := v.Load(); old < n && !v.CompareAndSwap(old, n); old = v.Load() {
	}
}

// fatal is what a fatal error of Pebble panics with in a caller of ours, where it is caught.
type fatal string

func (f fatal) Error() string { return string(f) }

// quiet is Pebble's logger: what matters comes by EventListener and by errors.
type quiet struct{ d *DB }

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}

// Fatalf must not return. In a caller of ours it panics; in the background it ends the goroutine, which leaves Pebble without flushes
// or compactions, and DB without changes: reading goes on.
func (q quiet) Fatalf(format string, args ...any) {
	err := fatal(fmt.Sprintf(format, args...))
	if calledByUs() {
		panic(err)
	}
	q.d.halted.Store(true)
	q.d.guard.dead.Store(true)
	q.d.fail("in the background", err)
	runtime.Goexit()
}

// calledByUs reports whether a method of DB is on the stack, below the logger's.
func calledByUs() bool {
	pcs := make([]uintptr, 128)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	for {
		frame, more := frames.Next()
		if strings.Contains(frame.Function, "/meta.(*DB).") {
			return true
		}
		if !more {
			return false
		}
	}
}

package meta

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options of a DB.
type Options struct {
	FS     vfs.FS      // default: the operating system's; fault tests pass their own
	Report func(error) // told about failures in the background; may be nil
}

// DB is an open metadata store. Its methods are safe for concurrent use.
type DB struct {
	db     *pebble.DB
	cache  *pebble.Cache
	report func(error)
	salt   [saltSize]byte

	inos, contents counter

	committed atomic.Uint64         // batches committed so far
	synced    atomic.Uint64         // batches known to be durable; INVARIANT: synced <= committed
	failure   atomic.Pointer[error] // set once, by the first failed write or sync (I11)

	background atomic.Pointer[error] // why Pebble cannot write tables now; see stuck
	applying   sync.Mutex            // see apply

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

// Open opens the store in directory dir and makes it if there is none.
func Open(dir string, opt Options) (*DB, error) {
	d := &DB{report: opt.Report, cache: pebble.NewCache(cacheSize)}
	if d.report == nil {
		d.report = func(error) {}
	}
	if err := d.openPebble(dir, opt.FS); err != nil {
		d.cache.Unref()
		return nil, fmt.Errorf("meta: open %s: %w", dir, err)
	}
	if err := d.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("meta: open %s: %w", dir, err), d.closePebble())
	}
	return d, nil
}

func (d *DB) openPebble(dir string, fs vfs.FS) (err error) {
	defer d.catch(&err)
	opt := &pebble.Options{
		FS:                          fs,
		Cache:                       d.cache,
		MemTableSize:                memTableSize,
		MemTableStopWritesThreshold: memTables,
		MaxOpenFiles:                openFiles,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      quiet{},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				d.background.Store(&err)
				d.report(fmt.Errorf("meta: in the background: %w", err))
			},
			FlushEnd:      func(i pebble.FlushInfo) { d.wrote(i.Err) },
			CompactionEnd: func(i pebble.CompactionInfo) { d.wrote(i.Err) },
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				d.report(fmt.Errorf("meta: %w: %v", ErrDamaged, i))
			},
		},
	}
	if fs == nil {
		opt.FS = vfs.Default
	}
	d.db, err = pebble.Open(dir, opt)
	if err != nil && pebble.IsCorruptionError(err) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// load checks the format, or writes it into an empty store, and reads what is kept in memory.
func (d *DB) load() error {
	v, ok, err := d.mark(markFormat)
	if err != nil {
		return err
	}
	if !ok {
		if err := d.format(); err != nil {
			return err
		}
	} else if err := checkFormat(v); err != nil {
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
	b.setMark(markFormat, binary.BigEndian.AppendUint32(nil, formatVersion))
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

// Sync makes every batch committed so far durable. It is free when they are already.
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
	if err := d.apply("sync", b, true); err != nil {
		return err
	}
	raiseTo(&d.synced, upTo)
	return b.Close()
}

// apply hands a batch to Pebble and, if sync is set, waits until it is durable. Pebble's own queue stays locked when a write to its log
// fails, so only one batch at a time is handed over, and none after a failure: nobody waits there for ever.
func (d *DB) apply(op string, b *pebble.Batch, sync bool) error {
	if err := d.stuck(); err != nil {
		return err
	}
	err := d.final(op, func() error {
		d.applying.Lock()
		defer d.applying.Unlock()
		if err := d.Err(); err != nil {
			return err
		}
		if sync {
			return d.db.ApplyNoSyncWait(b, pebble.Sync)
		}
		return d.db.Apply(b, pebble.NoSync)
	})
	if err != nil || !sync {
		return err
	}
	return d.final(op, b.SyncWait)
}

// stuck returns the error of Pebble's last attempt to write a table, until one succeeds. A batch that came meanwhile could
// have to wait for that.
func (d *DB) stuck() error {
	if err := d.background.Load(); err != nil {
		return fmt.Errorf("meta: the metadata store cannot be written: %w", *err)
	}
	return nil
}

// Committed returns the number of the last batch; every batch that is in now has it or a lower one.
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
	if err := d.Err(); err != nil {
		return err // Pebble's commit pipeline may be stuck; its files go with the process
	}
	err := errors.Join(d.settle(&d.inos), d.settle(&d.contents), d.Sync())
	if d.Err() != nil {
		return err
	}
	return errors.Join(err, d.closePebble())
}

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
	if err := d.Err(); err != nil {
		return err
	}
	err := func() (err error) {
		defer d.catch(&err)
		return write()
	}()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("meta: %s: %w: %w", op, syscall.EIO, err)
	if d.failure.CompareAndSwap(nil, &err) {
		return err
	}
	return d.Err()
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

// wrote notes the end of a write of tables.
func (d *DB) wrote(err error) {
	if err == nil {
		d.background.Store(nil)
	}
}

func raiseTo(v *atomic.Uint64, n uint64) {
	for old := v.Load(); old < n && !v.CompareAndSwap(old, n); old = v.Load() {
	}
}

// fatal is what a fatal error of Pebble panics with: from a caller of ours it is caught, in the background it ends the
// process, with this text, rather than go on with a store in an unknown state.
type fatal string

func (f fatal) Error() string { return string(f) }

// quiet is Pebble's logger: what matters comes by EventListener and by errors.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fatal("metadata store: " + fmt.Sprintf(format, args...)))
}

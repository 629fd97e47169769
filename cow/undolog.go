package cow

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// undoLog is the open undo log of one snapshot: see format.go for what it looks like.
//
// Appending and syncing are separate, so that several savers share an fsync: each waits until the log is durable up to
// the end of its own batches, and whoever gets the sync lock first syncs for all.
type undoLog struct {
	epoch Epoch
	salt  uint64
	fd    int
	hook  func(Op) error
	index Index

	mu        sync.Mutex
	tail      int64 // where the next batch goes. GUARDED_BY mu
	allocated int64 // length up to which disk space is reserved. GUARDED_BY mu
	promised  int64 // pages that were promised room and are not saved yet. GUARDED_BY mu
	pending   []indexBatch
	noReserve bool // the file system knows no fallocate

	syncing sync.Mutex   // held across the fsync
	synced  atomic.Int64 // durable and indexed up to here
	cut     error        // what it had lost of its end when it was opened; nil if nothing

	sick atomic.Pointer[error] // I11: the fsync or write that failed

	life   sync.RWMutex // held shared by every use of fd
	closed bool         // GUARDED_BY life
}

// indexBatch is a written batch that the index does not know yet.
type indexBatch struct {
	end    int64
	places []Place
}

// reserveStep is how much room is reserved at a time, in bytes, where there is plenty.
const reserveStep = 4 << 20

// roomFor returns the bytes that n pages take in the log at worst: each in a batch of its own, behind a header.
func roomFor(n int64) int64 { return 2 * n * PageSize }

// promise reserves room for n more pages (I6); ENOSPC if there is none.
func (l *undoLog) promise(n int64) error {
	l.life.RLock()
	defer l.life.RUnlock()
	if l.closed { // the last snapshot was deleted: nothing will be saved
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	need := l.tail + roomFor(l.promised+n)
	if need > l.allocated && !l.noReserve {
		if err := l.grow(need); err != nil {
			return err
		}
	}
	l.promised += n
	return nil
}

// grow makes the reserved room reach to need, and a step further where the disk has it. REQUIRES mu.
func (l *undoLog) grow(need int64) error {
	var err error
	for _, to := range []int64{need + reserveStep, need} {
		if err = l.hook(Op{Kind: OpReserve, Log: l.epoch, Off: l.allocated, Len: to - l.allocated}); err == nil {
			err = ignoringEINTR(func() error {
				return unix.Fallocate(l.fd, unix.FALLOC_FL_KEEP_SIZE, l.allocated, to-l.allocated)
			})
		}
		switch {
		case err == nil:
			l.allocated = to
			return nil
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			l.noReserve = true
			return nil
		}
	}
	return fmt.Errorf("reserve room in undo log %d: %w", l.epoch, err)
}

// settle gives back the promise of n pages: they are saved, or need not be.
func (l *undoLog) settle(n int64) {
	l.mu.Lock()
	l.promised = max(0, l.promised-n)
	l.mu.Unlock()
}

// trim gives back the room that was reserved and not used: nothing more will be saved that was promised some.
func (l *undoLog) trim() {
	l.life.RLock()
	defer l.life.RUnlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.promised = 0
	if l.closed || l.allocated <= l.tail {
		return
	}
	if unix.Ftruncate(l.fd, l.tail) == nil { // it ends there already: this frees what was reserved behind
		l.allocated = l.tail
	}
}

// append writes one batch to the end of the log, without making it durable, and returns the offset of its end.
// data holds the pages of the entries that are not zero, in their order.
func (l *undoLog) append(entries []entry, data []byte) (int64, error) {
	l.life.RLock()
	defer l.life.RUnlock()
	if err := l.failed(); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h := &batchHeader{offset: l.tail, synced: l.synced.Load(), entries: entries}
	head := h.encode(l.salt)
	size := int64(len(head) + len(data))
	err := l.hook(Op{Kind: OpWriteUndo, Log: l.epoch, Off: l.tail, Len: size})
	if err == nil {
		err = pwritevAll(l.fd, [][]byte{head, data}, l.tail)
	}
	if err != nil {
		// The tail has not moved: the next batch overwrites what is there, so a full disk can be retried.
		return 0, fmt.Errorf("append to undo log %d at %d: %w", l.epoch, l.tail, err)
	}
	l.tail += size
	l.pending = append(l.pending, indexBatch{l.tail, h.places(l.epoch)})
	return l.tail, nil
}

// sync makes the log durable and indexed at least up to end (I1).
func (l *undoLog) sync(end int64) error {
	l.life.RLock()
	defer l.life.RUnlock()
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if err := l.failed(); err != nil {
		return err
	}
	if l.synced.Load() >= end {
		return nil
	}
	l.mu.Lock()
	upTo := l.tail
	pending := l.pending
	l.pending = nil
	l.mu.Unlock()
	err := l.hook(Op{Kind: OpSyncUndo, Log: l.epoch, Off: upTo})
	if err == nil {
		err = ignoringEINTR(func() error { return unix.Fdatasync(l.fd) })
	}
	if err != nil {
		return l.fail(fmt.Errorf("sync undo log %d: %w", l.epoch, err))
	}
	for i, b := range pending {
		if err := l.index.Add(l.epoch, b.end, b.places); err != nil {
			l.mu.Lock() // the log has them, durably: they are indexed when there is room again
			l.pending = append(pending[i:len(pending):len(pending)], l.pending...)
			l.mu.Unlock()
			return fmt.Errorf("index undo log %d: %w", l.epoch, err)
		}
	}
	l.synced.Store(upTo)
	return l.hook(Op{Kind: OpSynced, Log: l.epoch, Off: upTo})
}

// fail makes err the log's last word (I11): what was written since the last good sync may or may not be on disk.
func (l *undoLog) fail(err error) error {
	l.sick.CompareAndSwap(nil, &err)
	return err
}

// failed returns the error that ended the log, if any. It hides the errno of the first failure behind EIO: only
// the caller that met a full disk is told ENOSPC. REQUIRES life.
func (l *undoLog) failed() error {
	if l.closed {
		return fmt.Errorf("undo log %d: its snapshots are gone: %w", l.epoch, unix.ESTALE)
	}
	if p := l.sick.Load(); p != nil {
		return fmt.Errorf("undo log %d is out of use since: %v: %w", l.epoch, *p, unix.EIO)
	}
	return nil
}

// readPage reads the page at place into b (PageSize long) and verifies it.
func (l *undoLog) readPage(pl Place, b []byte) error {
	if pl.Zero {
		clear(b)
		return nil
	}
	l.life.RLock()
	defer l.life.RUnlock()
	if l.closed {
		return fmt.Errorf("undo log %d: its snapshots are gone: %w", l.epoch, unix.ESTALE)
	}
	n, err := preadAll(l.fd, b, int64(pl.Block)*PageSize)
	if err != nil {
		return fmt.Errorf("undo log %d, page %d of content %d: %w", l.epoch, pl.Page, pl.ID, err)
	}
	if n < len(b) || checksum(l.salt, b) != pl.CRC {
		return fmt.Errorf("undo log %d, page %d of content %d at block %d: %w: %w", l.epoch, pl.Page, pl.ID, pl.Block, ErrDamaged, unix.EIO)
	}
	return nil
}

// createLog makes the undo log of snapshot epoch in the directory dir (a descriptor) and makes it durable.
func createLog(dir int, epoch Epoch, salt uint64, hook func(Op) error, index Index) (*undoLog, error) {
	name := logName(epoch)
	fd, err := openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: "undo/" + name, Err: err}
	}
	l := &undoLog{epoch: epoch, salt: salt, fd: fd, hook: hook, index: index, tail: PageSize}
	err = hook(Op{Kind: OpWriteUndo, Log: epoch, Len: PageSize})
	if err == nil {
		err = pwritevAll(fd, [][]byte{logHeader{epoch, salt}.encode()}, 0)
	}
	if err == nil {
		err = unix.Fsync(fd)
	}
	if err == nil {
		err = unix.Fsync(dir)
	}
	if err != nil {
		_ = unix.Close(fd)
		_ = unix.Unlinkat(dir, name, 0)
		return nil, &os.PathError{Op: "write header of", Path: "undo/" + name, Err: err}
	}
	l.synced.Store(PageSize)
	return l, nil
}

// close ends the use of the log; what is still called on it fails, or has nothing to do.
func (l *undoLog) close() {
	l.life.Lock()
	defer l.life.Unlock()
	if !l.closed {
		l.closed = true
		_ = unix.Close(l.fd)
	}
}

func logName(e Epoch) string { return fmt.Sprintf("%d", e) }

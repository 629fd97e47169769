package cow

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Pool owns all contents that are in use, the undo logs and the freeze. See the package documentation.
type Pool struct {
	opt     Options
	store   int // descriptor of the store's directory
	base    *baseFiles
	undoDir int

	freezing sync.Mutex // one freeze at a time
	gate     sync.RWMutex
	era      *era          // GUARDED_BY gate
	newest   atomic.Uint64 // newest snapshot, 0 if there is none. Changed with the gate held exclusively

	mu        sync.Mutex
	contents  map[ID]*content         // GUARDED_BY mu
	withPages map[*content]struct{}   // contents with private pages. GUARDED_BY mu
	snaps     []Epoch                 // the snapshots, ascending. GUARDED_BY mu
	logs      map[Epoch]*undoLog      // GUARDED_BY mu
	captures  []*capture              // outstanding, oldest first. GUARDED_BY mu
	tails     map[*content]struct{}   // contents whose base file may be cut. GUARDED_BY mu
	unsettled map[Epoch]chan struct{} // GUARDED_BY mu
	lost      map[Epoch]bool          // snapshots whose capture was not written. GUARDED_BY mu

	making    sync.Mutex // one undo log is made at a time
	measuring sync.Mutex // held while known lengths are recorded or forgotten; before the locks of contents
	active    atomic.Pointer[activeLog]
	dirty     *dirtySet // base files that were written and not synced
	ordered   ordered
	sick      atomic.Pointer[error] // I11: a failed sync of the whole store
	room      *room
	stats     counters

	stop    chan struct{}
	kick    chan struct{}
	stopped sync.WaitGroup
	closing sync.Once
}

// OpenPool opens the base/ and undo/ directories below the directory dir (made if missing) and brings the undo logs and
// their index together (I10). snaps are the snapshots, ascending; current is the epoch to go on in, which the pool raises where
// an undo log shows that a later one had begun (see Current).
func OpenPool(dir string, snaps []Epoch, current Epoch, opt Options) (*Pool, error) {
	opt.setDefaults()
	if n := os.Getpagesize(); n != PageSize {
		return nil, fmt.Errorf("the system's page is %d bytes, this store's is %d", n, PageSize)
	}
	store, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	p := &Pool{opt: opt, store: store, undoDir: -1,
		contents: map[ID]*content{}, withPages: map[*content]struct{}{}, tails: map[*content]struct{}{}, logs: map[Epoch]*undoLog{},
		snaps: slices.Clone(snaps), unsettled: map[Epoch]chan struct{}{}, lost: map[Epoch]bool{}, dirty: newDirtySet(),
		stop: make(chan struct{}), kick: make(chan struct{}, 1)}
	p.room = newRoom(opt.DirtyLimit/PageSize, p.kickFlusher)
	if err := p.openParts(); err != nil {
		p.closeParts()
		return nil, err
	}
	if k := len(snaps); k > 0 {
		p.newest.Store(uint64(snaps[k-1]))
	}
	for e := range p.logs {
		current = max(current, e+1)
	}
	p.era = newEra(current)
	if opt.FlushInterval > 0 {
		p.stopped.Add(1)
		go p.flusher()
	}
	return p, nil
}

func (p *Pool) openParts() (err error) {
	if p.base, err = openBaseFiles(p.store, p.opt.MaxFiles, p.opt.Hook); err != nil {
		return err
	}
	if p.undoDir, err = makeDir(p.store, "undo"); err != nil {
		return err
	}
	if err := unix.Fsync(p.store); err != nil {
		return fmt.Errorf("sync the store's directory: %w", err)
	}
	names, err := listDir(p.undoDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		e, ok := logEpoch(name)
		if !ok {
			continue // not ours; check reports it
		}
		l, err := openLog(p.undoDir, e, p.opt.Hook, p.opt.Index)
		if errors.Is(err, errTorn) && !p.indexed(e) {
			// It was being made when the power went: nothing was saved in it.
			if err := unix.Unlinkat(p.undoDir, name, 0); err != nil {
				return &os.PathError{Op: "remove", Path: "undo/" + name, Err: err}
			}
			continue
		}
		if errors.Is(err, errTorn) {
			err = fmt.Errorf("%w: it has no header: %w", err, ErrDamaged)
		}
		if err != nil {
			return err
		}
		p.logs[e] = l
		if err := l.recover(); err != nil {
			return err
		}
		if l.cut != nil {
			p.opt.Report(fmt.Errorf("undo/%s: %w: %w", name, l.cut, ErrDamaged))
		}
	}
	return nil
}

func (p *Pool) indexed(e Epoch) bool {
	n, err := p.opt.Index.Indexed(e)
	return err != nil || n > PageSize
}

// Close flushes everything, makes it durable and ends the pool. Every File and Frozen must have been closed and every
// Freeze ended. The pool is closed also where it returns an error.
func (p *Pool) Close() error {
	close(p.stop)
	p.stopped.Wait()
	err := p.Flush()
	if e := p.SyncBase(); err == nil {
		err = e
	}
	p.closeParts()
	return err
}

func (p *Pool) closeParts() { p.closing.Do(p.closeNow) }

func (p *Pool) closeNow() {
	for _, l := range p.logs {
		l.close()
	}
	if p.base != nil {
		p.base.close()
	}
	if p.undoDir >= 0 {
		_ = unix.Close(p.undoDir)
	}
	_ = unix.Close(p.store)
}

// activeLog is the undo log in which pages are saved in one era.
type activeLog struct {
	newest, epoch Epoch
	log           *undoLog
}

// logFor returns the undo log in which the pages that snapshot newest reads are saved in the given epoch, made when first
// needed: that of newest, or a later one whose own snapshot was deleted (it goes on serving the older ones). Nil if
// newest is 0.
//
// The epoch matters: a flush that began before a freeze must never save in the log of the snapshot which that freeze made.
func (p *Pool) logFor(newest, epoch Epoch) (*undoLog, error) {
	if newest == 0 {
		return nil, nil
	}
	if a := p.active.Load(); a != nil && a.newest == newest && a.epoch == epoch {
		return a.log, nil
	}
	p.making.Lock()
	defer p.making.Unlock()
	l := p.latestLog(newest, epoch)
	if l == nil {
		var err error
		if l, err = p.makeLog(newest); err != nil {
			return nil, err
		}
	}
	p.active.Store(&activeLog{newest, epoch, l})
	return l, nil
}

func (p *Pool) makeLog(e Epoch) (*undoLog, error) {
	if err := p.forgetLog(e); err != nil {
		return nil, err
	}
	var salt [8]byte
	_, _ = rand.Read(salt[:]) // never fails
	l, err := createLog(p.undoDir, e, binary.LittleEndian.Uint64(salt[:]), p.opt.Hook, p.opt.Index)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.logs[e] = l
	p.mu.Unlock()
	return l, nil
}

// forgetLog has the index forget a log of number e that was removed just before a crash: how far that was indexed says nothing of the
// one that is made now, whose first batches would be passed over after the next crash.
func (p *Pool) forgetLog(e Epoch) error {
	n, err := p.opt.Index.Indexed(e)
	if err != nil || n == 0 {
		return err
	}
	if err := p.opt.Index.RemoveLog(e); err != nil {
		return err
	}
	return p.opt.Index.Sync()
}

// latestLog returns the log with the highest number in [from, below), or nil.
func (p *Pool) latestLog(from, below Epoch) *undoLog {
	p.mu.Lock()
	defer p.mu.Unlock()
	var latest *undoLog
	for e, l := range p.logs {
		if from <= e && e < below && (latest == nil || e > latest.epoch) {
			latest = l
		}
	}
	return latest
}

func (p *Pool) log(e Epoch) *undoLog {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logs[e]
}

package snapshot

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
)

// Stats are the figures of a store. Bytes unless the name says otherwise.
type Stats struct {
	LiveFiles, LiveBytes        int64 // inodes with a name, and the lengths of the regular files among them
	StoreBytes                  int64 // disk space of the whole store, as of the last look
	UndoBytes                   int64
	DirtyBytes, DirtyLimitBytes int64 // private pages (I12)

	Epoch              cow.Epoch
	SnapshotInProgress bool
	Current            CurrentSnapshot
	Last               LastSnapshot

	TotalForks, TotalSnapshots, FailedSnapshots int64
	Changes                                     int64  // batches of changes of names and sizes since the last snapshot
	Mode                                        string // rw, or ro-after-error
	ModeReason                                  string // which error; empty for rw
	InProcessReason                             string // why the last snapshot ran without a child; empty if it had one
}

// CurrentSnapshot is the snapshot that is being written.
type CurrentSnapshot struct {
	Name                     string
	Seconds                  float64
	PagesWritten, PagesTotal int64
}

// LastSnapshot is the one that ended last. CowBytes is what was overwritten, and so copied, while its writer was at work.
type LastSnapshot struct {
	Name                                          string
	Time                                          time.Time
	Status                                        string // ok, or failed: why
	FreezeUsec, ForkUsec, CapturedBytes, CowBytes int64
	Seconds                                       float64
}

// storeStats counts snapshots.
type storeStats struct {
	mu            sync.Mutex
	total, failed int64
	started       map[string]*pending
	current       CurrentSnapshot
	last          LastSnapshot
	inProcess     string
	stopOnError   bool
	stopped       atomic.Pointer[error]
	changesAt     uint64 // batches committed when the last snapshot was taken
	copiedAt      int64  // pages that had become private by then
	committed     func() uint64
	copied        func() int64
}

func (st *storeStats) began(p *pending) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.started == nil {
		st.started = map[string]*pending{}
	}
	st.started[p.entry.rec.Name] = p
	st.inProcess = ""
	if p.fz.InProcess != nil {
		st.inProcess = p.fz.InProcess.Error()
	}
	st.changesAt, st.copiedAt = st.committed(), st.copied()
	st.current = CurrentSnapshot{Name: p.entry.rec.Name, PagesTotal: p.fz.Captured / cow.PageSize}
}

func (st *storeStats) wrote(done, total int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.current.PagesWritten, st.current.PagesTotal = done, total
}

func (st *storeStats) ended(t Taken, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.started, t.Name)
	st.last = LastSnapshot{Name: t.Name, Time: t.Time, Status: "ok", FreezeUsec: t.FreezeUsec, ForkUsec: t.ForkUsec,
		CapturedBytes: t.CapturedBytes, CowBytes: (st.copied() - st.copiedAt) * cow.PageSize, Seconds: t.Seconds}
	if err != nil {
		st.last.Status = "failed: " + err.Error()
		st.failed++
		if st.stopOnError {
			err = fmt.Errorf("no changes until a snapshot succeeds, since %q failed: %w", t.Name, &known{err.Error(), unix.EROFS})
			st.stopped.Store(&err)
		}
		return
	}
	st.total++
	st.stopped.Store(nil)
}

// Stopped returns an error with EROFS after a snapshot that failed, until one succeeds, if Options.StopOnError says so. It is for whoever
// lets changes in: the store itself goes on with what was begun.
func (s *Store) Stopped() error {
	if err := s.stats.stopped.Load(); err != nil {
		return *err
	}
	return nil
}

// Stats returns the figures. The first call waits, for up to firstWait each, until the live files are counted and the disk space is measured.
func (s *Store) Stats() Stats {
	select {
	case <-s.counted:
	case <-time.After(firstWait - time.Since(s.opened)):
	}
	pool := s.pool.Stats()
	files, bytes := s.live.totals()
	out := Stats{LiveFiles: files, LiveBytes: bytes, StoreBytes: s.usage.bytes(s.dir), UndoBytes: pool.UndoBytes,
		DirtyBytes: pool.PrivateBytes, DirtyLimitBytes: pool.LimitBytes, Epoch: pool.Epoch, TotalForks: pool.Forks, Mode: "rw"}
	if err := cmp.Or(s.db.Err(), s.db.Stuck(), s.pool.Failed(), s.Stopped()); err != nil {
		out.Mode, out.ModeReason = "ro-after-error", err.Error()
	}
	st := &s.stats
	st.mu.Lock()
	defer st.mu.Unlock()
	out.TotalSnapshots, out.FailedSnapshots, out.Last, out.InProcessReason = st.total, st.failed, st.last, st.inProcess
	out.Changes = int64(s.db.Committed() - st.changesAt)
	out.Current, out.SnapshotInProgress = st.writing()
	return out
}

// Writing returns how far the snapshot is that is being written, if there is one. It costs nothing.
func (s *Store) Writing() (c CurrentSnapshot, ok bool) {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	return s.stats.writing()
}

// writing is Writing. REQUIRES mu.
func (st *storeStats) writing() (c CurrentSnapshot, ok bool) {
	p := st.started[st.current.Name]
	if p == nil {
		return c, false
	}
	c = st.current
	c.Seconds = time.Since(p.start).Seconds()
	return c, true
}

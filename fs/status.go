package fs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/snapfs/snapfs/cow"
)

// Status is what `snapfs status --json` prints, and what the metrics are made of. Sizes are in bytes.
type Status struct {
	MountPoint    string    `json:"mountpoint"`
	Store         string    `json:"store"`
	Version       string    `json:"version"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Mode          string    `json:"mode"`                        // rw | ro | ro-after-error
	ModeReason    string    `json:"mode_reason,omitempty"`       // which error, for ro-after-error
	InProcess     string    `json:"in_process_reason,omitempty"` // why snapshots are written without a child, if they are
	Snapshots     int       `json:"snapshots"`
	Epoch         cow.Epoch `json:"epoch"`

	LiveFiles       int64 `json:"live_files"`
	LiveBytes       int64 `json:"live_bytes"`
	StoreBytes      int64 `json:"store_bytes"`
	UndoBytes       int64 `json:"undo_bytes"`
	DirtyBytes      int64 `json:"dirty_bytes"` // private pages
	DirtyLimitBytes int64 `json:"dirty_limit_bytes"`

	SnapshotInProgress bool             `json:"snapshot_in_progress"`
	Current            *CurrentSnapshot `json:"current_snapshot,omitempty"`
	Last               *LastSnapshot    `json:"last_snapshot,omitempty"`

	TotalForks      int64      `json:"total_forks"`
	TotalSnapshots  int64      `json:"total_snapshots"`
	FailedSnapshots int64      `json:"failed_snapshots"`
	Changes         int64      `json:"changes_since_last_snapshot"`
	PageFaults      PageFaults `json:"page_faults"`
	ResidentBytes   int64      `json:"resident_bytes"`
	OpenHandles     int64      `json:"open_handles"`
	Failures        int64      `json:"failures"` // requests answered with EIO since the mount
}

// CurrentSnapshot is the one whose writer is at work.
type CurrentSnapshot struct {
	Name         string  `json:"name"`
	Seconds      float64 `json:"seconds"`
	PagesWritten int64   `json:"pages_written"`
	PagesTotal   int64   `json:"pages_total"`
}

// LastSnapshot is the last one that ended.
type LastSnapshot struct {
	Name          string    `json:"name"`
	Time          time.Time `json:"time"`
	Status        string    `json:"status"` // ok | failed: why
	FreezeUsec    int64     `json:"freeze_usec"`
	ForkUsec      int64     `json:"fork_usec"`
	CapturedBytes int64     `json:"captured_bytes"`
	CowBytes      int64     `json:"cow_bytes"`
	Seconds       float64   `json:"seconds"`
}

// PageFaults counts those of the daemon since its start.
type PageFaults struct {
	Minor int64 `json:"minor"`
	Major int64 `json:"major"`
}

// Status gathers the figures of the mount, its store and its process.
func (m *Mount) Status() (Status, error) {
	s := Status{
		MountPoint:    m.opt.MountPoint,
		Store:         m.opt.StorePath,
		Version:       m.opt.Version,
		UptimeSeconds: time.Since(m.start).Seconds(),
		Snapshots:     m.store.Count(),
		OpenHandles:   m.handles.count(),
		Failures:      m.faults.count.Load(),
	}
	m.storeStatus(&s)
	if m.readOnly() {
		s.Mode = "ro"
	}
	if err := processStatus(&s); err != nil {
		return Status{}, fmt.Errorf("status: %w", err)
	}
	return s, nil
}

// storeStatus fills in what the store counts.
func (m *Mount) storeStatus(s *Status) {
	st := m.store.Stats()
	s.Mode, s.ModeReason, s.InProcess, s.Epoch = st.Mode, st.ModeReason, st.InProcessReason, st.Epoch
	s.LiveFiles, s.LiveBytes, s.StoreBytes, s.UndoBytes = st.LiveFiles, st.LiveBytes, st.StoreBytes, st.UndoBytes
	s.DirtyBytes, s.DirtyLimitBytes = st.DirtyBytes, st.DirtyLimitBytes
	s.TotalForks, s.TotalSnapshots, s.FailedSnapshots = st.TotalForks, st.TotalSnapshots, st.FailedSnapshots
	s.Changes = st.Changes
	s.SnapshotInProgress = st.SnapshotInProgress
	if c := st.Current; st.SnapshotInProgress {
		s.Current = &CurrentSnapshot{Name: c.Name, Seconds: c.Seconds, PagesWritten: c.PagesWritten, PagesTotal: c.PagesTotal}
	}
	if l := st.Last; l.Name != "" {
		s.Last = &LastSnapshot{
			Name: l.Name, Time: l.Time, Status: l.Status, Seconds: l.Seconds,
			FreezeUsec: l.FreezeUsec, ForkUsec: l.ForkUsec, CapturedBytes: l.CapturedBytes, CowBytes: l.CowBytes,
		}
	}
}

// processStatus fills in what the kernel counts for the daemon.
func processStatus(s *Status) error {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return err
	}
	s.PageFaults = PageFaults{Minor: usage.Minflt, Major: usage.Majflt}
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	fields := strings.Fields(string(statm)) // total resident ..., in pages
	if len(fields) < 2 {
		return fmt.Errorf("/proc/self/statm says %q", statm)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	s.ResidentBytes = pages * int64(os.Getpagesize())
	return err
}

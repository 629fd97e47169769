package control

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/fs"
)

// metric is one figure of the Prometheus text format. Names have base units: seconds and bytes.
type metric struct {
	name, kind, help string
	value            float64
}

// metricsOf returns the figures of a status.
func metricsOf(s fs.Status) []metric {
	const gauge, counter, usec = "gauge", "counter", 1e-6
	var current fs.CurrentSnapshot
	if s.Current != nil {
		current = *s.Current
	}
	var last fs.LastSnapshot
	if s.Last != nil {
		last = *s.Last
	}
	return []metric{
		{"snapfs_uptime_seconds", gauge, "Time since the mount was made.", s.UptimeSeconds},
		{"snapfs_read_only_after_error", gauge, "1 if an error of the disk has stopped all writing.", boolValue(s.Mode == "ro-after-error")},
		{"snapfs_snapshots", gauge, "Snapshots in the store.", float64(s.Snapshots)},
		{"snapfs_epoch", gauge, "Number of the current epoch.", float64(s.Epoch)},
		{"snapfs_live_files", gauge, "Files in the live tree.", float64(s.LiveFiles)},
		{"snapfs_live_bytes", gauge, "Bytes in files of the live tree.", float64(s.LiveBytes)},
		{"snapfs_store_bytes", gauge, "Disk space of the store.", float64(s.StoreBytes)},
		{"snapfs_undo_bytes", gauge, "Disk space of the undo logs.", float64(s.UndoBytes)},
		{"snapfs_dirty_bytes", gauge, "Bytes of private pages: newest data that is only in memory.", float64(s.DirtyBytes)},
		{"snapfs_dirty_limit_bytes", gauge, "Most bytes of private pages before writers wait.", float64(s.DirtyLimitBytes)},
		{"snapfs_snapshot_in_progress", gauge, "1 while a snapshot is being written.", boolValue(s.SnapshotInProgress)},
		{"snapfs_snapshot_written_bytes", gauge, "Bytes that the writer at work has written.", float64(current.PagesWritten * cow.PageSize)},
		{"snapfs_snapshot_size_bytes", gauge, "Bytes that the writer at work has to write.", float64(current.PagesTotal * cow.PageSize)},
		{"snapfs_last_snapshot_timestamp_seconds", gauge, "When the last snapshot was taken, in Unix time.", unixSeconds(last.Time)},
		{"snapfs_last_snapshot_ok", gauge, "1 if the last snapshot succeeded, 0 if it failed or there was none.", boolValue(last.Status == "ok")},
		{"snapfs_last_snapshot_freeze_seconds", gauge, "How long the last snapshot stopped writers.", float64(last.FreezeUsec) * usec},
		{"snapfs_last_snapshot_fork_seconds", gauge, "How long the fork of the last snapshot took.", float64(last.ForkUsec) * usec},
		{"snapfs_last_snapshot_captured_bytes", gauge, "Private bytes that the last snapshot captured.", float64(last.CapturedBytes)},
		{"snapfs_last_snapshot_cow_bytes", gauge, "Bytes copied because they were written while the last snapshot was.", float64(last.CowBytes)},
		{"snapfs_last_snapshot_seconds", gauge, "How long the last snapshot took until it was durable.", last.Seconds},
		{"snapfs_forks_total", counter, "Writers forked.", float64(s.TotalForks)},
		{"snapfs_snapshots_taken_total", counter, "Snapshots taken.", float64(s.TotalSnapshots)},
		{"snapfs_snapshots_failed_total", counter, "Snapshots that failed.", float64(s.FailedSnapshots)},
		{"snapfs_changes_since_last_snapshot", gauge, "Changes of the live tree since the last snapshot.", float64(s.Changes)},
		{"snapfs_page_faults_minor_total", counter, "Page faults of the daemon without I/O.", float64(s.PageFaults.Minor)},
		{"snapfs_page_faults_major_total", counter, "Page faults of the daemon with I/O.", float64(s.PageFaults.Major)},
		{"snapfs_open_handles", gauge, "Open files and directories.", float64(s.OpenHandles)},
		{"snapfs_failures_total", counter, "Requests answered with EIO.", float64(s.Failures)},
		{"snapfs_resident_bytes", gauge, "Memory of the daemon.", float64(s.ResidentBytes)},
	}
}

// writeMetrics renders a status in the Prometheus text format.
func writeMetrics(w io.Writer, s fs.Status) {
	for _, m := range metricsOf(s) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %s\n", m.name, m.help, m.name, m.kind,
			m.name, strconv.FormatFloat(m.value, 'g', -1, 64))
	}
	fmt.Fprintf(w, "# HELP snapfs_info What serves what.\n# TYPE snapfs_info gauge\nsnapfs_info{version=\"%s\",store=\"%s\",mountpoint=\"%s\"} 1\n",
		label(s.Version), label(s.Store), label(s.MountPoint))
}

// label escapes the value of a label.
func label(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "\uFFFD"))
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unixSeconds is 0 for the zero time.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs"
)

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status MOUNTPOINT",
		Short: "Show the figures of a mount",
		Long: `Show what a mount holds and how its snapshots went. The same figures are Prometheus metrics on
the control socket: curl --unix-socket STORE/control.sock http://snapfs/metrics`,
		Example: `  snapfs status /mnt/data
  snapfs status --json /mnt/data | jq .dirty_bytes`,
		Args: takes(1, 1),
	}
	asJSON := addJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, _, err := dial(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		defer client.Close()
		status, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return outputLines(cmd, []fs.Status{status})
		}
		return output(cmd, func(w io.Writer) error { return writeStatus(w, status) })
	}
	return cmd
}

func writeStatus(w io.Writer, s fs.Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("mount point", "%s (%s)", printable(s.MountPoint), s.Mode)
	if s.ModeReason != "" {
		row("no changes", "%s", printable(s.ModeReason))
	}
	row("store", "%s", printable(s.Store))
	row("version", "%s, up %v", s.Version, seconds(s.UptimeSeconds))
	row("live tree", "%d files and directories, %s", s.LiveFiles, bytesText(s.LiveBytes))
	row("on disk", "%s, of it %s undo logs", bytesText(s.StoreBytes), bytesText(s.UndoBytes))
	row("not yet in files", "%s of at most %s", bytesText(s.DirtyBytes), bytesText(s.DirtyLimitBytes))
	row("snapshots", "%d, the current epoch is %d", s.Snapshots, s.Epoch)
	if c := s.Current; c != nil {
		row("writing", "%s: %s of %s, %.1f s", printable(c.Name), bytesText(c.PagesWritten*pageSize), bytesText(c.PagesTotal*pageSize), c.Seconds)
	}
	if l := s.Last; l != nil {
		row("last snapshot", "%s, %s: %s", printable(l.Name), l.Time.UTC().Format(time.DateTime), printable(l.Status))
		row("", "froze %s (fork %s), captured %s, durable after %v", millis(l.FreezeUsec), millis(l.ForkUsec), bytesText(l.CapturedBytes), seconds(l.Seconds))
	}
	row("changes since", "%d", s.Changes)
	row("this daemon", "%d snapshots, %d failed, %d forks; %d failed requests", s.TotalSnapshots, s.FailedSnapshots, s.TotalForks, s.Failures)
	if s.InProcess != "" {
		row("no forks", "%s", printable(s.InProcess))
	}
	row("memory", "%s, page faults %d minor, %d major", bytesText(s.ResidentBytes), s.PageFaults.Minor, s.PageFaults.Major)
	return table.Flush()
}

// seconds rounds a time for people.
func seconds(s float64) time.Duration {
	d := time.Duration(s * float64(time.Second))
	if d >= time.Minute {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}

func millis(usec int64) string { return fmt.Sprintf("%.2f ms", float64(usec)/1000) }

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check STORE",
		Short: "Verify every structure and checksum of a store",
		Long: `Verify every structure and checksum of a store. If it is mounted its daemon does it; if not, the
store is first brought to order after a crash, as mount does. Ends with exit code 7 if there are
problems.`,
		Example: `  snapfs check /srv/store
  snapfs check --json /srv/store`,
		Args: takes(1, 1),
	}
	asJSON := addJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		report, err := checkStoreOf(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			err = outputLines(cmd, []snapshot.Report{report})
		} else {
			err = output(cmd, func(w io.Writer) error { return writeReport(w, report) })
		}
		if err == nil && len(report.Problems) > 0 {
			err = control.Errorf(control.Damaged, "the store %s has %s", args[0], countText(len(report.Problems)))
		}
		return err
	}
	return cmd
}

// checkStoreOf checks the store in dir, or that of the mount that dir is in.
func checkStoreOf(ctx context.Context, dir string) (snapshot.Report, error) {
	store, err := realPath(dir)
	if err != nil {
		return snapshot.Report{}, err
	}
	if _, err := os.Stat(store); errors.Is(err, os.ErrNotExist) {
		return snapshot.Report{}, control.Errorf(control.Unknown, "there is no store %s", store)
	}
	if _, err := os.Stat(formatPath(store)); err != nil { // no store; a path inside a mount will do
		if m, err := control.Find(store); err == nil {
			store = m.Source
		}
	}
	writers := newOrphans(store, os.Stderr)
	for start := time.Now(); ; time.Sleep(lockInterval) {
		report, err := snapshot.Check(store)
		if !isLocked(err) {
			return report, err
		}
		if waiting, err := writers.look(); err != nil {
			return snapshot.Report{}, err
		} else if waiting && ctx.Err() == nil {
			continue
		}
		report, err = checkMounted(ctx, store)
		if err == nil || answers(ctx, store) || time.Since(start) > endingLimit {
			return report, err
		}
		// Its daemon is about to end: umount(2) returns before it has.
	}
}

// checkMounted has the daemon of a mounted store check it.
func checkMounted(ctx context.Context, store string) (snapshot.Report, error) {
	client, err := control.Dial(ctx, store)
	if err != nil {
		return snapshot.Report{}, err
	}
	defer client.Close()
	return client.Check(ctx)
}

func writeReport(w io.Writer, report snapshot.Report) error {
	for _, p := range report.Problems {
		if _, err := fmt.Fprintf(w, "%s: %s\n", printable(p.Path), printable(p.What)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "checked %d snapshots, %d files, %d saved pages: %s\n",
		report.Snapshots, report.Files, report.Pages, countText(len(report.Problems)))
	return err
}

func countText(problems int) string {
	switch problems {
	case 0:
		return "no problems"
	case 1:
		return "1 problem"
	}
	return fmt.Sprintf("%d problems", problems)
}

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
problems. Files that have lost bytes are named; reading those bytes is an I/O error, the rest is
as it was. Of the files in STORE/base the length is verified: their bytes have no checksums.

With --repair, which needs the store unmounted, what can be proven is mended: a damaged format file
or header of an undo log is written anew, what interrupted steps left behind and base files that no
view has are removed, base files that the metadata does not know are moved to STORE/lost. Bytes
that are lost stay lost. Says what it did, and ends with exit code 0 if nothing is wrong any more.`,
		Example: `  snapfs check /srv/store
  snapfs check --repair /srv/store
  snapfs check --json /srv/store`,
		Args: takes(1, 1),
	}
	asJSON := addJSON(cmd)
	repair := cmd.Flags().Bool("repair", false, "mend what can be proven")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		check := checkStoreOf
		if *repair {
			check = repairStore
		}
		report, err := check(cmd.Context(), args[0])
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

// repairStore repairs the store in dir, which must not be mounted.
func repairStore(ctx context.Context, dir string) (snapshot.Report, error) {
	store, err := realPath(dir)
	if err != nil {
		return snapshot.Report{}, err
	}
	if _, err := os.Stat(store); errors.Is(err, os.ErrNotExist) {
		return snapshot.Report{}, control.Errorf(control.Unknown, "there is no store %s", store)
	}
	for start := time.Now(); ; time.Sleep(lockInterval) {
		report, err := snapshot.Repair(store)
		if !isLocked(err) {
			return report, err
		}
		if answers(ctx, store) || time.Since(start) > endingLimit {
			return report, control.Errorf(control.Refused, "the store %s is in use: unmount it first", store)
		}
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
	for _, p := range report.Repaired {
		fmt.Fprintf(w, "repaired %s: %s\n", printable(p.Path), printable(p.What))
	}
	for _, p := range report.Problems {
		fmt.Fprintf(w, "%s: %s\n", printable(p.Path), printable(p.What))
		for _, file := range p.Files {
			fmt.Fprintf(w, "    has lost bytes: %s\n", printable(file))
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

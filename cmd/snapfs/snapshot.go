package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

func newSnapshot() *cobra.Command {
	var req control.SnapshotRequest
	cmd := &cobra.Command{
		Use:   "snapshot MOUNTPOINT [NAME]",
		Short: "Freeze the whole tree under a name",
		Long: `Take a snapshot and print its name. It is found under MOUNTPOINT/.snapshots/NAME at once; the
command returns when it is safe on disk. Without NAME it gets the time in UTC.

A name has 1 to 255 bytes, no slash, no leading dash, and is not "." or "..".`,
		Example: `  snapfs snapshot /mnt/data before
  snapfs snapshot -m "before the upgrade" /mnt/data
  snapfs snapshot --json --no-wait /mnt/data nightly`,
		Args: takes(1, 2),
	}
	asJSON := addJSON(cmd)
	cmd.Flags().StringVarP(&req.Description, "message", "m", "", "keep a description with the snapshot")
	cmd.Flags().BoolVar(&req.NoWait, "no-wait", false, "return once it is frozen; a crash may still lose it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			req.Name = args[1]
		}
		client, _, err := dial(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		defer client.Close()
		bar := progressBar{out: cmd.ErrOrStderr()}
		var show func(control.Progress)
		if isTerminal(cmd.ErrOrStderr()) && !*asJSON {
			show = bar.show
		}
		taken, err := client.Snapshot(cmd.Context(), req, show)
		bar.clear()
		if err != nil {
			return err
		}
		if *asJSON {
			return outputLines(cmd, []snapshot.Taken{taken})
		}
		return output(cmd, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, taken.Name)
			return err
		})
	}
	return cmd
}

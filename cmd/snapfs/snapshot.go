package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

func newSnapshot() *cobra.Command {
	var req control.SnapshotRequest
	var hooks hooks
	cmd := &cobra.Command{
		Use:   "snapshot MOUNTPOINT [NAME]",
		Short: "Freeze the whole tree under a name",
		Long: `Take a snapshot and print its name. It is found under MOUNTPOINT/.snapshots/NAME at once; the
command returns when it is safe on disk. Without NAME it gets the time in UTC.

A name has 1 to 255 bytes, no slash, no leading dash, and is not "." or "..".
` + hooksHelp + `
A snapshot whose hook after the freeze failed is there; its name is printed.`,
		Example: `  snapfs snapshot /mnt/data before
  snapfs snapshot -m "before the upgrade" /mnt/data
  snapfs snapshot --json --no-wait /mnt/data nightly
  snapfs snapshot --before 'pkill -STOP app' --after 'pkill -CONT app' /mnt/data`,
		Args: takes(1, 2),
	}
	asJSON := addJSON(cmd)
	cmd.Flags().StringVarP(&req.Description, "message", "m", "", "keep a description with the snapshot")
	cmd.Flags().BoolVar(&req.NoWait, "no-wait", false, "return once it is frozen; a crash may still lose it")
	hooks.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			req.Name = args[1]
		}
		client, m, err := dial(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		defer client.Close()
		hooks.mountPoint = m.Point
		bar := progressBar{out: cmd.ErrOrStderr()}
		var show func(control.Progress)
		if isTerminal(cmd.ErrOrStderr()) && !*asJSON {
			show = bar.show
		}
		var taken snapshot.Taken
		hookErr, err := hooks.around(cmd.Context(), func(frozen func()) (err error) {
			taken, err = client.SnapshotWatched(cmd.Context(), req, show, frozen)
			return err
		})
		bar.clear()
		if err != nil {
			return err
		}
		return errors.Join(writeTaken(cmd, taken, *asJSON), hookErr)
	}
	return cmd
}

func writeTaken(cmd *cobra.Command, taken snapshot.Taken, asJSON bool) error {
	if asJSON {
		return outputLines(cmd, []snapshot.Taken{taken})
	}
	return output(cmd, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, taken.Name)
		return err
	})
}

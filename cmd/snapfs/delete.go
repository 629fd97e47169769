package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

func newDelete() *cobra.Command {
	var req control.DeleteRequest
	cmd := &cobra.Command{
		Use:   "delete MOUNTPOINT NAME...",
		Short: "Delete snapshots and say what that freed",
		Long:  `Delete the named snapshots and say what that freed. If one of the names is unknown nothing is deleted.`,
		Example: `  snapfs delete /mnt/data before
  snapfs delete --dry-run /mnt/data monday tuesday`,
		Args: takes(2, -1),
	}
	asJSON := addJSON(cmd)
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "only say what it would free")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req.Names = args[1:]
		client, _, err := dial(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		defer client.Close()
		gone, err := client.Delete(cmd.Context(), req)
		if err != nil {
			return err
		}
		if *asJSON {
			return outputLines(cmd, gone)
		}
		return output(cmd, func(w io.Writer) error { return writeDeleted(w, gone, req.DryRun) })
	}
	return cmd
}

func writeDeleted(w io.Writer, gone []snapshot.Deleted, dryRun bool) error {
	format := "deleted %s, freed %s\n"
	if dryRun {
		format = "would delete %s and free %s\n"
	}
	for _, g := range gone {
		if _, err := fmt.Fprintf(w, format, printable(g.Name), bytesText(g.Bytes)); err != nil {
			return err
		}
	}
	return nil
}

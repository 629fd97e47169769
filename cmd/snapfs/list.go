package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/snapshot"
)

func newList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list MOUNTPOINT",
		Short: "List the snapshots, oldest first",
		Long: `List the snapshots, oldest first: name, time in UTC, state (writing, durable or failed; held;
temporary, if it goes with the exec that took it), the size of what only this snapshot holds,
description.`,
		Example: `  snapfs list /mnt/data
  snapfs list --json /mnt/data | jq -r .name`,
		Args: takes(1, 1),
	}
	asJSON := addJSON(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, _, err := dial(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		defer client.Close()
		infos, err := client.List(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return outputLines(cmd, infos)
		}
		return output(cmd, func(w io.Writer) error { return writeTable(w, infos) })
	}
	return cmd
}

func writeTable(w io.Writer, infos []snapshot.Info) error {
	if len(infos) == 0 {
		_, err := fmt.Fprintln(w, "no snapshots")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tTIME\tSTATE\tSIZE\tDESCRIPTION")
	for _, info := range infos {
		state := string(info.State)
		if info.Held {
			state += ", held"
		}
		if info.Temporary {
			state += ", temporary"
		}
		line := fmt.Sprintf("%s\t%s\t%s\t%s", printable(info.Name), info.Time.UTC().Format(time.DateTime), state, bytesText(info.Bytes))
		if info.Description != "" {
			line += "\t" + printable(info.Description)
		}
		fmt.Fprintln(table, line)
	}
	return table.Flush()
}

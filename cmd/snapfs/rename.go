package main

import (
	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs/control"
)

func newRename() *cobra.Command {
	return &cobra.Command{
		Use:     "rename MOUNTPOINT OLD NEW",
		Short:   "Give a snapshot another name",
		Long:    `Give the snapshot OLD the name NEW. A name that exists is never replaced (exit code 5).`,
		Example: `  snapfs rename /mnt/data before before-upgrade`,
		Args:    takes(3, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, _, err := dial(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer client.Close()
			return client.Rename(cmd.Context(), control.RenameRequest{Old: args[1], New: args[2]})
		},
	}
}

package main

import (
	"context"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs/control"
)

// dial connects to the daemon of the mount that path is in.
func dial(ctx context.Context, path string) (*control.Client, control.Mounted, error) {
	m, err := control.Find(path)
	if err != nil {
		return nil, m, err
	}
	client, err := control.Dial(ctx, m.Source)
	return client, m, err
}

// outputLines writes one JSON object a line.
func outputLines[T any](cmd *cobra.Command, all []T) error {
	return output(cmd, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		for _, v := range all {
			if err := enc.Encode(v); err != nil {
				return err
			}
		}
		return nil
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs/control"
)

// execOptions is what the flags of exec say.
type execOptions struct {
	request control.ViewRequest
	hooks   hooks
}

// exitStatus ends snapfs with the exit code of a command that it ran, and nothing to say about it.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func newExec() *cobra.Command {
	var opt execOptions
	cmd := &cobra.Command{
		Use:   "exec [flags] MOUNTPOINT -- CMD...",
		Short: "Run a command that sees the tree frozen",
		Long: `Take a snapshot, run CMD with the frozen tree in place of the live one at MOUNTPOINT, delete the
snapshot, and end with the exit code of CMD. Only CMD and what it starts see the frozen tree,
in a mount namespace of their own; it is read-only and has the inode numbers of the live tree,
so that a backup tool finds out what changed since its last run. A current directory inside
MOUNTPOINT is that of the frozen tree.

INT, TERM, HUP, QUIT, USR1 and USR2 are passed on to CMD. What CMD leaves running in the
background gets errors from the frozen tree when CMD has ended, and is killed if CMD was.
If snapfs is killed so is CMD, and the snapshot is deleted; if the daemon ends, CMD is ended.
Variable SNAPFS_SNAPSHOT tells CMD the name of the snapshot.

As root, or as the user who mounted the tree, if the system lets users make user namespaces.
In one of those, files of other users and groups are shown as those of nobody and nogroup.

Exit codes: that of CMD, 128+N if signal N ended it, 126 if it cannot be executed, 127 if it
is not found; before CMD runs those of snapfs, such as 3 not a snapfs mount, 5 the name
exists, 6 refused. 1 if a hook fails; CMD is not run then if it was the one before.
` + hooksHelp,
		Example: `  snapfs exec /mnt/data -- restic backup /mnt/data
  snapfs exec --keep --name nightly /mnt/data -- tar -C /mnt/data -cf /backup/data.tar .
  cd /mnt/data/project && snapfs exec . -- make test`,
		DisableFlagsInUseLine: true,

		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return control.Errorf(control.Usage, "usage: snapfs exec [FLAGS] MOUNTPOINT -- CMD...; see snapfs exec --help")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&opt.request.Keep, "keep", false, "keep the snapshot")
	cmd.Flags().StringVar(&opt.request.Name, "name", "", "the snapshot's name (default: the time)")
	cmd.Flags().StringVarP(&opt.request.Description, "message", "m", "", "keep a description with the snapshot")
	opt.hooks.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return runExec(cmd.Context(), opt, args[0], args[1:])
	}
	return cmd
}

// runExec is the outer of three processes: it talks to the daemon, and to the inner one, which makes the namespace, mounts and
// starts CMD. The inner one goes first, so that nothing is taken where nothing can be shown.
func runExec(ctx context.Context, opt execOptions, path string, args []string) error {
	client, m, err := dial(ctx, path)
	if err != nil {
		return err
	}
	defer client.Close()
	signals := passOn()
	in, err := startInside(m, args)
	if err != nil {
		return err
	}
	defer in.end()
	if opt.request.Description == "" && !opt.request.Keep {
		opt.request.Description = "for " + filepath.Base(args[0])
	}
	opt.hooks.mountPoint = m.Point
	view, hookErr, err := takeView(ctx, client, opt)
	if err != nil {
		return err
	}
	status, err := in.show(ctx, view, signals)
	in.end()
	err = errors.Join(err, closeView(view, signals), hookErr)
	if status != 0 && err != nil {
		report(err, false)
		err = nil
	}
	if err == nil && status != 0 {
		err = exitStatus(status)
	}
	return err
}

// takeView takes the snapshot between the hooks. hookErr is a failure of the hook after it.
func takeView(ctx context.Context, client *control.Client, opt execOptions) (view *control.View, hookErr, err error) {
	hookErr, err = opt.hooks.around(ctx, func(frozen func()) error {
		view, err = client.View(ctx, opt.request, frozen)
		return err
	})
	return view, hookErr, err
}

// closeView waits for the snapshot to be deleted, but not against the user's will: the daemon goes on by itself.
func closeView(view *control.View, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for len(signals) > 0 { // what came too late for the command was not meant for this
		<-signals
	}
	go func() {
		select {
		case <-signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := view.Close(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

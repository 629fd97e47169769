package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// mountPlan is what a mount command asks for.
type mountPlan struct {
	store, point string // absolute, symbolic links resolved
	options      mountOptions
	lists        []string // the -o flags as they were given
	foreground   bool
}

func newMount() *cobra.Command {
	var lists []string
	var foreground bool
	var readyFD int
	cmd := &cobra.Command{
		Use:   "mount STORE MOUNTPOINT",
		Short: "Serve a store at a mount point",
		Long: `Serve STORE at MOUNTPOINT. Both directories are made if they are missing; a directory that
is not empty and no store is refused. The command returns when the mount is ready, and the
daemon goes on in the background; its messages go to STORE/snapfs.log.

Options of -o, separated by commas:
  ro                       nothing can be changed through the mount
  remount                  change these flags of a mount that is there: ro, rw, and those of mount(8)
  allow_other              other users may use the mount (always so as root)
  acl|noacl                POSIX access control lists (default acl)
  snapdir=hidden|visible   whether the root's listing shows .snapshots (default hidden)
  writeback=off|on         let the kernel keep written data for a while (default off)
  dirty_limit=SIZE         most memory for data that is not in its file yet (default 256M,
                           or a quarter of the memory that its control group allows)
  flush_interval=DURATION  how often that data is written (default 1s)
  stop_writes_on_error     the tree is read-only after a failed snapshot, until one succeeds
The flags of mount(8) do what they do elsewhere: dev, suid (only as root; both are off unless
mount(8) asks for them), noexec, noatime, sync, dirsync, and as root nodiratime, relatime,
strictatime, lazytime, nosymfollow. What else mount(8) and fstab add (nofail, _netdev, x-...)
is accepted.`,
		Example: `  snapfs mount /srv/store /mnt/data
  snapfs mount -f -o snapdir=visible,dirty_limit=64M ./store ./tree
  snapfs /srv/store /mnt/data -o rw,nofail        # the form that mount(8) uses`,
		Args: takes(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := parseOptions(lists, os.Geteuid() == 0)
			if err != nil {
				return err
			}
			plan := mountPlan{options: options, lists: lists, foreground: foreground}
			if plan.store, err = realPath(args[0]); err != nil {
				return err
			}
			endDying(plan.store) // before anybody looks at the mount point
			if plan.point, err = realPath(args[1]); err != nil {
				return err
			}
			return runMount(cmd, plan, readyFD)
		},
	}
	cmd.Flags().StringArrayVarP(&lists, "options", "o", nil, "options, separated by commas")
	cmd.Flags().BoolVarP(&foreground, "foreground", "f", false, "stay in the foreground")
	cmd.Flags().IntVar(&readyFD, "ready-fd", -1, "")
	cmd.Flags().MarkHidden("ready-fd")
	return cmd
}

func runMount(cmd *cobra.Command, plan mountPlan, readyFD int) error {
	switch {
	case plan.options.remount:
		return remount(plan)
	case readyFD >= 0:
		return serveBackground(cmd.Context(), plan, readyFD)
	case plan.foreground:
		return serve(cmd.Context(), plan, os.Stderr, func() error {
			return output(cmd, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "snapfs: %s is mounted at %s\n", printable(plan.store), printable(plan.point))
				return err
			})
		})
	}
	return startBackground(cmd.Context(), plan)
}

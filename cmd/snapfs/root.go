package main

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs/control"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "snapfs",
		Short: "A file system with instant frozen snapshots of the whole tree",
		Long: `snapfs serves a directory (the store) as a file system whose whole tree can be frozen
in an instant. Every snapshot is then found, to the byte, under MOUNTPOINT/.snapshots/NAME.

MOUNTPOINT may be any path inside the mount.

Exit codes: 0 done, 1 failed, 2 usage, 3 not a snapfs mount or the daemon does not answer,
4 no such snapshot or path, 5 the name exists, 6 held, busy or refused, 7 the store is
damaged, 130 interrupted.`,
		Example: `  snapfs mount /srv/store /mnt/data
  snapfs snapshot /mnt/data before
  ls /mnt/data/.snapshots/before
  snapfs umount /mnt/data`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return control.Errorf(control.Usage, "unknown command %q; see snapfs --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return control.Errorf(control.Usage, "%v; see %s --help", err, cmd.CommandPath())
	})
	root.SetVersionTemplate("snapfs {{.Version}}\n")
	root.AddCommand(newMount(), newUmount(), newSnapshot(), newExec(), newInside(), newList(), newDelete(), newRename(),
		newStatus(), newCheck(), newVersion(), newMan())
	return root
}

// takes makes a check of the number of positional arguments (most < 0: any number) whose error has the code Usage.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return control.Errorf(control.Usage, "usage: %s; see %s --help", strings.TrimSuffix(cmd.UseLine(), " [flags]"), cmd.CommandPath())
		}
		for _, arg := range args {
			if arg == "" {
				return control.Errorf(control.Usage, "an argument is empty; see %s --help", cmd.CommandPath())
			}
		}
		return nil
	}
}

// addJSON gives cmd the flag --json; the returned pointer says whether it was given.
func addJSON(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON, and errors as JSON on stderr")
}

// mountForm turns the form that mount(8) and fstab use, `snapfs STORE MOUNTPOINT [-o ...]`, into `snapfs mount STORE MOUNTPOINT
// [-o ...]`. So that a mistyped command makes no directory, STORE must look like a path, be a directory, or come with -o.
func mountForm(root *cobra.Command, args []string) []string {
	if len(args) < 2 || strings.HasPrefix(args[0], "-") || strings.HasPrefix(args[1], "-") {
		return args
	}
	if cmd, _, err := root.Find(args[:1]); err == nil && cmd != root || isBuiltin(args[0]) {
		return args
	}
	info, err := os.Stat(args[0])
	isDir := err == nil && info.IsDir()
	if strings.Contains(args[0], "/") || isDir || slices.Contains(args, "-o") {
		return append([]string{"mount"}, args...)
	}
	return args
}

// isBuiltin reports whether name is a command that cobra adds by itself when it executes.
func isBuiltin(name string) bool {
	return name == "help" || name == "completion" || strings.HasPrefix(name, "__complete")
}

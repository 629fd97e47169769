package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

func newUmount() *cobra.Command {
	return &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "Write everything to disk and unmount",
		Long: `Unmount, with everything on disk, the writers of snapshots finished and the daemon gone when
the command returns. If the mount is in use it stays, and the command says who uses it (exit
code 6). A dead mount, whose daemon was killed, is cleaned away.`,
		Example: `  snapfs umount /mnt/data`,
		Args:    takes(1, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return umount(cmd.Context(), args[0]) },
	}
}

func umount(ctx context.Context, path string) error {
	endDyingAt(path)
	m, err := control.Find(path)
	if err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil { // a command given inside the mount must not be what keeps it busy
		return err
	}
	if isDead(m.Point) {
		if err := detach(m.Point); err != nil {
			return fmt.Errorf("clean the dead mount at %s: %w", m.Point, err)
		}
		return nil
	}
	client, err := control.Dial(ctx, m.Source)
	if err != nil {
		return err
	}
	defer client.Close()
	daemon, err := unix.PidfdOpen(client.Hello().PID, 0)
	if err == nil {
		defer unix.Close(daemon)
	}
	noDaemon := err != nil // in another process namespace: its answer has to do
	if err := client.Unmount(ctx); err != nil {
		if control.CodeOf(err) == control.Refused {
			return busyError(m, err)
		}
		return err
	}
	if noDaemon {
		return nil
	}
	return waitExit(ctx, daemon)
}

// busyError says who uses m.
func busyError(m control.Mounted, err error) error {
	users := usersOf(m)
	if len(users) == 0 {
		return control.Errorf(control.Refused, "%s is busy: %v", m.Point, err)
	}
	const most = 5
	var who []string
	for i, u := range users {
		if i == most {
			who = append(who, fmt.Sprintf("and %d more", len(users)-most))
			break
		}
		who = append(who, u.String())
	}
	return control.Errorf(control.Refused, "%s is busy: %s", m.Point, strings.Join(who, "; "))
}

// exitLimit bounds the wait for a daemon that has closed its store to exit.
const exitLimit = 10 * time.Second

// waitExit returns when the process of a pidfd has exited.
func waitExit(ctx context.Context, pidfd int) error {
	const interval = 50 * time.Millisecond
	for start := time.Now(); time.Since(start) < exitLimit; {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(interval.Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for the daemon: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
	return errors.New("unmounted, but the daemon has not exited")
}

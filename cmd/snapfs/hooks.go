package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/snapfs/snapfs/fs/control"
)

// hooks are commands of the user's around the freeze, for programs that have to pause for it.
type hooks struct {
	before, after string // for sh -c; "" is none
	limit         time.Duration
	mountPoint    string
}

const hooksHelp = `
The hooks are run by sh -c, with MOUNTPOINT in SNAPFS_MOUNTPOINT and what they print on stderr:
--before just before the freeze, --after as soon as the tree is frozen, while it is still being
written, for which nothing has to wait. If the one before fails or takes too long nothing is
frozen; the one after is run all the same, whatever failed. Exit code 1 if one of them fails.`

func (h *hooks) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.before, "before", "", "command to run before the freeze")
	cmd.Flags().StringVar(&h.after, "after", "", "command to run after the freeze")
	cmd.Flags().DurationVar(&h.limit, "hook-timeout", 30*time.Second, "how long each of them may take")
}

// around runs the hook before, then freeze, which calls frozen, if it is not nil, when the tree is, and the hook after, once in any
// case. afterErr is the failure of the latter if all else went well.
func (h *hooks) around(ctx context.Context, freeze func(frozen func()) error) (afterErr, err error) {
	ran := false
	after := func() {
		if !ran && h.after != "" {
			// Also if the user has interrupted us: what was paused goes on.
			afterErr = h.run(context.WithoutCancel(ctx), "after", h.after)
		}
		ran = true
	}
	if h.before != "" {
		err = h.run(ctx, "before", h.before)
	}
	switch {
	case err != nil:
	case h.after == "":
		err = freeze(nil)
	default:
		err = freeze(after)
	}
	after()
	if err != nil {
		return nil, errors.Join(err, afterErr)
	}
	return afterErr, nil
}

// run runs one hook and everything that it starts in the foreground; what is too slow is killed.
func (h *hooks) run(ctx context.Context, which, line string) error {
	runtime.LockOSThread() // the child dies with the thread that made it
	defer runtime.UnlockOSThread()
	limited, cancel := context.WithTimeout(ctx, h.limit)
	defer cancel()
	cmd := exec.CommandContext(limited, "sh", "-c", line)
	cmd.Env = append(os.Environ(), "SNAPFS_MOUNTPOINT="+h.mountPoint)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return control.Errorf(control.Failed, "the hook %s the freeze took longer than %v and was killed", which, h.limit)
	case err != nil:
		return control.Errorf(control.Failed, "the hook %s the freeze failed: %v", which, err)
	}
	return nil
}

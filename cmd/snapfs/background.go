package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// The daemon is this program executed again, detached from any terminal. Over a pipe it tells the command that started it, in
// one JSON object, that the mount is ready (code 0) or why it is not.

// pipeFD is the daemon's end of the pipe.
const pipeFD = 3

// startBackground starts the daemon and returns when the mount is ready.
func startBackground(ctx context.Context, plan mountPlan) error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	args := []string{"mount", "--ready-fd", strconv.Itoa(pipeFD)}
	for _, list := range plan.lists {
		args = append(args, "-o", list)
	}
	daemon := exec.Command("/proc/self/exe", append(args, "--", plan.store, plan.point)...)
	daemon.Args[0] = "snapfs"
	daemon.Dir = "/"          // keeps no file system busy
	daemon.Stderr = os.Stderr // until the log is open; a crash before that must be seen
	daemon.ExtraFiles = []*os.File{write}
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = daemon.Start()
	write.Close()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	interrupted := context.AfterFunc(ctx, func() { daemon.Process.Signal(syscall.SIGTERM) })
	defer interrupted()
	var answer control.Error
	if err := json.NewDecoder(read).Decode(&answer); err != nil {
		err = daemon.Wait()
		return errors.Join(ctx.Err(), fmt.Errorf("the daemon ended before the mount was ready: %v", err))
	}
	if answer.Code != control.Done {
		daemon.Wait()
		return errors.Join(ctx.Err(), &answer)
	}
	return daemon.Process.Release()
}

// serveBackground is the daemon: it serves until the mount is gone.
func serveBackground(ctx context.Context, plan mountPlan, fd int) error {
	pipe := os.NewFile(uintptr(fd), "ready pipe")
	unix.CloseOnExec(fd)
	// Started by /proc/self/exe, it would be "exe" to ps, top and fuser. Only they see the name, so a failure is no matter.
	os.WriteFile("/proc/self/comm", []byte("snapfs"), 0)
	log := &logFile{path: logPath(plan.store)}
	told := false
	tell := func(answer *control.Error) error {
		told = true
		return errors.Join(json.NewEncoder(pipe).Encode(answer), pipe.Close())
	}
	err := serve(ctx, plan, log, func() error {
		if err := log.takeOver(); err != nil {
			return err
		}
		return tell(&control.Error{})
	})
	if err != nil && !told {
		tell(control.AsError(err))
		os.Exit(int(control.CodeOf(err))) // said by the command that started us
	}
	return err
}

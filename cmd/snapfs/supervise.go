package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// Exit codes of shells.
const (
	notExecutable = 126
	notFound      = 127
	killedBy      = 128 // and the number of the signal
)

// supervise starts CMD, does what the outer process orders, and tells it how CMD ended.
func (in *inside) supervise(snapshot string) error {
	pid, status, err := in.start(snapshot)
	if err != nil {
		return in.conn.send(news{Failed: &control.Error{Text: err.Error(), Code: control.Code(status)}}, nil)
	}
	orders := make(chan order)
	go func() {
		defer close(orders)
		for {
			var o order
			if _, err := in.conn.receive(&o); err != nil {
				return
			}
			orders <- o
		}
	}()
	ended := make(chan unix.WaitStatus, 1)
	go reap(pid, ended)
	for {
		select {
		case o, alive := <-orders:
			if !alive {
				orders = nil
			}
			if !alive || o.Kill {
				killDescendants()
			} else if o.Signal != 0 {
				syscall.Kill(pid, o.Signal) // it is our child and not reaped, or just now: then the number is not used again so soon
			}
		case how := <-ended:
			if how.Signaled() {
				killDescendants()
			}
			return in.conn.send(news{Ended: true, Status: statusOf(how)}, nil)
		}
	}
}

// start starts CMD, without the rights of this process in its user namespace. CMD dies with this process.
func (in *inside) start(snapshot string) (pid, status int, err error) {
	args := in.scene.args
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return 0, statusOfStart(err), startError(args[0], err)
	}
	runtime.LockOSThread() // CMD dies with the thread that started it, and gets the rights of it; never unlocked
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return 0, int(control.Failed), err
	}
	pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env:   append(os.Environ(), "SNAPFS_SNAPSHOT="+snapshot),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, statusOfStart(err), startError(args[0], err)
	}
	return pid, 0, nil
}

func startError(name string, err error) error {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return &os.PathError{Op: "execute", Path: name, Err: errno}
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("execute " + name + ": not found")
	}
	return err
}

func statusOfStart(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, syscall.ENOENT) {
		return notFound
	}
	return notExecutable
}

func statusOf(how unix.WaitStatus) int {
	if how.Signaled() {
		return killedBy + int(how.Signal())
	}
	return how.ExitStatus()
}

// reap waits for every child, also for those that were adopted, and tells how pid ended.
func reap(pid int, ended chan<- unix.WaitStatus) {
	for {
		var how unix.WaitStatus
		got, err := unix.Wait4(-1, &how, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil: // none is left
			return
		case got == pid:
			ended <- how
		}
	}
}

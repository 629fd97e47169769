package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// insideProcess is the inner process as the outer one sees it.
type insideProcess struct {
	cmd    *exec.Cmd
	conn   *packetConn
	device *os.File
	ended  bool
}

// startInside starts the inner process, and returns when the namespace and the mount in it are there.
func startInside(m control.Mounted, args []string) (*insideProcess, error) {
	// If the inner process is killed, what it was the parent of comes to us.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("adopt orphans: %w", err)
	}
	ours, theirs, err := packetPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	s := scene{point: m.Point, source: m.Source, sub: m.Root, args: args}
	dir, err := syscall.Getwd() // not os.Getwd: $PWD may lead through symbolic links
	if err != nil {
		return nil, fmt.Errorf("the current directory: %w", err)
	}
	if control.Inside(dir, m.Point) {
		s.dir = dir
	}
	in := &insideProcess{cmd: exec.Command("/proc/self/exe", append([]string{"exec-inside"}, s.arguments()...)...), conn: ours}
	in.cmd.Args[0] = "snapfs"
	in.cmd.Stdin, in.cmd.Stdout, in.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	in.cmd.ExtraFiles = []*os.File{theirs}
	in.cmd.SysProcAttr = namespaces()
	if err := in.cmd.Start(); err != nil {
		ours.Close()
		return nil, namespaceError(errnoOf(err))
	}
	if err := in.prepare(); err != nil {
		in.end()
		return nil, err
	}
	return in, nil
}

// namespaces says in which namespaces the inner process is to be. The user namespace knows only our own user and group, under their
// numbers, so CMD is who we are.
func namespaces() *syscall.SysProcAttr {
	if mayMount() {
		return &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	}
	return &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN}, // kept over execve; CMD does not get it
	}
}

// mayMount reports whether this process has CAP_SYS_ADMIN.
func mayMount() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// prepare waits for the namespace and the mount.
func (in *insideProcess) prepare() error {
	n, device, err := in.hear()
	if err != nil {
		return err
	}
	if !n.Ready || device == nil {
		return errors.New("the inner process has made no mount")
	}
	in.device = device
	return nil
}

// hear returns the next news; a failure of the inner process is an error.
func (in *insideProcess) hear() (news, *os.File, error) {
	var n news
	device, err := in.conn.receive(&n)
	if err == nil && n.Failed != nil {
		return n, nil, n.Failed
	}
	if err != nil {
		err = fmt.Errorf("the inner process of exec ended: %w", err)
	}
	return n, device, err
}

// killGrace is how long a command that lost its tree has to end when it is told to.
const killGrace = 5 * time.Second

// show has the daemon serve the mount, runs CMD to its end and returns its status.
func (in *insideProcess) show(ctx context.Context, view *control.View, signals <-chan os.Signal) (status int, err error) {
	err = view.Serve(ctx, in.device)
	in.device.Close() // else the mount would outlive the daemon
	if err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := in.conn.send(order{Go: true, Name: view.Taken.Name}, nil); err != nil {
		return 0, err
	}
	type heard struct {
		news news
		err  error
	}
	last := make(chan heard, 1)
	go func() {
		n, _, err := in.hear()
		last <- heard{n, err}
	}()
	gone, tooLong := view.Gone(), (<-chan time.Time)(nil)
	for {
		select {
		case h := <-last:
			if gone == nil {
				return 0, control.Errorf(control.NoMount, "the daemon has ended the frozen tree: the command was ended")
			}
			return h.news.Status, h.err
		case sig := <-signals:
			if !fromTerminal(sig) {
				in.conn.send(order{Signal: sig.(syscall.Signal)}, nil) // if it ended just now, that comes next
			}
		case <-gone: // better no backup than one of a tree full of errors
			gone, tooLong = nil, time.After(killGrace)
			in.conn.send(order{Signal: syscall.SIGTERM}, nil)
		case <-tooLong:
			in.conn.send(order{Kill: true}, nil)
		}
	}
}

// end lets the inner process end, and what there is below it if it was killed.
func (in *insideProcess) end() {
	if in.ended {
		return
	}
	in.ended = true
	in.conn.Close()
	if in.device != nil {
		in.device.Close()
	}
	if in.cmd.Wait() != nil { // it was killed
		killDescendants()
	}
}

// errnoOf returns the errno in err, which says enough of a failed fork.
func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

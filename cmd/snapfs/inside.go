package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/fs/control"
)

// The inner process of exec. It is this program executed again in a mount namespace of its own, and for a user other than root in
// a user namespace, where it may mount. It is the parent of CMD, and adopts what CMD leaves behind: whatever ends, the
// outer process, this one or CMD, one of them is left to end the rest.
//
// The two talk over a socket, one JSON object a packet: first this one says that it is ready, together with the FUSE device of its
// mount; then come orders, and news.

// scene is what the inner process is to make. It comes in the arguments, because paths need not be UTF-8.
type scene struct {
	point  string   // where the live tree is mounted
	source string   // the store
	sub    string   // the part of the tree that is mounted there, "/" for all of it
	dir    string   // the current directory if it is inside point, else ""
	args   []string // CMD
}

const sceneArgs = 4 // of the inner process, before CMD

func (s scene) arguments() []string {
	return append([]string{s.point, s.source, s.sub, s.dir}, s.args...)
}

// order is what the outer process tells the inner one.
type order struct {
	Go     bool           // the daemon serves: start CMD
	Name   string         // of the snapshot
	Signal syscall.Signal // for CMD, 0 is none
	Kill   bool           // end CMD and everything that it started
}

// news is what the inner process tells the outer one.
type news struct {
	Ready  bool           // the mount is made; the device comes with this
	Failed *control.Error // nothing comes after it
	Ended  bool           // CMD has, with Status as shells have it
	Status int
}

// insideFD is the inner process's end of the socket.
const insideFD = 3

func newInside() *cobra.Command {
	return &cobra.Command{
		Use:    "exec-inside",
		Short:  "The inner process of exec",
		Hidden: true,

		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			unix.CloseOnExec(insideFD)
			conn, err := newPacketConn(os.NewFile(insideFD, "exec"))
			if err != nil || len(args) <= sceneArgs {
				return control.Errorf(control.Usage, "exec-inside is for snapfs exec only")
			}
			os.WriteFile("/proc/self/comm", []byte("snapfs"), 0) // as the daemon
			passOn()                                             // to nobody: orders come over the socket
			in := &inside{conn: conn, scene: scene{args[0], args[1], args[2], args[3], args[sceneArgs:]}}
			if err := in.run(); err != nil {
				_ = conn.send(news{Failed: control.AsError(err)}, nil) // if the outer process has ended nobody needs to know
			}
			return nil
		},
	}
}

// inside is the inner process.
type inside struct {
	conn  *packetConn
	scene scene
}

func (in *inside) run() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	device, err := in.mount()
	if err != nil {
		return err
	}
	err = in.conn.send(news{Ready: true}, device)
	device.Close() // the daemon is to be the only one who has it: else the mount would outlive it
	if err != nil {
		return err
	}
	var o order
	if _, err := in.conn.receive(&o); err != nil || !o.Go {
		return err // the outer process has ended, or given up
	}
	if err := in.enter(); err != nil {
		return err
	}
	return in.supervise(o.Name)
}

// mount puts the new mount in place of the live tree, in this namespace only.
func (in *inside) mount() (*os.File, error) {
	point := in.scene.point
	var st unix.Statfs_t
	if err := unix.Statfs(point, &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", point, err)
	}
	// Private, not slave: when the live tree is unmounted outside, that would reach what is mounted at the same place here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, namespaceError(err)
	}
	// The live tree goes, so that it can be unmounted outside and nothing here leads to it. In a user namespace it cannot: there
	// it is covered, and CMD has no right to uncover it.
	if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, syscall.EINVAL) {
		return nil, fmt.Errorf("detach the live tree from %s: %w", point, err)
	}
	device, err := fs.Attach(point, in.scene.source, st.Flags&unix.ST_NOEXEC != 0)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return nil, namespaceError(err)
	}
	return device, err
}

// namespaceError says what a user can do where the system does not let him mount.
func namespaceError(err error) error {
	return control.Errorf(control.Refused, "this system does not let user %d mount in a namespace of his own (%v): run snapfs exec as root, or read MOUNTPOINT/.snapshots/NAME", os.Getuid(), err)
}

// enter makes ready what CMD will see, now that the mount is served.
func (in *inside) enter() error {
	point := in.scene.point
	fs.WidenReadAhead(point)
	if in.scene.sub != "/" { // the mount that the user named shows a part of the tree only
		if err := unix.Mount(filepath.Join(point, in.scene.sub), point, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("show %s of the frozen tree: %w", in.scene.sub, err)
		}
	}
	if in.scene.dir == "" {
		return nil
	}
	if err := os.Chdir(in.scene.dir); err != nil {
		return fmt.Errorf("the current directory in the frozen tree: %w", err)
	}
	return nil
}

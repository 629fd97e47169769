package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

// daemon is what serves one mount.
type daemon struct {
	plan   mountPlan
	log    *log.Logger
	store  *snapshot.Store
	server *control.Server
	mount  *fs.Mount
}

// serve mounts, calls ready, and returns when the mount is gone and everything is on disk. If it is refused nothing was changed. A
// signal (ctx) ends the mount.
func serve(ctx context.Context, plan mountPlan, messages io.Writer, ready func() error) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	unix.Umask(0o077)      // for the files of the store; modes in the tree are metadata, and the kernel has applied the umask of who makes a file
	debug.SetGCPercent(50) // the heap costs every fork: keep it small
	reserveThreads(threads)
	d := &daemon{plan: plan, log: log.New(messages, "", log.LstdFlags|log.LUTC|log.Lmsgprefix)}
	log.SetOutput(messages) // of go-fuse
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return errors.Join(err, d.mount.Unmount(), d.finish())
	}
	d.log.Printf("version %s serves %s at %s", version(), plan.store, plan.point)
	gone := make(chan struct{})
	go func() {
		d.mount.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		d.end(gone)
	}
	err := d.finish()
	if err != nil {
		d.log.Printf("ended: %v", err)
	} else {
		d.log.Printf("ended")
	}
	return err
}

// start does everything up to the answering mount; if it fails it takes everything back.
func (d *daemon) start(ctx context.Context) (err error) {
	var undo []func()
	defer func() {
		for i := len(undo) - 1; err != nil && i >= 0; i-- {
			undo[i]()
		}
	}()
	if err := checkPlaces(d.plan.store, d.plan.point); err != nil {
		return err
	}
	if err := unix.Access("/dev/fuse", unix.R_OK|unix.W_OK); errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("/dev/fuse may not be opened by this user: %w", err) // fusermount3 would say it on a line of its own
	}
	made, err := makeDir(d.plan.store, 0o700)
	if err != nil {
		return fmt.Errorf("make the store: %w", err)
	}
	undo = append(undo, func() { removeDirs(made) })
	_, err = os.Lstat(formatPath(d.plan.store))
	isNew := errors.Is(err, syscall.ENOENT)
	dirtyLimit := d.plan.options.dirtyLimit
	if dirtyLimit == 0 {
		dirtyLimit = defaultDirtyLimit(os.DirFS("/"))
	}
	d.store, err = openStore(ctx, d.plan.store, snapshot.Options{
		DirtyLimit:    dirtyLimit,
		FlushInterval: d.plan.options.flushInterval,
		StopOnError:   d.plan.options.stopOnError,
		Create:        true,
		Report:        func(err error) { d.log.Printf("store: %v", err) },
	})
	if err != nil {
		return err
	}
	undo = append(undo, func() { d.discard(isNew) })
	point, err := makeDir(d.plan.point, 0o755)
	if err != nil {
		return fmt.Errorf("make the mount point: %w", err)
	}
	undo = append(undo, func() { removeDirs(point) })
	d.server, err = control.Listen(d.plan.store)
	if err != nil {
		return err
	}
	undo = append(undo, func() { d.server.Close(nil) })
	return d.serveMount()
}

// discard closes the store of a mount that was refused; one that was made for it and has nothing in it goes away again.
func (d *daemon) discard(isNew bool) {
	isNew = isNew && isEmptyStore(d.store)
	if err := d.store.Close(); err != nil || !isNew {
		return
	}
	removeStore(d.plan.store)
}

func (d *daemon) serveMount() error {
	opt := d.plan.options
	var mount *fs.Mount
	err := hearFusermount(func() (err error) {
		mount, err = fs.New(d.store, fs.Options{
			MountPoint: d.plan.point,
			StorePath:  d.plan.store,
			AllowOther: opt.allowOther,
			ReadOnly:   opt.readOnly,
			NoACL:      opt.noACL,
			Dev:        opt.dev,
			Suid:       opt.suid,
			Flags:      opt.flags,
			Visible:    opt.visible,
			Writeback:  opt.writeback,
			Version:    version(),
		})
		return err
	})
	if err != nil {
		return err
	}
	d.mount = mount
	d.server.Serve(mount, d.store, control.Hello{PID: os.Getpid(), Version: version(), MountPoint: d.plan.point})
	return nil
}

// finish closes the store, tells the commands that wait for it, and removes the socket. The mount is gone.
func (d *daemon) finish() error {
	d.server.Drain()
	err := d.store.Close()
	if err != nil {
		err = fmt.Errorf("close store %s: %w", d.plan.store, err)
	}
	return errors.Join(err, d.server.Close(err))
}

const (
	busyGrace  = 2 * time.Second        // how long a signalled daemon waits for those who use the mount
	busyRetry  = 100 * time.Millisecond // how often it tries
	abortGrace = 3 * time.Second        // how long it then waits for the kernel to let go
)

// push takes what the kernel alone holds dirty, unless that hangs.
func (d *daemon) push() {
	pushed := make(chan error, 1)
	go func() { pushed <- d.mount.Push() }()
	select {
	case err := <-pushed:
		if err != nil {
			d.log.Printf("take what the kernel holds: %v", err)
		}
	case <-time.After(endingLimit):
		d.log.Printf("the kernel still holds data, which is lost")
	}
}

// unmount unmounts. That another mount namespace still has the mount after a grace is an error.
func (d *daemon) unmount() error {
	unmounted := make(chan error, 1)
	go func() { unmounted <- d.mount.Unmount() }()
	select {
	case err := <-unmounted:
		return err
	case <-time.After(abortGrace):
		return errors.New("another mount namespace still has it")
	}
}

// end unmounts because of a signal. Who still uses the mount after a grace gets ENOTCONN.
func (d *daemon) end(gone <-chan struct{}) {
	d.log.Printf("signalled: unmounting %s", d.plan.point)
	for start := time.Now(); time.Since(start) < busyGrace; time.Sleep(busyRetry) {
		d.server.EndViews()
		err := d.unmount()
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EBUSY) {
			d.log.Printf("unmount: %v", err)
			break
		}
	}
	select {
	case <-gone:
		return
	default:
	}
	d.log.Printf("%s is still used: detaching it", d.plan.point)
	d.push()
	if err := d.detach(); err != nil {
		d.log.Printf("detach: %v", err)
	}
	d.abort(gone)
}

// detach takes the mount out of the tree, if it is not covered by another. As root this also ends the connection: requests in flight are
// answered with an error, and no new ones come.
func (d *daemon) detach() error {
	if !d.mount.IsAtPoint() {
		return nil
	}
	if unix.Unmount(d.plan.point, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
		return nil
	}
	return detach(d.plan.point)
}

// abort ends the connection, also where another mount namespace has the mount, or where we may not end it by force. What is under way is
// answered first: the store is closed next.
func (d *daemon) abort(gone <-chan struct{}) {
	limit := endingLimit
	err := d.mount.Abort()
	if err != nil { // ENOENT: it has ended already
		limit = abortGrace
	}
	select {
	case <-gone:
	case <-time.After(limit):
		d.log.Printf("the kernel still holds the mount: %v", err)
	}
}

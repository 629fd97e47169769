package fs

import (
	"errors"
	"fmt"
	"log"
	"os"
	"sync/atomic"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// Options of a mount.
type Options struct {
	MountPoint string // absolute
	StorePath  string // absolute; shown as the mount's source in /proc/mounts
	AllowOther bool   // let other users in; always so for root
	ReadOnly   bool   // until it is remounted
	Visible    bool   // list .snapshots in the root (snapdir=visible)
	Writeback  bool   // let the kernel keep written data (writeback=on)
	NoACL      bool   // no POSIX access control lists
	Dev, Suid  bool   // devices and set-id programs work; only as root
	Flags      Flags  // of the mount
	Version    string
	Debug      bool // log every request
}

// Mount is a served file system.
type Mount struct {
	store      *snapshot.Store
	opt        Options
	server     *gofuse.Server // set before the first request
	views      *views
	handles    *handles
	faults     *faults
	flags      flags
	hidden     hidden
	answers    answers
	forgetting *forgetting
	uid        uint32 // owner of the mount
	gid        uint32
	start      time.Time
	minor      uint32        // of the device number, the major one is 0: the connection's number
	changed    atomic.Int64  // last change of the catalogue, in Unix nanoseconds
	done       chan struct{} // closed when the mount is gone
}

// New mounts store and starts serving it; it returns when the mount answers. The store stays the caller's, to be closed
// after Wait.
func New(store *snapshot.Store, opt Options) (*Mount, error) {
	now := time.Now()
	m := &Mount{
		store:      store,
		opt:        opt,
		views:      newViews(store),
		handles:    newHandles(),
		faults:     &faults{log: log.New(os.Stderr, fsName+": ", log.LstdFlags|log.Lmsgprefix)},
		hidden:     newHidden(),
		forgetting: newForgetting(),
		uid:        uint32(os.Geteuid()),
		gid:        uint32(os.Getegid()),
		start:      now,
		done:       make(chan struct{}),
	}
	m.changed.Store(now.UnixNano())
	if opt.ReadOnly {
		m.flags.set.Store(readOnly | keepAtime)
	}
	server, err := m.connect()
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", opt.MountPoint, err)
	}
	m.server = server
	go m.serve()
	if err := server.WaitMount(); err != nil {
		return nil, fmt.Errorf("mount %s: %w", opt.MountPoint, errors.Join(err, m.Unmount()))
	}
	var st unix.Stat_t
	if err := unix.Lstat(opt.MountPoint, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", opt.MountPoint, err), m.Unmount())
	}
	m.minor = unix.Minor(st.Dev)
	if err := m.flags.follow(opt.MountPoint); err != nil {
		return nil, errors.Join(err, m.Unmount())
	}
	widenReadAhead(opt.MountPoint)
	return m, nil
}

// serve answers requests until the mount is gone, then lets go of what the kernel had open: an aborted connection sends
// no RELEASE.
func (m *Mount) serve() {
	go m.forgetting.run(func(ino snapshot.Ino) {
		if !m.knows(ino) {
			m.store.Forget(ino)
		}
	})
	m.server.Serve()
	m.forgetting.end()
	m.closeAll()
	m.views.close()
	close(m.done)
}

func (m *Mount) closeAll() {
	f := newFace(m)
	for _, fh := range m.handles.all() {
		f.close("unmount", m.handles.remove(fh))
	}
}

// Wait returns when the mount is gone (unmounted by anybody) and every request has been answered.
func (m *Mount) Wait() { <-m.done }

// Unmount unmounts and waits; the error wraps EBUSY while somebody uses the mount. It is no error if the mount is gone.
func (m *Mount) Unmount() error {
	select {
	case <-m.done:
		return nil
	default:
	}
	if !m.IsAtPoint() {
		return fmt.Errorf("unmount %s: something else is mounted there: %w", m.opt.MountPoint, unix.EINVAL)
	}
	err := disconnect(m.opt.MountPoint)
	// What was closed a moment ago is still in use for the kernel, and so is an inode that is being pushed.
	for delay := time.Millisecond; errors.Is(err, unix.EBUSY) && delay < 100*time.Millisecond; delay *= 2 {
		time.Sleep(delay)
		err = disconnect(m.opt.MountPoint)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.opt.MountPoint, err)
	}
	<-m.done
	return nil
}

// IsAtPoint reports whether the mount point leads to this mount, as far as that can be seen: another one may be over it, which unmounting by
// path would hit.
func (m *Mount) IsAtPoint() bool {
	id := m.flags.id.Load()
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, m.opt.MountPoint, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st)
	return err != nil || id == 0 || st.Mask&unix.STATX_MNT_ID == 0 || st.Mnt_id == id
}

// Abort ends the connection to the kernel: whoever still uses the mount, in whatever mount namespace, gets ENOTCONN from now on. It takes the
// control file system of FUSE (fusectl), where every connection belongs to its owner. If the mount is gone it does nothing: another one may
// have its number.
func (m *Mount) Abort() error {
	select {
	case <-m.done:
		return nil
	default:
	}
	if err := AbortConnection(m.minor); err != nil {
		return fmt.Errorf("abort %s: %w", m.opt.MountPoint, err)
	}
	return nil
}

// AbortConnection ends the connection of the FUSE mount whose device has that minor number, by fusectl. ENOENT: there is none, or fusectl
// is not mounted.
func AbortConnection(minor uint32) error {
	return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", minor), []byte("1"), 0)
}

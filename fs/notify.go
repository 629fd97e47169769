package fs

import (
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot"
)

// announce tells the kernel that a name in .snapshots means something else than it may remember. It waits for whoever
// holds the lock of .snapshots: never called by a handler that may be that one, nor with a lock held.
func (m *Mount) announce(name string) {
	m.told(m.server.EntryNotify(uint64(snapdirNode), name))
}

// announceGone tells the kernel that the snapshot of epoch e, called name, was deleted; as announce.
func (m *Mount) announceGone(e cow.Epoch, name string) {
	status := m.server.DeleteNotify(uint64(snapdirNode), uint64(frozenNode(e, snapshot.Root)), name)
	if status == gofuse.Status(syscall.ENOTEMPTY) { // somebody is in it; the name goes nevertheless
		status = m.server.EntryNotify(uint64(snapdirNode), name)
	}
	m.told(status)
}

// told reports a notification that failed. Most often the kernel has nothing to forget, or the mount is gone.
func (m *Mount) told(status gofuse.Status) {
	switch syscall.Errno(status) {
	case 0, syscall.ENOENT, syscall.ENOTDIR, syscall.ENODEV, syscall.ENOTCONN, syscall.EBADF:
		return
	}
	m.faults.report("notification", uint64(snapdirNode), syscall.Errno(status))
}

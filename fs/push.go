package fs

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// pushers is how many inodes are pushed at the same time.
const pushers = 4

// syncWait makes sync_file_range(2) start the writing of all dirty pages and wait for its end.
const syncWait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER

// push makes the kernel send what it holds dirty for this mount: stores into shared mappings and, with writeback, plain
// writes. It returns when all that was dirty at the call has been answered by Write. Only an inode with a handle open for
// writing can be dirty: a mapping keeps its handle.
//
// It makes requests of this very mount, so it is called without any lock that a handler takes. The handler of MKDIR in
// .snapshots may call it: see reach.
func (m *Mount) push() error {
	inos := m.handles.written()
	if len(inos) == 0 {
		return nil
	}
	root := m.openRoot()
	defer unix.Close(root)
	errs := make([]error, pushers)
	var wg sync.WaitGroup
	for worker := range min(pushers, len(inos)) {
		wg.Go(func() {
			for i := worker; i < len(inos); i += pushers {
				if err := m.pushInode(root, inos[i]); err != nil {
					errs[worker] = fmt.Errorf("write back inode %d: %w", inos[i], err)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Push is for a mount that ends while it is used: whatever was stored into shared mappings until now is with the daemon after it.
func (m *Mount) Push() error { return m.push() }

// pushInode is push for one inode. One that was closed since has nothing left: the kernel writes back before the last
// RELEASE.
func (m *Mount) pushInode(root int, ino snapshot.Ino) error {
	fd, err := m.reach(root, ino)
	if err != nil {
		if m.handles.isWritten(ino) {
			// No way to it (another mount over this one, no right to read it): slower, page by page, but sure.
			m.told(m.server.InodeNotify(uint64(liveNode(ino)), 0, 0))
		}
		return nil
	}
	// Beside: with writeback close(2) may need the inode's lock, which the kernel holds while an LSEEK waits for us.
	defer func() { go unix.Close(fd) }()
	return retryEINTR(func() error { return unix.SyncFileRange(fd, 0, 0, syncWait) })
}

// pushLive is push for an inode that a request is about: LSEEK, which the kernel sends without writing back what it holds
// of the file, so that fresh data would be in a hole.
func (m *Mount) pushLive(n nodeID) error {
	if n.isFrozen() || !m.handles.isWritten(n.ino()) {
		return nil
	}
	root := m.openRoot()
	defer unix.Close(root)
	return m.pushInode(root, n.ino())
}

func retryEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

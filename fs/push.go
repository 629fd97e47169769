package fs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// pushers is how many inodes are pushed at the same time.
const pushers = 4

// syncWait makes sync_file_range(2) start the writing of all dirty pages and wait for its end.
const syncWait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER

// hidden gives every live inode a name in the root that only this process knows: the way to reach an inode through the
// own mount without its path. The names are never listed, and the kernel does not keep them.
type hidden struct{ prefix string }

func newHidden() hidden {
	var token [16]byte
	_, _ = rand.Read(token[:]) // never fails
	return hidden{prefix: ".snapfs-inode-" + hex.EncodeToString(token[:]) + "-"}
}

func (h hidden) name(ino snapshot.Ino) string {
	return h.prefix + strconv.FormatUint(uint64(ino), 10)
}

// ino returns the inode that a hidden name means.
func (h hidden) ino(name string) (snapshot.Ino, bool) {
	digits, ok := strings.CutPrefix(name, h.prefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, inoBits)
	return snapshot.Ino(n), err == nil
}

// push makes the kernel send what it holds dirty for this mount: stores into shared mappings and, with writeback, plain
// writes. It returns when all that was dirty at the call has been answered by Write. Only an inode with a handle open for
// writing can be dirty: a mapping keeps its handle.
//
// It makes requests of this very mount, so it is called without any lock that a handler takes. A handler may call it if
// the kernel holds no lock that a lookup in the root needs: MKDIR in .snapshots does not.
func (m *Mount) push() error {
	inos := m.handles.written()
	errs := make([]error, pushers)
	var wg sync.WaitGroup
	for worker := range min(pushers, len(inos)) {
		wg.Go(func() {
			for i := worker; i < len(inos); i += pushers {
				if err := m.pushInode(inos[i]); err != nil {
					errs[worker] = fmt.Errorf("write back inode %d: %w", inos[i], err)
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// pushInode is push for one inode. One that was closed since has nothing left: the kernel writes back before the last
// RELEASE.
func (m *Mount) pushInode(ino snapshot.Ino) error {
	fd, err := m.openHidden(ino)
	if err != nil {
		if !m.handles.isWritten(ino) {
			return nil
		}
		// The path does not lead here (another mount over it, no right to read the file): the slow way, page by page.
		m.told(m.server.InodeNotify(uint64(liveNode(ino)), 0, 0))
		return nil
	}
	defer unix.Close(fd)
	return retryEINTR(func() error { return unix.SyncFileRange(fd, 0, 0, syncWait) })
}

// openHidden opens a live inode through the mount, and makes sure that it is this mount. The file is opened with
// unix.Open: package os would make the runtime poll it, by requests of this mount again.
func (m *Mount) openHidden(ino snapshot.Ino) (int, error) {
	path := filepath.Join(m.opt.MountPoint, m.hidden.name(ino))
	var fd int
	err := retryEINTR(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != uint64(liveNode(ino)) {
		unix.Close(fd)
		return -1, errors.Join(unix.ESTALE, err)
	}
	return fd, nil
}

func retryEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

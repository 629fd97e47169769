package fs

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// reachTime bounds the wait for an inode to be opened through the mount.
const reachTime = 5 * time.Second

// openFlags opens for sync_file_range(2), by package unix: files of package os are polled, by requests of this mount.
// The files are not read: their atimes stay.
const openFlags = unix.O_RDONLY | unix.O_NOATIME | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// openRoot opens the root of the mount, for reach; -1 if it cannot be opened.
func (m *Mount) openRoot() int {
	fd, err := openRetry(func() (int, error) {
		return unix.Open(m.opt.MountPoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1
	}
	return fd
}

// reach opens a live inode through the mount, without its path: by file handle, which takes root, else by a hidden name.
// root is the mount's root as openRoot opened it.
//
// It is also called while the kernel holds the lock of .snapshots for a MKDIR that waits for us. A file handle needs no
// other lock. A hidden name needs that of the root, and a rename(2) between the root and .snapshots may hold it and wait
// for .snapshots: this circle is broken by giving up.
func (m *Mount) reach(root int, ino snapshot.Ino) (int, error) {
	type result struct {
		fd  int
		err error
	}
	opened := make(chan result)
	abandoned := make(chan struct{})
	go func() {
		fd, err := m.openInode(root, ino)
		select {
		case <-abandoned:
			if err == nil {
				unix.Close(fd)
			}
		case opened <- result{fd, err}:
		}
	}()
	timeout := time.NewTimer(reachTime)
	defer timeout.Stop()
	select {
	case r := <-opened:
		return r.fd, r.err
	case <-timeout.C:
		close(abandoned)
		return -1, fmt.Errorf("open inode %d: %w", ino, unix.ETIMEDOUT)
	}
}

func (m *Mount) openInode(root int, ino snapshot.Ino) (int, error) {
	fd, err := openHandle(root, ino)
	if err == unix.EPERM {
		fd, err = m.openHidden(ino)
	}
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != uint64(liveNode(ino)) {
		unix.Close(fd)
		return -1, errors.Join(unix.ESTALE, err) // something else is mounted over us
	}
	return fd, nil
}

// fileHandle is the type of a FUSE file handle: the node id, high half first, and the generation, in 32-bit words.
const fileHandle = 0x81

// openHandle opens an inode that the kernel knows by its file handle, see open_by_handle_at(2).
func openHandle(root int, ino snapshot.Ino) (fd int, err error) {
	id := uint64(liveNode(ino))
	var words []byte
	for _, w := range [...]uint32{uint32(id >> 32), uint32(id), 0} {
		words = binary.NativeEndian.AppendUint32(words, w)
	}
	handle := unix.NewFileHandle(fileHandle, words)
	return openRetry(func() (int, error) { return unix.OpenByHandleAt(root, handle, openFlags) })
}

func (m *Mount) openHidden(ino snapshot.Ino) (int, error) {
	path := filepath.Join(m.opt.MountPoint, m.hidden.name(ino))
	return openRetry(func() (int, error) { return unix.Open(path, openFlags, 0) })
}

// openRetry repeats what a signal interrupted: the runtime sends them to itself.
func openRetry(open func() (int, error)) (fd int, err error) {
	err = retryEINTR(func() error {
		fd, err = open()
		return err
	})
	return fd, err
}

// hidden gives every live inode a name in the root that only this process knows. The names are never listed, and the
// kernel does not keep them.
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

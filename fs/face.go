package fs

import (
	"fmt"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"github.com/snapfs/snapfs/snapshot"
)

// nameMax is the longest name of a directory entry, in bytes.
const nameMax = 255

// face answers the requests of the kernel. What it does not define is answered with ENOSYS by the embedded default: only
// requests that were not negotiated (locks, for one, stay in the kernel).
type face struct {
	gofuse.RawFileSystem
	m       *Mount
	live    *snapshot.Live
	views   *views
	handles *handles
	faults  *faults
}

func newFace(m *Mount) *face {
	return &face{
		RawFileSystem: gofuse.NewDefaultRawFileSystem(),
		m:             m,
		live:          m.store.Live(),
		views:         m.views,
		handles:       m.handles,
		faults:        m.faults,
	}
}

func (f *face) String() string { return fsName }

// view returns the tree that n is in. The reference, nil for the live tree, goes back by views.put.
func (f *face) view(n nodeID) (snapshot.View, *viewRef, error) {
	if !n.isFrozen() {
		return f.live, nil, nil
	}
	r, err := f.views.get(n.epoch())
	if err != nil {
		return nil, nil, err
	}
	return r.view, r, nil
}

// change says whether the inode n may be changed at all: EROFS in frozen views, EPERM for .snapshots, which knows only
// the requests of snapdir.go.
func (f *face) change(n nodeID) error {
	switch {
	case n.isFrozen():
		return fmt.Errorf("a snapshot does not change: %w", syscall.EROFS)
	case f.m.readOnly():
		return fmt.Errorf("mounted read-only: %w", syscall.EROFS)
	case n == snapdirNode:
		return fmt.Errorf("%s: %w", snapdirName, syscall.EPERM)
	}
	return f.m.store.Stopped()
}

// changeName is change for the entry name of directory dir. The name .snapshots of the root is not to be had: taken says
// with which errno.
func (f *face) changeName(dir nodeID, name string, taken syscall.Errno) error {
	if err := f.change(dir); err != nil {
		return err
	}
	if len(name) > nameMax {
		return fmt.Errorf("name of %d bytes: %w", len(name), syscall.ENAMETOOLONG)
	}
	if dir == rootNode && name == snapdirName {
		return fmt.Errorf("%s: %w", name, taken)
	}
	return nil
}

// StatFs tells of the file system that the store is on.
func (f *face) StatFs(_ <-chan struct{}, in *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	st, err := f.m.store.Statfs()
	if err != nil {
		return f.faults.status("statfs", in.NodeId, err)
	}
	*out = gofuse.StatfsOut{
		Blocks:  st.Blocks,
		Bfree:   st.Bfree,
		Bavail:  st.Bavail,
		Files:   st.Files,
		Ffree:   st.Ffree,
		Bsize:   uint32(st.Bsize),
		Frsize:  uint32(st.Frsize),
		NameLen: nameMax,
	}
	return gofuse.OK
}

// Access is not asked for again: with default_permissions the kernel knows the answer.
func (f *face) Access(_ <-chan struct{}, _ *gofuse.AccessIn) gofuse.Status { return gofuse.ENOSYS }

// Flush is not asked for again: nothing is held back until close.
func (f *face) Flush(_ <-chan struct{}, _ *gofuse.FlushIn) gofuse.Status { return gofuse.ENOSYS }

// Ioctl knows none, and passes none on to the store's file system.
func (f *face) Ioctl(_ <-chan struct{}, _ *gofuse.IoctlIn, _ []byte, _ *gofuse.IoctlOut, _ []byte) gofuse.Status {
	return gofuse.Status(syscall.ENOTTY)
}

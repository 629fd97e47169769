package fs

import (
	"fmt"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/snapfs/snapfs/snapshot"
)

// xattrName says whether an extended attribute of that name can be had at all.
func (f *face) xattrName(name string) error {
	if f.m.opt.NoACL && snapshot.IsACL(name) {
		return fmt.Errorf("mounted with noacl: %w", syscall.EOPNOTSUPP)
	}
	return nil
}

// GetXAttr returns the length of the value, with ERANGE if dest is too short for it (also for the question how long it
// is, which has no dest).
func (f *face) GetXAttr(_ <-chan struct{}, in *gofuse.InHeader, name string, dest []byte) (uint32, gofuse.Status) {
	node := nodeID(in.NodeId)
	if err := f.xattrName(name); err != nil {
		return 0, f.faults.status("getxattr", in.NodeId, err)
	}
	if node == snapdirNode { // has none; not EOPNOTSUPP, which the kernel would take for a failure to check rights
		return 0, gofuse.ENOATTR
	}
	view, ref, err := f.view(node)
	if err != nil {
		return 0, f.faults.status("getxattr", in.NodeId, err)
	}
	defer f.views.put(ref)
	value, err := view.Xattr(node.ino(), name)
	if err != nil {
		return 0, f.faults.status("getxattr", in.NodeId, err)
	}
	return copyOut(dest, value)
}

// ListXAttr returns the names, each ended by a NUL, with the lengths as GetXAttr does.
func (f *face) ListXAttr(_ <-chan struct{}, in *gofuse.InHeader, dest []byte) (uint32, gofuse.Status) {
	node := nodeID(in.NodeId)
	if node == snapdirNode {
		return 0, gofuse.OK
	}
	view, ref, err := f.view(node)
	if err != nil {
		return 0, f.faults.status("listxattr", in.NodeId, err)
	}
	defer f.views.put(ref)
	names, err := view.Xattrs(node.ino())
	if err != nil {
		return 0, f.faults.status("listxattr", in.NodeId, err)
	}
	var all []byte
	for _, name := range names {
		all = append(append(all, name...), 0)
	}
	return copyOut(dest, all)
}

func copyOut(dest, value []byte) (uint32, gofuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), gofuse.ERANGE
	}
	return uint32(copy(dest, value)), gofuse.OK
}

func (f *face) SetXAttr(_ <-chan struct{}, in *gofuse.SetXAttrIn, name string, value []byte) gofuse.Status {
	node := nodeID(in.NodeId)
	err := f.change(node)
	if err == nil {
		err = f.xattrName(name)
	}
	switch {
	case err != nil:
	case snapshot.IsACL(name):
		err = f.live.SetACL(node.ino(), name, value, in.SetXAttrFlags&gofuse.SETXATTR_ACL_KILL_SGID != 0)
	default:
		err = f.live.SetXattr(node.ino(), name, value, uint(in.Flags))
	}
	if err == nil {
		f.outdate(node)
	}
	return f.faults.status("setxattr", in.NodeId, f.settled(err, syncAll))
}

func (f *face) RemoveXAttr(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	node := nodeID(in.NodeId)
	err := f.change(node)
	if err == nil {
		err = f.xattrName(name)
	}
	if err == nil {
		err = f.live.RemoveXattr(node.ino(), name)
	}
	if err == nil {
		f.outdate(node)
	}
	return f.faults.status("removexattr", in.NodeId, f.settled(err, syncAll))
}

package fs

import (
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// create makes an inode of any type called name in the live directory dir.
func (f *face) create(dir nodeID, name string, spec snapshot.Spec) (snapshot.Attr, error) {
	if err := f.changeName(dir, name, syscall.EEXIST); err != nil {
		return snapshot.Attr{}, err
	}
	attr, err := f.live.Create(dir.ino(), name, spec)
	f.outdate(dir)
	return attr, f.settled(err, syncNames)
}

// makeEntry is create for the requests that answer with an entry.
func (f *face) makeEntry(op string, in *gofuse.InHeader, name string, spec snapshot.Spec, out *gofuse.EntryOut) gofuse.Status {
	attr, err := f.create(nodeID(in.NodeId), name, spec)
	if err != nil {
		return f.faults.status(op, in.NodeId, err)
	}
	fillEntry(out, liveNode(attr.Ino), attr)
	return gofuse.OK
}

// specOf describes an inode of the caller's. The kernel leaves the umask to us (DONT_MASK): a default access control list
// stands in its place. It has cleared a setgid bit that the caller may not give.
func specOf(in *gofuse.InHeader, mode, umask uint32) snapshot.Spec {
	return snapshot.Spec{Mode: mode, Umask: umask, UID: in.Uid, GID: in.Gid}
}

func (f *face) Mknod(_ <-chan struct{}, in *gofuse.MknodIn, name string, out *gofuse.EntryOut) gofuse.Status {
	mode := in.Mode
	if mode&syscall.S_IFMT == 0 {
		mode |= syscall.S_IFREG
	}
	spec := specOf(&in.InHeader, mode, in.Umask)
	spec.Rdev = in.Rdev
	return f.makeEntry("mknod", &in.InHeader, name, spec, out)
}

// Mkdir makes a directory; in .snapshots it takes a snapshot.
func (f *face) Mkdir(_ <-chan struct{}, in *gofuse.MkdirIn, name string, out *gofuse.EntryOut) gofuse.Status {
	if nodeID(in.NodeId) == snapdirNode {
		return f.mkdirSnapshot(name, out)
	}
	spec := specOf(&in.InHeader, syscall.S_IFDIR|in.Mode&07777, in.Umask)
	return f.makeEntry("mkdir", &in.InHeader, name, spec, out)
}

func (f *face) Symlink(_ <-chan struct{}, in *gofuse.InHeader, target, name string, out *gofuse.EntryOut) gofuse.Status {
	spec := specOf(in, syscall.S_IFLNK|0777, 0)
	spec.Target = target
	return f.makeEntry("symlink", in, name, spec, out)
}

func (f *face) Link(_ <-chan struct{}, in *gofuse.LinkIn, name string, out *gofuse.EntryOut) gofuse.Status {
	dir, old := nodeID(in.NodeId), nodeID(in.Oldnodeid)
	if err := f.changeName(dir, name, syscall.EEXIST); err != nil {
		return f.faults.status("link", in.NodeId, err)
	}
	if !old.isLive() { // a frozen file in the live tree: as from another file system
		return gofuse.EXDEV
	}
	attr, err := f.live.Link(old.ino(), dir.ino(), name)
	f.outdate(dir)
	if err = f.settled(err, syncNames); err != nil {
		return f.faults.status("link", in.NodeId, err)
	}
	fillEntry(out, old, attr)
	return gofuse.OK
}

func (f *face) Unlink(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	dir := nodeID(in.NodeId)
	err := f.changeName(dir, name, syscall.EBUSY)
	if err == nil {
		err = f.live.Unlink(dir.ino(), name)
		f.outdate(dir)
	}
	return f.faults.status("unlink", in.NodeId, f.settled(err, syncNames))
}

// Rmdir removes a directory; in .snapshots it deletes a snapshot.
func (f *face) Rmdir(_ <-chan struct{}, in *gofuse.InHeader, name string) gofuse.Status {
	dir := nodeID(in.NodeId)
	if dir == snapdirNode {
		return f.rmdirSnapshot(name)
	}
	err := f.changeName(dir, name, syscall.EBUSY)
	if err == nil {
		err = f.live.Rmdir(dir.ino(), name)
		f.outdate(dir)
	}
	return f.faults.status("rmdir", in.NodeId, f.settled(err, syncNames))
}

// Rename moves an entry; within .snapshots it renames a snapshot. Between .snapshots and the tree it is EPERM, not
// EXDEV: mv(1) would answer that by making a directory in .snapshots.
func (f *face) Rename(_ <-chan struct{}, in *gofuse.RenameIn, oldName, newName string) gofuse.Status {
	from, to := nodeID(in.NodeId), nodeID(in.Newdir)
	if from == snapdirNode && to == snapdirNode {
		return f.renameSnapshot(oldName, newName, in.Flags)
	}
	err := f.changeName(from, oldName, syscall.EBUSY)
	if err == nil {
		err = f.changeName(to, newName, syscall.EEXIST)
	}
	if err == nil {
		err = f.rename(in, oldName, newName)
	}
	return f.faults.status("rename", in.NodeId, f.settled(err, syncNames))
}

func (f *face) rename(in *gofuse.RenameIn, oldName, newName string) error {
	from, to := nodeID(in.NodeId), nodeID(in.Newdir)
	var moved []snapshot.Attr
	var err error
	if flags := uint(in.Flags); flags&unix.RENAME_WHITEOUT != 0 {
		moved, err = f.live.RenameWhiteout(from.ino(), oldName, to.ino(), newName, flags&^unix.RENAME_WHITEOUT, in.Uid, in.Gid)
	} else {
		moved, err = f.live.Rename(from.ino(), oldName, to.ino(), newName, flags)
	}
	if err == nil {
		f.outdateMoved(from, to, moved)
	}
	return err
}

package fs

import (
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// A file handle of name_to_handle_at(2), which NFS servers give to their clients, is a node id. Node ids mean the same for
// ever (nodeid.go), so handles stay valid when the kernel has forgotten the inode and when the store is mounted again. With
// EXPORT_SUPPORT the kernel then asks for the inode by LOOKUP of ".", and for the parent of a directory, to find the way up, by
// LOOKUP of "..". Paths never lead here: the kernel resolves both itself. See fuse_get_dentry and fuse_get_parent in
// fs/fuse/inode.c of Linux.

// lookupHandle answers LOOKUP of "." and "..". ENOENT becomes ESTALE for the caller.
func (f *face) lookupHandle(node nodeID, name string, out *gofuse.EntryOut) gofuse.Status {
	var err error
	if name == ".." {
		node, err = f.parent(node)
	}
	if err == nil {
		err = f.entryOf(node, out)
	}
	return f.faults.status("lookup by handle", uint64(node), err)
}

// entryOf answers with an inode that is known by its number only.
func (f *face) entryOf(node nodeID, out *gofuse.EntryOut) error {
	if node == snapdirNode {
		f.snapdirEntry(out)
		return nil
	}
	attr, err := f.stat(node)
	if err != nil {
		return err
	}
	// The kernel has forgotten it, or would not ask: without a name it is about to be dropped.
	if attr.Nlink == 0 {
		return fmt.Errorf("inode %d has no name: %w", attr.Ino, syscall.ENOENT)
	}
	fillEntry(out, node, attr)
	return nil
}

// parent returns the directory that directory node is in.
func (f *face) parent(node nodeID) (nodeID, error) {
	switch {
	case node == snapdirNode:
		f.showSnapdir()
		return rootNode, nil
	case node.isFrozen() && node.ino() == snapshot.Root:
		return snapdirNode, nil
	}
	view, ref, err := f.view(node)
	if err != nil {
		return 0, err
	}
	defer f.views.put(ref)
	ino, err := view.Parent(node.ino())
	return node.sibling(ino), err
}

// showTime bounds the wait for the kernel to look .snapshots up.
const showTime = 5 * time.Second

// showSnapdir makes the kernel know .snapshots by name. It looks for the name of a directory in the listing of its parent, where
// .snapshots may be hidden; what it knows already it does not look for. The kernel holds the lock of .snapshots now, and somebody
// who holds that of the root may wait for it: this circle is broken by giving up, and the handle is stale for once.
func (f *face) showSnapdir() {
	if f.m.opt.Visible {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var st unix.Stat_t
		_ = unix.Lstat(filepath.Join(f.m.opt.MountPoint, snapdirName), &st) // whether it worked is for the kernel to see
	}()
	select {
	case <-done:
	case <-time.After(showTime):
	}
}

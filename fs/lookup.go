package fs

import (
	"errors"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/snapfs/snapfs/snapshot"
)

// Lookup finds a name in a directory of any view, or in .snapshots.
func (f *face) Lookup(_ <-chan struct{}, in *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	dir := nodeID(in.NodeId)
	if len(name) > nameMax {
		return gofuse.Status(syscall.ENAMETOOLONG)
	}
	if name == "." || name == ".." {
		return f.lookupHandle(dir, name, out)
	}
	switch dir {
	case snapdirNode:
		return f.lookupSnapshot(name, out)
	case rootNode:
		if name == snapdirName {
			f.snapdirEntry(out)
			return gofuse.OK
		}
		if ino, ok := f.m.hidden.ino(name); ok {
			return f.lookupHidden(ino, out)
		}
	}
	view, ref, err := f.view(dir)
	if err != nil {
		return f.faults.status("lookup", in.NodeId, err)
	}
	defer f.views.put(ref)
	attr, err := view.Lookup(dir.ino(), name)
	if errors.Is(err, syscall.ENOENT) {
		return noEntry(out)
	}
	if err == nil && dir.isLive() { // once more, now that it is known whom to note
		attr, err = f.stat(liveNode(attr.Ino))
	}
	if err != nil {
		return f.faults.status("lookup", in.NodeId, err)
	}
	fillEntry(out, dir.sibling(attr.Ino), attr)
	return gofuse.OK
}

// lookupHidden answers the daemon's own lookup of a live inode by its hidden name. The name is forgotten at once: an
// unlinked file must not be kept alive by it.
func (f *face) lookupHidden(ino snapshot.Ino, out *gofuse.EntryOut) gofuse.Status {
	attr, err := f.stat(liveNode(ino))
	if err != nil {
		return f.faults.status("lookup", uint64(ino), err)
	}
	fillEntry(out, liveNode(ino), attr)
	out.SetEntryTimeout(0)
	return gofuse.OK
}

// Forget lets go of an unlinked live inode; see forgetting.
func (f *face) Forget(node, _ uint64) {
	if n := nodeID(node); n.isLive() && f.live.Nameless(n.ino()) {
		f.m.forgetting.add(n.ino())
	}
}

// stat returns the attributes of an inode of any view, and of .snapshots.
func (f *face) stat(n nodeID) (snapshot.Attr, error) {
	if n == snapdirNode {
		return f.m.snapdirAttr(), nil
	}
	view, ref, err := f.view(n)
	if err != nil {
		return snapshot.Attr{}, err
	}
	defer f.views.put(ref)
	if n.isLive() {
		f.m.answers.note(n)
	}
	return view.Stat(n.ino())
}

func (f *face) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	node := nodeID(in.NodeId)
	attr, err := f.stat(node)
	if err != nil {
		return f.faults.status("getattr", in.NodeId, err)
	}
	fillAttr(&out.Attr, node, attr)
	if node != snapdirNode { // whose times change behind the kernel's back
		out.SetTimeout(cacheTime)
	}
	return gofuse.OK
}

func (f *face) Statx(_ <-chan struct{}, in *gofuse.StatxIn, out *gofuse.StatxOut) gofuse.Status {
	node := nodeID(in.NodeId)
	attr, err := f.stat(node)
	if err != nil {
		return f.faults.status("statx", in.NodeId, err)
	}
	fillStatx(&out.Statx, node, attr)
	if node != snapdirNode {
		out.SetTimeout(cacheTime)
	}
	return gofuse.OK
}

func (f *face) Readlink(_ <-chan struct{}, in *gofuse.InHeader) ([]byte, gofuse.Status) {
	node := nodeID(in.NodeId)
	view, ref, err := f.view(node)
	if err != nil {
		return nil, f.faults.status("readlink", in.NodeId, err)
	}
	defer f.views.put(ref)
	target, err := view.Readlink(node.ino())
	f.readlinkAtime(node)
	return []byte(target), f.faults.status("readlink", in.NodeId, err)
}

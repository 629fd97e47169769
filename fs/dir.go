package fs

import (
	"fmt"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot"
)

// Offsets in a listing. An entry's offset is where the listing goes on after it: its Cookie, which orders the entries and
// is stable while names come and go. Those of the entries that are in no directory come before.
const (
	dotOffset     = 1
	dotdotOffset  = 2
	snapdirOffset = 3
	firstCookie   = 16
)

// direntBytes is what the shortest entry takes in a reply: it bounds how many entries are worth getting.
const direntBytes = 32

// OpenDir opens a directory. Listings of the live tree and of snapshots stay in the kernel's cache, which keeps track of
// changes by the requests that make them; .snapshots changes without.
func (f *face) OpenDir(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	node := nodeID(in.NodeId)
	if node == snapdirNode {
		return f.openSnapdir(out)
	}
	out.OpenFlags = gofuse.FOPEN_CACHE_DIR | gofuse.FOPEN_KEEP_CACHE
	if !node.isFrozen() {
		return gofuse.OK // nothing to keep: handle 0
	}
	ref, err := f.views.get(node.epoch())
	if err != nil {
		return f.faults.status("opendir", in.NodeId, err)
	}
	out.Fh = f.handles.add(&handle{node: node, view: ref})
	return gofuse.OK
}

func (f *face) ReleaseDir(in *gofuse.ReleaseIn) {
	f.close("releasedir", f.handles.remove(in.Fh))
}

// FsyncDir makes the namespace durable (I5).
func (f *face) FsyncDir(_ <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	if !nodeID(in.NodeId).isLive() {
		return gofuse.OK
	}
	return f.faults.status("fsyncdir", in.NodeId, f.live.Sync())
}

// dirView returns the tree that an open directory is in.
func (f *face) dirView(node nodeID, fh uint64) (snapshot.View, error) {
	if !node.isFrozen() {
		return f.live, nil
	}
	h := f.handles.get(fh)
	if h == nil || h.view == nil {
		return nil, badHandle(fh)
	}
	return h.view.view, nil
}

// list returns up to n entries of a directory after offset, with the cookies as offsets.
func (f *face) list(in *gofuse.ReadIn, n int) ([]snapshot.Dirent, error) {
	node := nodeID(in.NodeId)
	if node == snapdirNode {
		return f.listSnapshots(in.Fh, in.Offset)
	}
	view, err := f.dirView(node, in.Fh)
	if err != nil {
		return nil, err
	}
	ents, err := f.fixedEntries(view, node, in.Offset)
	if err != nil {
		return nil, err
	}
	err = view.ReadDir(node.ino(), max(in.Offset, firstCookie-1), func(d snapshot.Dirent) bool {
		ents = append(ents, d)
		return len(ents) < n
	})
	return ents, err
}

// fixedEntries returns ".", ".." and, if it is to be seen, .snapshots. Their Ino is unset: see entryNode.
func (f *face) fixedEntries(view snapshot.View, node nodeID, after uint64) ([]snapshot.Dirent, error) {
	if after >= snapdirOffset {
		return nil, nil
	}
	parent, err := view.Parent(node.ino())
	if err != nil {
		return nil, fmt.Errorf("parent: %w", err)
	}
	ents := []snapshot.Dirent{
		{Name: ".", Ino: node.ino(), Type: syscall.S_IFDIR, Cookie: dotOffset},
		{Name: "..", Ino: parent, Type: syscall.S_IFDIR, Cookie: dotdotOffset},
	}
	if node == rootNode && f.m.opt.Visible {
		ents = append(ents, snapshot.Dirent{Name: snapdirName, Type: syscall.S_IFDIR, Cookie: snapdirOffset})
	}
	return ents[min(int(after), len(ents)):], nil
}

// entryNode returns the node id of an entry of directory dir.
func entryNode(dir nodeID, d snapshot.Dirent) nodeID {
	switch {
	case d.Cookie == snapdirOffset:
		return snapdirNode
	case d.Cookie == dotdotOffset && dir.isFrozen() && dir.ino() == snapshot.Root:
		return snapdirNode
	case dir == snapdirNode && d.Cookie >= firstCookie:
		return frozenNode(cow.Epoch(d.Cookie-firstCookie), snapshot.Root)
	}
	return dir.sibling(d.Ino)
}

func (f *face) ReadDir(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	ents, err := f.list(in, int(in.Size/direntBytes)+1)
	if err != nil {
		return f.faults.status("readdir", in.NodeId, err)
	}
	f.readdirAtime(nodeID(in.NodeId))
	for _, d := range ents {
		if !out.AddDirEntry(dirEntry(nodeID(in.NodeId), d)) {
			break
		}
	}
	return gofuse.OK
}

func dirEntry(dir nodeID, d snapshot.Dirent) gofuse.DirEntry {
	return gofuse.DirEntry{Name: d.Name, Mode: d.Type, Ino: uint64(entryNode(dir, d)), Off: d.Cookie}
}

// entryBytes is what the shortest entry takes in a reply to READDIRPLUS.
const entryBytes = 128 + direntBytes

// ReadDirPlus also looks the entries up. The kernel holds the directory's lock, so none of them goes away before it gets
// the reply. The entries of .snapshots do, therefore they are only listed, as "." and ".." are.
func (f *face) ReadDirPlus(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	dir := nodeID(in.NodeId)
	ents, err := f.list(in, int(in.Size/entryBytes)+1)
	if err != nil {
		return f.faults.status("readdirplus", in.NodeId, err)
	}
	f.readdirAtime(dir)
	for _, d := range ents {
		entry := out.AddDirLookupEntry(dirEntry(dir, d))
		if entry == nil {
			break
		}
		if d.Cookie < firstCookie || dir == snapdirNode {
			continue
		}
		if err := f.lookUpEntry(dir, in.Fh, d.Ino, entry); err != nil {
			return f.faults.status("readdirplus", in.NodeId, err)
		}
	}
	return gofuse.OK
}

// lookUpEntry fills in the inode of a listed entry.
func (f *face) lookUpEntry(dir nodeID, fh uint64, ino snapshot.Ino, entry *gofuse.EntryOut) error {
	view, err := f.dirView(dir, fh)
	if err != nil {
		return err
	}
	if dir.isLive() {
		f.m.answers.note(liveNode(ino))
	}
	attr, err := view.Stat(ino)
	if err != nil {
		return err
	}
	fillEntry(entry, dir.sibling(ino), attr)
	return nil
}

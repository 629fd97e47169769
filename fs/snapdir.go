package fs

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// snapdirName is the entry of the live root that leads to the snapshots. It is always found by name; readdir shows it
// only if Options.Visible.
const snapdirName = ".snapshots"

// snapdirAttr describes the .snapshots directory. Only its owner (and root) may make and remove snapshots: the kernel
// checks that by mode. The link count 1 means "does not count subdirectories".
func (m *Mount) snapdirAttr() snapshot.Attr {
	changed := timeOf(time.Unix(0, m.changed.Load()))
	return snapshot.Attr{
		Mode:  syscall.S_IFDIR | 0755,
		Nlink: 1,
		UID:   m.uid,
		GID:   m.gid,
		Atime: changed,
		Mtime: changed,
		Ctime: changed,
		Btime: timeOf(m.start),
	}
}

// touched notes a change of the catalogue, for the times of .snapshots.
func (m *Mount) touched() { m.changed.Store(time.Now().UnixNano()) }

// snapdirEntry answers the lookup of .snapshots itself.
func (f *face) snapdirEntry(out *gofuse.EntryOut) {
	fillEntry(out, snapdirNode, f.m.snapdirAttr())
	out.SetAttrTimeout(0)
}

// lookupSnapshot finds a snapshot by name: the root of its frozen view.
func (f *face) lookupSnapshot(name string, out *gofuse.EntryOut) gofuse.Status {
	info, err := f.m.store.Find(name)
	if errors.Is(err, snapshot.ErrUnknown) || err == nil && info.State == snapshot.Failed {
		return noEntry(out)
	}
	if err == nil {
		err = f.snapshotEntry(info, out)
	}
	return f.faults.status("lookup of snapshot", uint64(snapdirNode), err)
}

// snapshotEntry answers with the root of a frozen view.
func (f *face) snapshotEntry(info snapshot.Info, out *gofuse.EntryOut) error {
	if info.Epoch > maxEpoch {
		return fmt.Errorf("snapshot %s is of epoch %d, the last with inode numbers is %d: %w",
			info.Name, info.Epoch, maxEpoch, syscall.EOVERFLOW)
	}
	root := frozenNode(info.Epoch, snapshot.Root)
	attr, err := f.stat(root)
	if err != nil {
		return err
	}
	fillEntry(out, root, attr)
	return nil
}

// mkdirSnapshot takes a snapshot and returns when it is durable. The kernel holds the lock of .snapshots meanwhile, and
// makes the entry itself: nothing to notify.
func (f *face) mkdirSnapshot(name string, out *gofuse.EntryOut) gofuse.Status {
	taken, err := f.m.take(snapshot.Request{Name: name})
	if err == nil {
		err = f.snapshotEntry(snapshot.Info{Name: taken.Name, Epoch: taken.Epoch}, out)
	}
	return f.faults.status("mkdir of snapshot", uint64(snapdirNode), err)
}

// rmdirSnapshot deletes a snapshot. If that fails half way the kernel believes that nothing was removed: it is told when
// this request is over.
func (f *face) rmdirSnapshot(name string) gofuse.Status {
	gone, _, err := f.m.remove([]string{name}, false)
	if err != nil && len(gone) > 0 {
		go f.m.announce(name)
	}
	return f.faults.status("rmdir of snapshot", uint64(snapdirNode), err)
}

// renameSnapshot renames a snapshot. An existing one is never replaced, with or without RENAME_NOREPLACE.
func (f *face) renameSnapshot(old, new string, flags uint32) gofuse.Status {
	if flags&^unix.RENAME_NOREPLACE != 0 {
		return gofuse.EINVAL
	}
	return f.faults.status("rename of snapshot", uint64(snapdirNode), f.m.rename(old, new))
}

// openSnapdir opens .snapshots. The kernel caches nothing of it.
func (f *face) openSnapdir(out *gofuse.OpenOut) gofuse.Status {
	out.Fh = f.handles.add(&handle{node: snapdirNode})
	return gofuse.OK
}

// listSnapshots returns the entries of an open .snapshots after offset. Epochs order them, so that what is there throughout is listed
// once, and a handle needs no listing of its own.
func (f *face) listSnapshots(fh, after uint64) ([]snapshot.Dirent, error) {
	h := f.handles.get(fh)
	if h == nil || h.node != snapdirNode {
		return nil, badHandle(fh)
	}
	ents := []snapshot.Dirent{
		{Name: ".", Ino: snapshot.Ino(snapdirNode), Type: syscall.S_IFDIR, Cookie: dotOffset},
		{Name: "..", Ino: snapshot.Root, Type: syscall.S_IFDIR, Cookie: dotdotOffset},
	}
	ents = ents[min(after, uint64(len(ents))):]
	for _, info := range f.m.store.Visible() {
		cookie := firstCookie + uint64(info.Epoch)
		if cookie <= after || info.State == snapshot.Failed || info.Epoch > maxEpoch {
			continue
		}
		ents = append(ents, snapshot.Dirent{Name: info.Name, Ino: snapshot.Root, Type: syscall.S_IFDIR, Cookie: cookie})
	}
	return ents, nil
}

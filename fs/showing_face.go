package fs

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/snapfs/snapfs/snapshot"
)

// showingFace answers the requests at a Showing. A node id is the inode number, so the kernel shows that of the live tree. The
// mount is read-only in the kernel; what changes something is refused nevertheless, because root can remount it.
type showingFace struct {
	gofuse.RawFileSystem
	*Showing
	live   *face // of the live tree
	faults *faults
}

func newShowingFace(s *Showing) *showingFace {
	return &showingFace{RawFileSystem: gofuse.NewDefaultRawFileSystem(), Showing: s, live: newFace(s.m), faults: s.m.faults}
}

func (f *showingFace) String() string { return fsName }

// serve answers one request; ENOTCONN if the showing has ended.
func (f *showingFace) serve(op string, node uint64, answer func() error) gofuse.Status {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.ended {
		return gofuse.Status(syscall.ENOTCONN)
	}
	return f.faults.status(op, node, answer())
}

func (f *showingFace) Lookup(_ <-chan struct{}, in *gofuse.InHeader, name string, out *gofuse.EntryOut) gofuse.Status {
	return f.serve("lookup", in.NodeId, func() error {
		attr, err := f.view.Lookup(snapshot.Ino(in.NodeId), name)
		if errors.Is(err, syscall.ENOENT) {
			noEntry(out)
			return nil
		}
		if err == nil {
			fillEntry(out, liveNode(attr.Ino), attr)
		}
		return err
	})
}

func (f *showingFace) GetAttr(_ <-chan struct{}, in *gofuse.GetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	return f.serve("getattr", in.NodeId, func() error {
		attr, err := f.view.Stat(snapshot.Ino(in.NodeId))
		fillAttr(&out.Attr, liveNode(attr.Ino), attr)
		out.SetTimeout(cacheTime)
		return err
	})
}

func (f *showingFace) Statx(_ <-chan struct{}, in *gofuse.StatxIn, out *gofuse.StatxOut) gofuse.Status {
	return f.serve("statx", in.NodeId, func() error {
		attr, err := f.view.Stat(snapshot.Ino(in.NodeId))
		fillStatx(&out.Statx, liveNode(attr.Ino), attr)
		out.SetTimeout(cacheTime)
		return err
	})
}

func (f *showingFace) Readlink(_ <-chan struct{}, in *gofuse.InHeader) (target []byte, _ gofuse.Status) {
	status := f.serve("readlink", in.NodeId, func() error {
		text, err := f.view.Readlink(snapshot.Ino(in.NodeId))
		target = []byte(text)
		return err
	})
	return target, status
}

func (f *showingFace) Open(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	return f.serve("open", in.NodeId, func() error {
		if writable(in.Flags) {
			return errFrozen
		}
		content, err := f.view.Open(snapshot.Ino(in.NodeId))
		if err == nil {
			out.Fh = f.handles.add(&handle{node: nodeID(in.NodeId), content: content})
			out.OpenFlags = gofuse.FOPEN_KEEP_CACHE
		}
		return err
	})
}

func (f *showingFace) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	f.serve("release", in.NodeId, func() error {
		if h := f.handles.remove(in.Fh); h != nil {
			return h.content.Close()
		}
		return nil
	})
}

func (f *showingFace) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	n := 0
	status := f.serve("read", in.NodeId, func() error {
		h := f.handles.get(in.Fh)
		if h == nil {
			return badHandle(in.Fh)
		}
		var err error
		if n, err = h.content.ReadAt(buf, int64(in.Offset)); errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
	return gofuse.ReadResultData(buf[:n]), status
}

func (f *showingFace) Lseek(_ <-chan struct{}, in *gofuse.LseekIn, out *gofuse.LseekOut) gofuse.Status {
	return f.serve("lseek", in.NodeId, func() error {
		h := f.handles.get(in.Fh)
		if h == nil {
			return badHandle(in.Fh)
		}
		if in.Whence != seekData && in.Whence != seekHole {
			return fmt.Errorf("whence %d: %w", in.Whence, syscall.EINVAL)
		}
		off, err := h.content.SeekExtent(int64(in.Offset), in.Whence == seekHole)
		out.Offset = uint64(off)
		return err
	})
}

func (f *showingFace) OpenDir(_ <-chan struct{}, _ *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	out.OpenFlags = gofuse.FOPEN_CACHE_DIR | gofuse.FOPEN_KEEP_CACHE
	return gofuse.OK
}

// list calls visit for the entries after offset until it returns false; "." and ".." come first.
func (f *showingFace) list(dir snapshot.Ino, after uint64, visit func(snapshot.Dirent) bool) error {
	if after < dotdotOffset {
		parent, err := f.view.Parent(dir)
		if err != nil {
			return err
		}
		fixed := []snapshot.Dirent{
			{Name: ".", Ino: dir, Type: syscall.S_IFDIR, Cookie: dotOffset},
			{Name: "..", Ino: parent, Type: syscall.S_IFDIR, Cookie: dotdotOffset},
		}
		for _, d := range fixed[after:] {
			if !visit(d) {
				return nil
			}
		}
	}
	return f.view.ReadDir(dir, max(after, firstCookie-1), visit)
}

func (f *showingFace) ReadDir(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return f.serve("readdir", in.NodeId, func() error {
		return f.list(snapshot.Ino(in.NodeId), in.Offset, func(d snapshot.Dirent) bool {
			return out.AddDirEntry(shownEntry(d))
		})
	})
}

func shownEntry(d snapshot.Dirent) gofuse.DirEntry {
	return gofuse.DirEntry{Name: d.Name, Mode: d.Type, Ino: uint64(d.Ino), Off: d.Cookie}
}

func (f *showingFace) ReadDirPlus(_ <-chan struct{}, in *gofuse.ReadIn, out *gofuse.DirEntryList) gofuse.Status {
	return f.serve("readdirplus", in.NodeId, func() error {
		var failed error
		err := f.list(snapshot.Ino(in.NodeId), in.Offset, func(d snapshot.Dirent) bool {
			entry := out.AddDirLookupEntry(shownEntry(d))
			if entry == nil || d.Cookie < firstCookie {
				return entry != nil
			}
			attr, err := f.view.Stat(d.Ino)
			fillEntry(entry, liveNode(d.Ino), attr)
			failed = err
			return err == nil
		})
		return errors.Join(err, failed)
	})
}

func (f *showingFace) GetXAttr(_ <-chan struct{}, in *gofuse.InHeader, name string, dest []byte) (n uint32, _ gofuse.Status) {
	tooShort := false
	status := f.serve("getxattr", in.NodeId, func() error {
		if err := f.live.xattrName(name); err != nil {
			return err
		}
		value, err := f.view.Xattr(snapshot.Ino(in.NodeId), name)
		var copied gofuse.Status
		n, copied = copyOut(dest, value)
		tooShort = !copied.Ok()
		return err
	})
	if status.Ok() && tooShort {
		status = gofuse.ERANGE
	}
	return n, status
}

func (f *showingFace) ListXAttr(_ <-chan struct{}, in *gofuse.InHeader, dest []byte) (n uint32, _ gofuse.Status) {
	tooShort := false
	status := f.serve("listxattr", in.NodeId, func() error {
		names, err := f.view.Xattrs(snapshot.Ino(in.NodeId))
		list := strings.Join(append(names, ""), "\x00")
		var copied gofuse.Status
		n, copied = copyOut(dest, []byte(list))
		tooShort = !copied.Ok()
		return err
	})
	if status.Ok() && tooShort {
		status = gofuse.ERANGE
	}
	return n, status
}

// StatFs tells of the file system that the store is on.
func (f *showingFace) StatFs(cancel <-chan struct{}, in *gofuse.InHeader, out *gofuse.StatfsOut) gofuse.Status {
	return f.serve("statfs", in.NodeId, func() error {
		if status := f.live.StatFs(cancel, in, out); !status.Ok() {
			return syscall.Errno(status)
		}
		return nil
	})
}

// Forget: nothing is kept for inodes that the kernel knows.
func (f *showingFace) Forget(_, _ uint64) {}

// Access is not asked for again: with default_permissions the kernel knows the answer.
func (f *showingFace) Access(_ <-chan struct{}, _ *gofuse.AccessIn) gofuse.Status {
	return gofuse.ENOSYS
}

// Flush is not asked for again: there is nothing to write.
func (f *showingFace) Flush(_ <-chan struct{}, _ *gofuse.FlushIn) gofuse.Status { return gofuse.ENOSYS }

// Ioctl knows none.
func (f *showingFace) Ioctl(_ <-chan struct{}, _ *gofuse.IoctlIn, _ []byte, _ *gofuse.IoctlOut, _ []byte) gofuse.Status {
	return gofuse.Status(syscall.ENOTTY)
}

package fs

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/snapfs/snapfs/snapshot"
)

// maxCopy bounds one COPY_FILE_RANGE, in bytes: the caller asks again for the rest. The reply has 32 bits for it.
const maxCopy = 1 << 30

// badHandle is the error of a request for a handle that is not open, or not a file.
func badHandle(fh uint64) error {
	return fmt.Errorf("handle %d: %w", fh, syscall.EBADF)
}

// file returns the open file called fh.
func (f *face) file(fh uint64) (*handle, error) {
	h := f.handles.get(fh)
	if h == nil || h.content == nil {
		return nil, badHandle(fh)
	}
	return h, nil
}

// liveFile returns the open file called fh if it may be changed.
func (f *face) liveFile(fh uint64) (*snapshot.Handle, error) {
	h, err := f.file(fh)
	if err != nil {
		return nil, err
	}
	if err := f.change(h.node); err != nil {
		return nil, err
	}
	return h.live, nil
}

// Create makes and opens a file. The kernel sends it only for names that do not exist as far as it knows, so EEXIST is
// the rule also without O_EXCL. It holds the directory's lock: nobody can unlink the file before it is open.
func (f *face) Create(_ <-chan struct{}, in *gofuse.CreateIn, name string, out *gofuse.CreateOut) gofuse.Status {
	dir := nodeID(in.NodeId)
	attr, err := f.create(dir, name, specOf(&in.InHeader, syscall.S_IFREG|in.Mode&07777, in.Umask))
	if err != nil {
		return f.faults.status("create", in.NodeId, err)
	}
	if err := f.openLive(liveNode(attr.Ino), in.Flags, &out.OpenOut); err != nil {
		status := f.faults.status("create", in.NodeId, err)
		if err := f.live.Unlink(dir.ino(), name); err != nil {
			f.faults.report("undo of create", in.NodeId, err)
		}
		f.live.Forget(attr.Ino) // the kernel never knew it
		return status
	}
	fillEntry(&out.EntryOut, liveNode(attr.Ino), attr)
	return gofuse.OK
}

// Tmpfile makes and opens a file without a name. With O_EXCL it never gets one; the kernel sees to that as well.
func (f *face) Tmpfile(_ <-chan struct{}, in *gofuse.CreateIn, out *gofuse.CreateOut) gofuse.Status {
	dir := nodeID(in.NodeId)
	if err := f.change(dir); err != nil {
		return f.faults.status("tmpfile", in.NodeId, err)
	}
	spec := specOf(&in.InHeader, syscall.S_IFREG|in.Mode&07777, in.Umask)
	attr, err := f.live.CreateNameless(dir.ino(), spec, in.Flags&syscall.O_EXCL == 0)
	if err != nil {
		return f.faults.status("tmpfile", in.NodeId, err)
	}
	if err := f.openLive(liveNode(attr.Ino), in.Flags, &out.OpenOut); err != nil {
		f.live.Forget(attr.Ino)
		return f.faults.status("tmpfile", in.NodeId, err)
	}
	fillEntry(&out.EntryOut, liveNode(attr.Ino), attr)
	return gofuse.OK
}

// Open opens a file of any view.
func (f *face) Open(_ <-chan struct{}, in *gofuse.OpenIn, out *gofuse.OpenOut) gofuse.Status {
	node := nodeID(in.NodeId)
	var err error
	if node.isFrozen() {
		err = f.openFrozen(node, in.Flags, out)
	} else {
		err = f.open(node, in, out)
	}
	return f.faults.status("open", in.NodeId, err)
}

// open opens a live file. Never with O_TRUNC: see capabilities.
func (f *face) open(node nodeID, in *gofuse.OpenIn, out *gofuse.OpenOut) error {
	if writable(in.Flags) {
		if err := f.change(node); err != nil {
			return err
		}
	}
	return f.openLive(node, in.Flags, out)
}

// openLive enters a handle of a live file.
func (f *face) openLive(node nodeID, flags uint32, out *gofuse.OpenOut) error {
	h, err := f.live.OpenFile(node.ino())
	if err != nil {
		return err
	}
	entered := &handle{node: node, content: h, live: h, writes: writable(flags), dates: dates(flags)}
	if entered.dates {
		entered.opened = timeOf(time.Now())
	}
	out.Fh = f.handles.add(entered)
	out.OpenFlags = cacheFlags(flags)
	return nil
}

// openFrozen enters a handle of a file in a snapshot. It keeps the view: the bytes stay while the file is open, even if
// the snapshot is deleted.
func (f *face) openFrozen(node nodeID, flags uint32, out *gofuse.OpenOut) error {
	if writable(flags) {
		return f.change(node)
	}
	ref, err := f.views.get(node.epoch())
	if err != nil {
		return err
	}
	content, err := ref.view.Open(node.ino())
	if err != nil {
		f.views.put(ref)
		return err
	}
	out.Fh = f.handles.add(&handle{node: node, content: content, view: ref})
	out.OpenFlags = cacheFlags(flags)
	return nil
}

// cacheFlags says how the kernel treats the cache of a file that is opened. It stays; and a close of what was open for reading writes
// nothing back. That is not only faster: kernels that write back by iomap (Linux 6.18) can zero what another process appends at that
// moment to a page that was stored to through a mapping.
func cacheFlags(flags uint32) uint32 {
	if writable(flags) {
		return gofuse.FOPEN_KEEP_CACHE
	}
	return gofuse.FOPEN_KEEP_CACHE | gofuse.FOPEN_NOFLUSH
}

// writable reports whether the open flags ask for a change.
func writable(flags uint32) bool {
	return flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0
}

func (f *face) Release(_ <-chan struct{}, in *gofuse.ReleaseIn) {
	f.releaseAtime(f.handles.get(in.Fh))
	f.close("release", f.handles.remove(in.Fh))
}

// close ends a handle that is no longer in the table; nil is none.
func (f *face) close(op string, h *handle) {
	if h == nil {
		return
	}
	if h.content != nil {
		if err := h.content.Close(); err != nil {
			f.faults.report(op, uint64(h.node), err)
		}
	}
	f.views.put(h.view)
}

// Read fills the buffer of the reply. A page that cannot be read is EIO below us, never a fault here.
func (f *face) Read(_ <-chan struct{}, in *gofuse.ReadIn, buf []byte) (gofuse.ReadResult, gofuse.Status) {
	h, err := f.file(in.Fh)
	if err != nil {
		return nil, f.faults.status("read", in.NodeId, err)
	}
	n, err := h.content.ReadAt(buf, int64(in.Offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, f.faults.status("read", in.NodeId, err)
	}
	if h.dates {
		f.readAtime(h, timeOf(time.Now()))
	}
	return gofuse.ReadResultData(buf[:n]), gofuse.OK
}

// Write writes to a live file. What the kernel wrote back from its cache (WRITE_CACHE) is all or nothing: it would not
// notice a short count. It is let in also where changes are stopped: the kernel has said yes to it before.
func (f *face) Write(_ <-chan struct{}, in *gofuse.WriteIn, data []byte) (uint32, gofuse.Status) {
	h, err := f.liveFile(in.Fh)
	if err == nil && in.WriteFlags&gofuse.WRITE_CACHE == 0 {
		err = f.m.store.Stopped()
	}
	if err != nil {
		return 0, f.faults.status("write", in.NodeId, err)
	}
	n, err := h.WriteAt(data, int64(in.Offset), in.WriteFlags&gofuse.WRITE_KILL_SUIDGID != 0)
	if err != nil && (n == 0 || in.WriteFlags&gofuse.WRITE_CACHE != 0) {
		return 0, f.faults.status("write", in.NodeId, err)
	}
	if in.WriteFlags&gofuse.WRITE_CACHE != 0 {
		f.outdateWritten(nodeID(in.NodeId))
	}
	return uint32(n), gofuse.OK
}

func (f *face) Fsync(_ <-chan struct{}, in *gofuse.FsyncIn) gofuse.Status {
	h, err := f.file(in.Fh)
	if err == nil && h.live != nil {
		err = h.live.Sync(in.FsyncFlags&1 != 0)
	}
	return f.faults.status("fsync", in.NodeId, err)
}

// Fallocate leaves suid and sgid alone: if they are to go, the kernel has sent a SETATTR before (see killsPriv), as it does
// for CopyFileRange.
func (f *face) Fallocate(_ <-chan struct{}, in *gofuse.FallocateIn) gofuse.Status {
	h, err := f.liveFile(in.Fh)
	if err == nil {
		err = f.m.store.Stopped()
	}
	if err == nil {
		err = h.Fallocate(in.Mode, int64(in.Offset), int64(in.Length), false)
		f.outdate(nodeID(in.NodeId))
	}
	return f.faults.status("fallocate", in.NodeId, err)
}

// CopyFileRange copies within the mount, also from a snapshot into the live tree. Interrupted, it returns what it has done.
func (f *face) CopyFileRange(cancel <-chan struct{}, in *gofuse.CopyFileRangeIn) (uint32, gofuse.Status) {
	src, err := f.file(in.FhIn)
	if err != nil {
		return 0, f.faults.status("copy_file_range", in.NodeId, err)
	}
	dst, err := f.liveFile(in.FhOut)
	if err == nil {
		err = f.m.store.Stopped()
	}
	if err != nil {
		return 0, f.faults.status("copy_file_range", in.NodeIdOut, err)
	}
	f.closeAtime(src)
	n, err := dst.CopyFrom(src.content, int64(in.OffIn), int64(in.OffOut), int64(min(in.Len, maxCopy)), cancel)
	if err != nil && n == 0 {
		return 0, f.faults.status("copy_file_range", in.NodeIdOut, err)
	}
	return uint32(n), gofuse.OK
}

// Lseek finds data and holes; the kernel does the rest of lseek(2) itself.
func (f *face) Lseek(_ <-chan struct{}, in *gofuse.LseekIn, out *gofuse.LseekOut) gofuse.Status {
	h, err := f.file(in.Fh)
	if err != nil {
		return f.faults.status("lseek", in.NodeId, err)
	}
	if in.Whence != seekData && in.Whence != seekHole {
		return gofuse.EINVAL
	}
	if err := f.m.pushLive(h.node); err != nil {
		return f.faults.status("lseek", in.NodeId, err)
	}
	off, err := h.content.SeekExtent(int64(in.Offset), in.Whence == seekHole)
	out.Offset = uint64(off)
	return f.faults.status("lseek", in.NodeId, err)
}

// Whence of lseek(2).
const (
	seekData = 3
	seekHole = 4
)

package snapshot

import (
	"io"
	"sync/atomic"
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"golang.org/x/sys/unix"
)

// Handle is an open live file; it implements Content. All handles of a file follow its content, also when a truncation
// replaces it.
type Handle struct {
	l      *Live
	n      *node // with a reference and counted in n.opens
	closed atomic.Bool
}

// OpenFile opens a regular file for reading and writing (the kernel has checked the rights). The base file is opened when it is needed.
func (l *Live) OpenFile(ino Ino) (*Handle, error) {
	n, err := l.node(ino)
	if err != nil {
		return nil, err
	}
	if _, err := l.regular(ino); err != nil {
		l.nodes.put(n)
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.loaded {
		l.nodes.put(n)
		return nil, &opError{"open", ino, "", syscall.ENOENT}
	}
	n.opens++
	return &Handle{l: l, n: n}, nil
}

// Ino returns the inode of the file.
func (h *Handle) Ino() Ino { return h.n.ino }

// Size returns the length of the file in bytes.
func (h *Handle) Size() int64 {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	return h.n.rec.Size
}

// ReadAt reads like io.ReaderAt.
func (h *Handle) ReadAt(b []byte, off int64) (n int, err error) {
	err = h.l.withFile(h.n, false, func(f *cow.File) error {
		if f == nil {
			n, err = readEmpty(b, 0, off)
			return err
		}
		n, err = f.ReadAt(b, off)
		return err
	})
	return n, err
}

// SeekExtent finds the next data or hole at or after off, like SEEK_DATA and SEEK_HOLE.
func (h *Handle) SeekExtent(off int64, hole bool) (at int64, err error) {
	err = h.l.withFile(h.n, false, func(f *cow.File) error {
		if f == nil {
			at, err = seekEmpty(0, off, hole)
			return err
		}
		at, err = f.SeekExtent(off, hole)
		return err
	})
	return at, err
}

// WriteAt writes data at off, extending the file as needed. killPriv clears the set-id bits.
func (h *Handle) WriteAt(data []byte, off int64, killPriv bool) (n int, err error) {
	if len(data) == 0 {
		return 0, nil
	}
	if err := h.l.disk.take(2*int64(len(data)) + entryBytes); err != nil { // the bytes, and those in the undo log
		return 0, &opError{"write", h.n.ino, "", err}
	}
	err = h.change(func(f *cow.File) error {
		n, err = f.WriteAt(data, off, h.l.recorder(h.n, f, killPriv))
		return err
	})
	return n, err
}

// change runs a change of the bytes. File capabilities go first.
func (h *Handle) change(do func(f *cow.File) error) error {
	if err := h.l.removeCaps(h.n); err != nil {
		return err
	}
	return h.l.withFile(h.n, true, do)
}

// Fallocate takes the mode of fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; else EOPNOTSUPP.
func (h *Handle) Fallocate(mode uint32, off, n int64, killPriv bool) error {
	if off < 0 || n <= 0 || off+n < 0 {
		return &opError{"fallocate", h.n.ino, "", syscall.EINVAL}
	}
	keep := mode&unix.FALLOC_FL_KEEP_SIZE != 0
	if mode&unix.FALLOC_FL_PUNCH_HOLE == 0 {
		if err := h.l.disk.take(n); err != nil {
			return &opError{"fallocate", h.n.ino, "", err}
		}
	}
	return h.change(func(f *cow.File) error {
		record := h.l.recorder(h.n, f, killPriv)
		switch mode &^ unix.FALLOC_FL_KEEP_SIZE {
		case 0:
			return f.Allocate(off, n, keep, record)
		case unix.FALLOC_FL_ZERO_RANGE:
			return f.Zero(off, n, false, keep, record)
		case unix.FALLOC_FL_PUNCH_HOLE:
			if keep {
				return f.Zero(off, n, true, true, record)
			}
		}
		return &opError{"fallocate", h.n.ino, "", syscall.EOPNOTSUPP}
	})
}

// copyChunk is how much CopyFrom moves at a time.
const copyChunk = 1 << 20

// CopyFrom copies up to n bytes from src (a Handle or a frozen Content) and returns how many. It stops at the end of src.
// After a failure it returns what was copied before, if that is anything.
func (h *Handle) CopyFrom(src Content, srcOff, off, n int64) (done int64, err error) {
	if s, same := src.(*Handle); same && s.n == h.n && srcOff < off+n && off < srcOff+n {
		return 0, &opError{"copy within", h.n.ino, "", syscall.EINVAL}
	}
	if n < 0 || off < 0 || srcOff < 0 {
		return 0, &opError{"copy to", h.n.ino, "", syscall.EINVAL}
	}
	buf := make([]byte, min(n, copyChunk))
	for done < n && err == nil {
		var got, put int
		got, err = src.ReadAt(buf[:min(n-done, int64(len(buf)))], srcOff+done)
		if got == 0 {
			break
		}
		var failed error
		if put, failed = h.WriteAt(buf[:got], off+done, false); failed != nil {
			err = failed
		}
		done += int64(put)
	}
	if err == io.EOF || done > 0 {
		err = nil
	}
	return done, err
}

// Sync is fsync(2), or fdatasync(2) if dataOnly: first the bytes, then the record that leads to them (I5).
func (h *Handle) Sync(dataOnly bool) error {
	var synced cow.ID
	err := h.l.withFile(h.n, false, func(f *cow.File) error {
		if f == nil {
			return nil
		}
		synced = f.ID()
		return f.Sync()
	})
	if err != nil {
		return err
	}
	seq, err := h.writeRecord(synced, dataOnly)
	if err != nil || h.l.db.Synced(seq) {
		return err
	}
	return h.l.db.Sync()
}

// writeRecord writes the record if it has to be, and notes that content synced is durable. It returns the batch to wait for.
func (h *Handle) writeRecord(synced cow.ID, dataOnly bool) (seq uint64, err error) {
	n := h.n
	h.l.measure(n)
	c, err := h.l.begin(n)
	if err != nil {
		return 0, err
	}
	defer c.end()
	stable := synced != 0 && n.rec.Content == synced && !n.rec.Stable
	if stable {
		c.rec(n).Stable = true
	}
	if stable || n.dirty && !dataOnly {
		c.rec(n)
		if err := c.commit(); err != nil {
			return 0, err
		}
	}
	if dataOnly && !stable {
		return n.dataSeq, nil
	}
	return n.seq, nil
}

// Close closes the handle. The last one of an unlinked file that the kernel forgot drops the file.
func (h *Handle) Close() error {
	if h.closed.Swap(true) {
		return &opError{"close", h.n.ino, "", syscall.EBADF}
	}
	l, n := h.l, h.n
	defer l.nodes.put(n)
	n.mu.Lock()
	n.opens--
	last := n.opens == 0
	n.mu.Unlock()
	if !last {
		return nil
	}
	err := l.closeIdle(n)
	if failed := l.dropUnused(n); err == nil {
		err = failed
	}
	return err
}

// closeIdle closes the file of a node that nobody has open. If somebody opens it at the same moment, it is opened again when needed.
func (l *Live) closeIdle(n *node) error {
	n.content.Lock()
	defer n.content.Unlock()
	n.mu.Lock()
	opens := n.opens
	n.mu.Unlock()
	if opens > 0 {
		return nil
	}
	return l.closeFile(n)
}

package snapshot

import (
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

// Access is Live.Access of the file.
func (h *Handle) Access(t Time, strict bool) bool { return h.l.access(h.n, t, strict) }

// ChangedSince reports whether the bytes changed at time t or later, by their mtime.
func (h *Handle) ChangedSince(t Time) bool {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	return !h.n.rec.Mtime.Before(t)
}

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

// CopyFrom copies up to n bytes from src (a Handle or a frozen Content) and returns how many. It ends at the end of src, and early when
// stop is closed. After a failure it returns what was copied before, if that is anything.
func (h *Handle) CopyFrom(src Content, srcOff, off, n int64, stop <-chan struct{}) (done int64, err error) {
	if s, same := src.(*Handle); same && s.n == h.n && srcOff < off+n && off < srcOff+n {
		return 0, &opError{"copy within", h.n.ino, "", syscall.EINVAL}
	}
	if n < 0 || off < 0 || srcOff < 0 {
		return 0, &opError{"copy to", h.n.ino, "", syscall.EINVAL}
	}
	n = min(n, src.Size()-srcOff) // as it is now: a copy within a file may make it longer
	for done < n && err == nil {
		var k int64
		if k, err = h.copyStep(src, srcOff+done, off+done, n-done); k == 0 {
			break
		}
		done += k
		select {
		case <-stop:
			err = syscall.EINTR
		default:
		}
	}
	if done > 0 {
		err = nil
	}
	return done, err
}

// mostCopyStep bounds what is asked for at once; cow has bounds of its own.
const mostCopyStep = 8 << 20

// copyStep copies a part of [off, off+n), as much as is done at once; 0 at the end of src.
func (h *Handle) copyStep(src Content, srcOff, off, n int64) (done int64, err error) {
	n = min(n, mostCopyStep)
	if err := h.l.disk.take(n + entryBytes); err != nil {
		return 0, &opError{"copy to", h.n.ino, "", err}
	}
	if err := h.l.removeCaps(h.n); err != nil {
		return 0, err
	}
	copyTo := func(f *cow.File, from cow.Origin) (err error) {
		done, err = f.CopyFrom(from, srcOff, off, n, h.l.recorder(h.n, f, false))
		return err
	}
	switch s := src.(type) {
	case *Handle:
		err = h.l.withFiles(h.n, s.n, func(f, from *cow.File) error {
			if from == nil {
				return nil
			}
			return copyTo(f, from)
		})
	case *frozenContent:
		err = h.l.withFile(h.n, true, func(f *cow.File) error {
			if s.file == nil {
				return nil
			}
			return copyTo(f, s.file)
		})
	default:
		err = &opError{"copy to", h.n.ino, "", syscall.EXDEV}
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
	if last {
		n.emptied = false
	}
	n.mu.Unlock()
	if !last {
		return nil
	}
	err := l.closeIdle(n)
	if failed := l.drop(n); err == nil {
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

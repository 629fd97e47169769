package cow

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// File is an open live content. Methods are safe for concurrent use; changes of one content are serialised.
type File struct{ c *content }

// Record persists what the namespace says of a content: its size and reach, in the given epoch. It is called exactly
// once by a change that succeeds, after the bytes are in place, with the freeze gate held shared (as by Enter); so it
// does no disk I/O. If it fails the change fails.
type Record func(epoch Epoch, size, reach int64) error

// ID returns the content's number.
func (f *File) ID() ID { return f.c.id }

// Size returns the content's length in bytes.
func (f *File) Size() int64 {
	f.c.mu.RLock()
	defer f.c.mu.RUnlock()
	return f.c.size
}

// Blocks returns the 512-byte units that the base file occupies.
func (f *File) Blocks() (int64, error) {
	var st unix.Stat_t
	if err := f.c.p.base.use(f.c.id, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return 0, pathError("stat", f.c.id, noEntryIsEIO(err))
	}
	return st.Blocks, nil
}

// Close ends the use of the file. Its private pages are flushed in the background.
func (f *File) Close() error {
	f.c.p.put(f.c)
	return nil
}

// ReadAt reads like io.ReaderAt: io.EOF with n < len(b) at the end of the file. A page that cannot be read is EIO.
//
// I2: private pages are copied first, while they cannot be dropped; what was clean at that moment is read from the base
// file, whose bytes are the newest unless a write is going on at the same time.
func (f *File) ReadAt(b []byte, off int64) (int, error) {
	c := f.c
	if off < 0 {
		return 0, unix.EINVAL
	}
	c.mu.RLock()
	n := int(max(0, min(int64(len(b)), c.size-off)))
	var clean []span
	var err error
	if n > 0 {
		clean, err = c.readPrivate(b[:n], off)
	}
	c.mu.RUnlock()
	if err != nil {
		return 0, pathError("read", c.id, err)
	}
	for _, s := range clean {
		if err := c.readBase(b[s.off-off:][:s.n], s.off); err != nil {
			return 0, err
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// span is a range of bytes of a content.
type span struct {
	off int64
	n   int64
}

// readPrivate copies the private pages of [off, off+len(b)) into b and returns the spans in between. REQUIRES c.mu.
func (c *content) readPrivate(b []byte, off int64) ([]span, error) {
	end := off + int64(len(b))
	if c.private.isEmpty() {
		return []span{{off, end - off}}, nil
	}
	var clean []span
	for at := off; at < end; {
		page := uint64(at / PageSize)
		next := min(end, pageEnd(page))
		switch k := len(clean); {
		case c.private.contains(page):
			w := c.windows[page/windowPages]
			if err := w.load(page, int(at%PageSize), b[at-off:next-off]); err != nil {
				return nil, err
			}
		case k > 0 && clean[k-1].off+clean[k-1].n == at:
			clean[k-1].n += next - at
		default:
			clean = append(clean, span{at, next - at})
		}
		at = next
	}
	return clean, nil
}

// readBase reads from the base file. What lies beyond its end reads as zeros: contents may be sparse. But a base file that
// has become shorter than this pool made it was cut by somebody else, and its bytes are lost: EIO.
func (c *content) readBase(b []byte, off int64) error {
	c.mu.RLock()
	length := c.baseLen // before, so that a file that grows meanwhile is none that was cut
	c.mu.RUnlock()
	n := 0
	err := c.p.base.use(c.id, func(fd int) (err error) {
		n, err = preadAll(fd, b, off)
		return err
	})
	if err != nil {
		return pathError("read", c.id, noEntryIsEIO(err))
	}
	if n == len(b) {
		return nil
	}
	clear(b[n:])
	at := off + int64(n)
	c.mu.RLock()
	length = min(length, c.baseLen) // and after: cutTail says so before it cuts
	c.mu.RUnlock()
	lost, err := c.lostBehind(at)
	if err != nil {
		return pathError("read", c.id, err)
	}
	if length = max(length, lost.end()); at < length {
		return pathError("read", c.id, fmt.Errorf("the base file ends before byte %d, it was %d long: %w", at+1, length, unix.EIO))
	}
	return nil
}

// Sync makes the content's bytes durable (I5): it flushes private pages and syncs the base file and its name.
func (f *File) Sync() error {
	c := f.c
	if err := c.failed(); err != nil {
		return err
	}
	if err := c.p.failed(); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.syncBytes(); err != nil {
		return err
	}
	return c.syncName()
}

// syncBytes makes durable what the base file holds.
func (c *content) syncBytes() error {
	t := c.p.dirty.takeOne(c.id)
	if t == nil {
		return nil
	}
	err := c.p.syncBaseFile(c.id)
	c.p.dirty.done(t, err == nil)
	return err
}

// syncName makes the name of the base file durable.
func (c *content) syncName() error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	if err := c.failed(); err != nil || c.named.Load() {
		return err
	}
	if err := c.p.base.syncDir(fanOut(c.id)); err != nil {
		return c.fail(err)
	}
	c.named.Store(true)
	return nil
}

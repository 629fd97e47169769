package cow

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// scan reads the batches of the log from offset on and calls visit for each whose header is valid, until the first
// that is not.
func (l *undoLog) scan(offset int64, visit func(*batchHeader) error) error {
	page := make([]byte, PageSize)
	for {
		n, err := preadAll(l.fd, page, offset)
		if err != nil {
			return fmt.Errorf("read undo log %d at %d: %w", l.epoch, offset, err)
		}
		size, err := batchHeaderLen(page[:n], l.salt, offset)
		if err != nil {
			return nil
		}
		head := make([]byte, size)
		if n, err = preadAll(l.fd, head, offset); err != nil {
			return fmt.Errorf("read undo log %d at %d: %w", l.epoch, offset, err)
		}
		h, err := decodeBatchHeader(head[:n], l.salt, offset)
		if err != nil {
			return nil
		}
		if err := visit(h); err != nil {
			return err
		}
		offset += h.size()
	}
}

// recover brings log and index together after a crash (I10): batches behind the indexed part are verified and added, a
// torn end is cut off, and the log is synced, since what was read may so far be in the page cache only.
func (l *undoLog) recover() error {
	from, err := l.index.Indexed(l.epoch)
	if err != nil {
		return err
	}
	from = max(from, PageSize)
	size, err := fileSize(l.fd)
	if err != nil {
		return err
	}
	if size < from {
		return l.recoverCut(size, from)
	}
	page := make([]byte, PageSize)
	verified := from
	err = l.scan(from, func(h *batchHeader) error {
		places := h.places(l.epoch)
		for _, pl := range places {
			if err := l.readPage(pl, page); errors.Is(err, ErrDamaged) {
				if err := l.tornOrDamaged(verified); errors.Is(err, ErrDamaged) {
					break // it is indexed all the same: who reads the page gets EIO, not what came after
				} else if err != nil {
					return err
				}
				return errTorn
			} else if err != nil {
				return err
			}
		}
		verified = h.offset + h.size()
		l.pending = append(l.pending, indexBatch{verified, places})
		return nil
	})
	if err != nil && !errors.Is(err, errTorn) {
		return err
	}
	if err := l.tornOrDamaged(verified); err != nil {
		return err
	}
	if err := l.endAt(verified, size); err != nil {
		return err
	}
	for _, b := range l.pending {
		if err := l.index.Add(l.epoch, b.end, b.places); err != nil {
			return err
		}
	}
	l.pending = nil
	l.synced.Store(l.tail)
	return nil
}

// endAt makes a log of size bytes, durably, end at end, where the next batch goes.
func (l *undoLog) endAt(end, size int64) error {
	if size > end {
		if err := unix.Ftruncate(l.fd, end); err != nil {
			return fmt.Errorf("cut the torn end of undo log %d at %d: %w", l.epoch, end, err)
		}
	}
	l.tail, l.allocated = end, end
	if err := unix.Fdatasync(l.fd); err != nil {
		return fmt.Errorf("sync undo log %d: %w", l.epoch, err)
	}
	return nil
}

// recoverCut is recover for a log that is size bytes long and was, durably, indexed up to was: it is damaged. The places of what is gone
// stay in the index, so that who reads them gets EIO and nobody takes them from the base file. The mark is not believed: the log goes on
// behind the last batch of which there is a header, so that whoever reads it from its beginning finds all of it. That is durable before anything is
// appended, or the next recovery would take the middle of a batch for the end of the log.
func (l *undoLog) recoverCut(size, was int64) error {
	end := int64(PageSize)
	err := l.scan(PageSize, func(h *batchHeader) error {
		end = h.offset + h.size() // which may be behind the end of the file: what is lost of the batch becomes a hole
		return nil
	})
	if err != nil {
		return err
	}
	if err := l.endAt(end, size); err != nil {
		return err
	}
	if err := l.index.Add(l.epoch, end, nil); err != nil {
		return err
	}
	if err := l.index.Sync(); err != nil {
		return err
	}
	l.cut = fmt.Errorf("it is %d bytes long, and was %d: pages are lost", size, was)
	l.synced.Store(end)
	return nil
}

// tornOrDamaged looks behind offset end, where the valid batches stop, for a batch of this log which knew the log to be
// durable beyond end: then what is bad at end is damage, and cutting it off would thaw a snapshot.
func (l *undoLog) tornOrDamaged(end int64) error {
	size, err := fileSize(l.fd)
	if err != nil {
		return err
	}
	page := make([]byte, PageSize)
	for off := end; off < size; off += PageSize {
		n, err := preadAll(l.fd, page, off)
		if err != nil {
			return fmt.Errorf("read undo log %d at %d: %w", l.epoch, off, err)
		}
		length, err := batchHeaderLen(page[:n], l.salt, off)
		if err != nil {
			continue
		}
		head := make([]byte, length)
		if n, err = preadAll(l.fd, head, off); err != nil {
			return fmt.Errorf("read undo log %d at %d: %w", l.epoch, off, err)
		}
		h, err := decodeBatchHeader(head[:n], l.salt, off)
		if err == nil && h.synced > end {
			return fmt.Errorf("undo/%d: bad batch at offset %d, before the end of what was durable: %w", l.epoch, end, ErrDamaged)
		}
	}
	return nil
}

// isShort reports whether a log has no batch. Its header may be anything then: ext4 may show a file as long as it became, and none
// of its bytes, where the power went before the first sync.
func isShort(fd int) bool {
	size, err := fileSize(fd)
	return err == nil && size <= PageSize
}

// openLog opens an existing undo log. A header that never became durable, in a log without a batch, is errTorn.
func openLog(dir int, epoch Epoch, hook func(Op) error, index Index) (*undoLog, error) {
	name := logName(epoch)
	fd, err := openat(dir, name, unix.O_RDWR, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "undo/" + name, Err: err}
	}
	b := make([]byte, PageSize)
	n, err := preadAll(fd, b, 0)
	var h logHeader
	switch {
	case err != nil:
	case n < PageSize:
		err = fmt.Errorf("the header is cut: %w", ErrDamaged)
	default:
		h, err = decodeLogHeader(b)
	}
	if errors.Is(err, ErrDamaged) && isShort(fd) {
		err = fmt.Errorf("%w: %w", errTorn, err)
	}
	if err == nil && h.epoch != epoch {
		err = fmt.Errorf("is the log of epoch %d: %w", h.epoch, ErrDamaged)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: "undo/" + name, Err: err}
	}
	return &undoLog{epoch: epoch, salt: h.salt, fd: fd, hook: hook, index: index, tail: PageSize, allocated: PageSize}, nil
}

// logEpoch parses the name of an undo log.
func logEpoch(name string) (Epoch, bool) {
	n, err := strconv.ParseUint(name, 10, 63)
	return Epoch(n), err == nil && n > 0 && logName(Epoch(n)) == name
}

package cow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// RepairLogs mends the headers of the undo logs of the store in dir, which nobody has open, and calls report for what it did. A header
// has nothing but the epoch, which is the log's name, and the salt, which every batch repeats under its own checksum. A log without a
// single byte is removed: it keeps the store from being opened, and what the index says was in it is lost with or without it.
func RepairLogs(dir string, report func(Problem)) error {
	store, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(store)
	fd, err := openat(store, "undo", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: "undo", Err: err}
	}
	defer unix.Close(fd)
	names, err := listDir(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		epoch, ok := logEpoch(name)
		if !ok {
			continue
		}
		what, err := repairLog(fd, epoch)
		if err != nil {
			return &os.PathError{Op: "repair", Path: "undo/" + name, Err: err}
		}
		if what != "" {
			report(Problem{Path: "undo/" + name, What: what})
		}
	}
	return nil
}

// repairLog mends one log and returns what it did, nothing if there was nothing to do, or nothing that could be done.
func repairLog(dir int, epoch Epoch) (what string, err error) {
	l, err := openat(dir, logName(epoch), unix.O_RDWR, 0)
	if errors.Is(err, ErrDamaged) {
		return "", nil // no file: opening the store says so
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(l)
	size, err := fileSize(l)
	if err != nil {
		return "", err
	}
	if size == 0 {
		return "an undo log without a byte; removed", errors.Join(unix.Unlinkat(dir, logName(epoch), 0), unix.Fsync(dir))
	}
	b := make([]byte, PageSize)
	n, err := preadAll(l, b, 0)
	if err != nil {
		return "", err
	}
	if _, err := decodeLogHeader(b[:n]); err == nil || errors.Is(err, ErrVersion) {
		return "", nil
	}
	salt, found, err := findSalt(l, size)
	if err != nil || !found {
		return "", err
	}
	if err := pwritevAll(l, [][]byte{logHeader{epoch, salt}.encode()}, 0); err != nil {
		return "", err
	}
	return "the header was damaged; written anew from the batches", unix.Fsync(l)
}

// findSalt returns the salt of the first valid batch.
func findSalt(fd int, size int64) (salt uint64, found bool, err error) {
	b := make([]byte, PageSize)
	for off := int64(PageSize); off < size; off += PageSize {
		n, err := preadAll(fd, b, off)
		if err != nil {
			return 0, false, err
		}
		if n < PageSize {
			break
		}
		salt := binary.LittleEndian.Uint64(b[8:])
		length, err := batchHeaderLen(b, salt, off)
		if err != nil {
			continue
		}
		head := make([]byte, length)
		if n, err = preadAll(fd, head, off); err != nil {
			return 0, false, fmt.Errorf("read batch at %d: %w", off, err)
		}
		if _, err := decodeBatchHeader(head[:n], salt, off); err == nil {
			return salt, true, nil
		}
	}
	return 0, false, nil
}

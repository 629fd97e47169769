package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockFile is flock(2)ed by the daemon; its writers inherit the descriptor, so that the store stays locked until the last
// of them has exited (I9).
const lockFile = "lock"

// lock takes the store's lock; ErrHeld if another process has it.
func lock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	for {
		f, err := openPlain(path, os.O_RDWR|os.O_CREATE)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("%s is locked by another process: %w", dir, ErrHeld)
			}
			return nil, &os.PathError{Op: "lock", Path: path, Err: err}
		}
		if isAt(f, path) {
			return f, nil
		}
		_ = f.Close() // a store that could not be made was taken back just now, and its lock with it
	}
}

// isAt reports whether path still names the open file.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(open, there)
}

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
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is locked by another process: %w", dir, ErrHeld)
		}
		return nil, &os.PathError{Op: "lock", Path: filepath.Join(dir, lockFile), Err: err}
	}
	return f, nil
}

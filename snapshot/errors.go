package snapshot

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Errors that callers tell apart. Each wraps the errno that a system call would give.
var (
	ErrExists  = fmt.Errorf("a snapshot of this name exists: %w", unix.EEXIST)
	ErrUnknown = fmt.Errorf("no such snapshot: %w", unix.ENOENT)
	ErrName    = fmt.Errorf("not a valid snapshot name (1 to 255 bytes, no slash, not . or .., no leading dash): %w", unix.EINVAL)
	ErrHeld    = fmt.Errorf("in use: %w", unix.EBUSY)
	ErrClosing = fmt.Errorf("the store is going down: %w", unix.ESHUTDOWN)
	ErrDamaged = fmt.Errorf("the store is damaged: %w", unix.EIO)
	ErrNewer   = fmt.Errorf("made by a newer version of snapfs: %w", unix.ENOTSUP)
)

package snapshot

import "golang.org/x/sys/unix"

// known is an error that callers tell apart. It wraps the errno that a system call would give, without saying it.
type known struct {
	text  string
	errno unix.Errno
}

func (e *known) Error() string { return e.text }
func (e *known) Unwrap() error { return e.errno }

// Errors that callers tell apart, by errors.Is.
var (
	ErrExists  error = &known{"a snapshot of this name exists", unix.EEXIST}
	ErrUnknown error = &known{"no such snapshot", unix.ENOENT}
	ErrName    error = &known{"not a valid snapshot name (1 to 255 bytes, no slash, not . or .., no leading dash)", unix.EINVAL}
	ErrHeld    error = &known{"in use", unix.EBUSY}
	ErrClosing error = &known{"the store is going down", unix.ESHUTDOWN}
	ErrDamaged error = &known{"the store is damaged", unix.EIO}
	ErrNewer   error = &known{"made by a newer version of snapfs", unix.ENOTSUP}
)

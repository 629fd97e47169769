package snapshot

import (
	"fmt"
	"strings"
	"syscall"
)

// Limits of the namespace, those of Linux.
const (
	maxName      = 255     // bytes of a name
	maxTarget    = 4095    // bytes of a symlink's target
	maxLinks     = 1 << 31 // names of a file
	maxXattrName = 255     // bytes of the name of an extended attribute
	maxXattr     = 1 << 16 // bytes of its value
)

// opError says which operation failed on which inode, and name in it. It is a struct because a lookup that finds nothing
// is an everyday event and should cost no formatting.
type opError struct {
	op   string
	ino  Ino
	name string
	err  error
}

func (e *opError) Error() string {
	if e.name == "" {
		return fmt.Sprintf("%s inode %d: %v", e.op, e.ino, e.err)
	}
	return fmt.Sprintf("%s %q of inode %d: %v", e.op, e.name, e.ino, e.err)
}

func (e *opError) Unwrap() error { return e.err }

func checkEntryName(op string, parent Ino, name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return &opError{op, parent, name, syscall.EINVAL}
	case len(name) > maxName:
		return &opError{op, parent, name, syscall.ENAMETOOLONG}
	}
	return nil
}

// noXattr is the error of asking for an extended attribute that is not there, or cannot be.
func noXattr(op string, ino Ino, name string) error {
	if err := checkXattr(op, ino, name); err != nil && !IsACL(name) {
		return err
	}
	return &opError{op, ino, name, syscall.ENODATA}
}

// checkXattr accepts the name spaces that Linux file systems keep. Of system. that is only access control lists, which do
// not come here.
func checkXattr(op string, ino Ino, name string) error {
	switch {
	case len(name) > maxXattrName:
		return &opError{op, ino, name, syscall.ERANGE}
	case strings.ContainsRune(name, 0):
		return &opError{op, ino, name, syscall.EINVAL}
	}
	for _, space := range [...]string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, space) {
			if len(name) == len(space) {
				return &opError{op, ino, name, syscall.EINVAL}
			}
			return nil
		}
	}
	return &opError{op, ino, name, syscall.EOPNOTSUPP}
}

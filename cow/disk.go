package cow

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ignoringEINTR calls f until it is not interrupted.
func ignoringEINTR(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openat opens a file or directory of the store. It reaches nothing but what lies below dir, whatever somebody has put there: symbolic
// links are not followed (openat2(2), Linux 5.6), and what is neither a file nor a directory is refused, without waiting for the other
// end of a fifo.
func openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	if flags&unix.O_CREAT == 0 {
		mode = 0 // openat2 insists
	}
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	}
	err = ignoringEINTR(func() error {
		fd, err = unix.Openat2(dir, name, &how)
		if errors.Is(err, unix.ENOSYS) {
			fd, err = unix.Openat(dir, name, int(how.Flags), mode)
		}
		return err
	})
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
		return -1, fmt.Errorf("a symbolic link: %w: %w", ErrDamaged, unix.EIO)
	}
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = fmt.Errorf("neither a file nor a directory: %w: %w", ErrDamaged, unix.EIO)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// preadAll reads until b is full or the file ends, and returns how much it read; the end of the file is no error.
func preadAll(fd int, b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		k, err := unix.Pread(fd, b[n:], off+int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return n, err
		case k == 0:
			return n, nil
		default:
			n += k
		}
	}
	return n, nil
}

// pwritevAll writes all the buffers at off. A short write without an error becomes io.ErrShortWrite.
func pwritevAll(fd int, bufs [][]byte, off int64) error {
	for _, b := range bufs {
		for len(b) > 0 {
			k, err := unix.Pwrite(fd, b, off)
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil:
				return err
			case k == 0:
				return io.ErrShortWrite
			default:
				b, off = b[k:], off+int64(k)
			}
		}
	}
	return nil
}

func fileSize(fd int) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	return st.Size, nil
}

// makeDir makes a directory below dir if it is missing and returns a descriptor of it.
func makeDir(dir int, name string) (int, error) {
	if err := unix.Mkdirat(dir, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, &os.PathError{Op: "make directory", Path: name, Err: err}
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open directory", Path: name, Err: err}
	}
	return fd, nil
}

// listDir returns the names in a directory.
func listDir(fd int) ([]string, error) {
	dup, err := openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("list directory: %w", err)
	}
	f := os.NewFile(uintptr(dup), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}

package snapshot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A store may come from somebody else, and be opened by root. Whatever is in it, nothing outside of it is opened, and nothing hangs: what
// should be a file or a directory and is a symbolic link, a fifo or a device is damage. Package cow sees to its own two directories.

// openPlain opens a file of the store; with O_CREATE it makes one that only its owner may read.
func openPlain(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, notPlain(path, "a file")
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notPlain(path, "a file")
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// vetDir refuses a directory that is none, or holds anything but files. A missing one is fine.
func vetDir(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return notPlain(path, "a directory")
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			return notPlain(path+"/"+e.Name(), "a file")
		}
	}
	return nil
}

func notPlain(path, what string) error {
	return fmt.Errorf("%s is not %s: %w", path, what, ErrDamaged)
}

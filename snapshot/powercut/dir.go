package powercut

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Dir is the part of a Tree that any mounted file system has: a directory, without snapshots.
type Dir string

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// with does something to an open file.
func (d Dir) with(name string, flags int, do func(f *os.File) error) error {
	f, err := os.OpenFile(d.path(name), flags, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

// Write writes by write(2), or, where the file is long enough, half of the times through a shared mapping.
func (d Dir) Write(name string, data []byte, off int64) error {
	return d.with(name, os.O_RDWR|os.O_CREATE, func(f *os.File) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if len(data) > 0 && off+int64(len(data)) <= info.Size() && rand.IntN(2) == 0 {
			return store(f, data, off)
		}
		_, err = f.WriteAt(data, off)
		return err
	})
}

// store writes through a mapping.
func store(f *os.File, data []byte, off int64) error {
	from := off / page * page
	m, err := unix.Mmap(int(f.Fd()), from, int(off-from)+len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m[off-from:], data)
	return unix.Munmap(m)
}

// Truncate is ftruncate(2).
func (d Dir) Truncate(name string, size int64) error {
	return d.with(name, os.O_WRONLY|os.O_CREATE, func(f *os.File) error { return f.Truncate(size) })
}

// Sync is fsync(2), or fdatasync(2).
func (d Dir) Sync(name string, dataOnly bool) error {
	return d.with(name, os.O_RDONLY, func(f *os.File) error {
		if dataOnly {
			return unix.Fdatasync(int(f.Fd()))
		}
		return f.Sync()
	})
}

// Link is symlink(2).
func (d Dir) Link(name, target string) error { return os.Symlink(target, d.path(name)) }

// Rename is rename(2).
func (d Dir) Rename(old, new string) error { return os.Rename(d.path(old), d.path(new)) }

// Unlink is unlink(2).
func (d Dir) Unlink(name string) error { return unix.Unlink(d.path(name)) }

// SyncNames is fsync(2) of the directory.
func (d Dir) SyncNames() error {
	return d.with(".", os.O_RDONLY, func(f *os.File) error { return f.Sync() })
}

// Read reads a file.
func (d Dir) Read(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

// Links returns the symbolic links.
func (d Dir) Links() (map[string]string, error) {
	links := map[string]string{}
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		if e.Type() == os.ModeSymlink {
			target, e2 := os.Readlink(d.path(e.Name()))
			links[e.Name()] = target
			err = errors.Join(err, e2)
		}
	}
	return links, err
}

// Digest is a digest of everything in the directory but times and inode numbers.
func (d Dir) Digest() (string, error) {
	entries, err := os.ReadDir(string(d)) // in the order of names
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, e := range entries {
		var st unix.Stat_t
		if err := unix.Lstat(d.path(e.Name()), &st); err != nil {
			return "", fmt.Errorf("%s: %w", e.Name(), err)
		}
		fmt.Fprintf(sum, "%q %o %d %d\n", e.Name(), st.Mode, st.Nlink, st.Size)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(d.path(e.Name()))
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%q\n", target)
		case unix.S_IFREG:
			if err := d.with(e.Name(), os.O_RDONLY, func(f *os.File) error { _, err := io.Copy(sum, f); return err }); err != nil {
				return "", fmt.Errorf("%s: %w", e.Name(), err)
			}
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil))[:16], nil
}

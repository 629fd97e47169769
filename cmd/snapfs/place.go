package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// realPath makes path absolute and resolves the symbolic links of the part of it that exists.
func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	missing := ""
	for dir := abs; ; dir = filepath.Dir(dir) {
		real, err := filepath.EvalSymlinks(dir)
		switch {
		case err == nil:
			return filepath.Join(real, missing), nil
		case errors.Is(err, syscall.ENOENT), control.IsDead(err):
			missing = filepath.Join(filepath.Base(dir), missing)
		default:
			return "", err
		}
		if dir == "/" {
			return "", err
		}
	}
}

// checkPlaces refuses a store and a mount point that cannot work together, and a mount point that cannot be one. It
// changes nothing, except that a dead mount at the mount point is cleaned away. What is wrong with a store alone is found
// when it is opened.
func checkPlaces(store, point string) error {
	switch {
	case store == point:
		return fmt.Errorf("%s cannot be both the store and the mount point", store)
	case control.Inside(point, store):
		return fmt.Errorf("mount point %s is inside its own store %s", point, store)
	case control.Inside(store, point):
		return fmt.Errorf("store %s is inside the mount point %s, which would hide it", store, point)
	}
	return checkPoint(point)
}

// formatPath is the file that makes a directory a store.
func formatPath(store string) string { return filepath.Join(store, "format") }

// checkPoint refuses a mount point that is in use, not empty or no directory.
func checkPoint(point string) error {
	if err := clearPoint(point); err != nil {
		return err
	}
	empty, err := emptyDir(point)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("mount point %s is not a directory", point)
	case err != nil:
		return fmt.Errorf("mount point %w", err)
	case !empty:
		return fmt.Errorf("mount point %s is not empty", point)
	}
	return nil
}

// clearPoint refuses a path where something is mounted, and detaches dead mounts.
func clearPoint(point string) error {
	for {
		m, err := control.FindAny(point)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
			return nil // checkPoint says which
		}
		if err != nil {
			return fmt.Errorf("mount point %s: %w", point, err)
		}
		switch {
		case m.Point != point:
			return nil
		case m.Type != control.FSType:
			return control.Errorf(control.Refused, "mount point %s is busy: a file system of type %s is mounted there", point, m.Type)
		case !isDead(point):
			return control.Errorf(control.Refused, "mount point %s is busy: snapfs already serves %s there", point, m.Source)
		}
		if err := detach(point); err != nil {
			return fmt.Errorf("clean the dead mount at %s: %w", point, err)
		}
	}
}

// emptyDir reports whether path is a directory without entries.
func emptyDir(path string) (bool, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	_, err = dir.Readdirnames(1)
	if err == io.EOF {
		return true, nil
	}
	return false, err
}

// isDead reports whether the daemon of the mount at point is gone. It asks with statfs, because the kernel never answers
// that one from its caches. A daemon that is there but does not answer is not dead.
func isDead(point string) bool {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(point, &st)
	}()
	select {
	case err := <-answer:
		return control.IsDead(err)
	case <-time.After(statfsLimit):
		return false
	}
}

// statfsLimit bounds the wait for a daemon that hangs.
const statfsLimit = 5 * time.Second

// detach removes the mount at point from the tree at once, even if it is used.
func detach(point string) error {
	err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if !errors.Is(err, syscall.EPERM) {
		return err
	}
	text, err := exec.Command("fusermount3", "-u", "-z", "--", point).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3: %s: %w", strings.TrimSpace(string(text)), err)
	}
	return nil
}

// makeDir makes path with mode, and what is missing above it, and returns what it made, top first.
func makeDir(path string, mode os.FileMode) (made []string, err error) {
	var missing []string
	for dir := path; ; dir = filepath.Dir(dir) {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.ENOENT) {
			return nil, err
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		perm := os.FileMode(0o755)
		if i == 0 {
			perm = mode
		}
		err := os.Mkdir(missing[i], perm)
		if err == nil {
			made = append(made, missing[i])
			err = os.Chmod(missing[i], perm) // the daemon's umask is for the files of the store
		}
		if err != nil && !errors.Is(err, os.ErrExist) { // another mount may be as fast
			removeDirs(made)
			return nil, err
		}
	}
	return made, nil
}

// removeDirs takes back what makeDir made. A directory that is not empty stays.
func removeDirs(made []string) {
	for i := len(made) - 1; i >= 0; i-- {
		os.Remove(made[i])
	}
}

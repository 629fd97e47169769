package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

// How long a mount waits for a daemon that holds the store's lock (I9) but serves no mount any more: umount(2) returns
// before the daemon has written the last bytes and exited, and its writers may still be at work.
const (
	endingLimit  = 30 * time.Second
	lockInterval = 20 * time.Millisecond
	// A daemon whose mount is not in our mount table may be about to end, or serve in another mount namespace.
	hiddenLimit = 2 * time.Second
)

// openStore opens the store, and waits for a daemon that is ending, or for the writer of one that was killed, to let go of it.
func openStore(ctx context.Context, dir string, opt snapshot.Options) (*snapshot.Store, error) {
	start := time.Now()
	writers := newOrphans(dir, os.Stderr)
	for {
		store, err := snapshot.Open(dir, opt)
		if !isLocked(err) {
			return store, err
		}
		waiting, err := writers.look()
		if err == nil && !waiting {
			err = inUse(ctx, dir, time.Since(start))
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockInterval):
		}
	}
}

// isLocked reports whether err says that another process holds the store's lock.
func isLocked(err error) bool {
	return errors.Is(err, snapshot.ErrHeld)
}

// inUse returns the error to give up with if the store's lock is held by a daemon that is not about to end.
func inUse(ctx context.Context, dir string, waited time.Duration) error {
	by := "another process"
	if pid, ok := lockHolder(dir); ok {
		by = fmt.Sprintf("process %d", pid)
	}
	mounts, err := control.Mounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Type == control.FSType && m.Source == dir && !isDead(m.Point) {
			return control.Errorf(control.Refused, "store %s is locked by %s, which serves it at %s", dir, by, m.Point)
		}
	}
	switch {
	case waited > endingLimit:
		return control.Errorf(control.Refused, "store %s is locked by %s, which has not ended in %v", dir, by, endingLimit)
	case waited > hiddenLimit && answers(ctx, dir):
		return control.Errorf(control.Refused, "store %s is locked by %s, which serves it in another mount namespace", dir, by)
	}
	return nil
}

// answers reports whether a daemon serves dir and does not say that it is ending.
func answers(ctx context.Context, dir string) bool {
	client, err := control.Dial(ctx, dir)
	if err != nil {
		return false
	}
	defer client.Close()
	return !client.Hello().Ending
}

// lockHolder returns the process that holds the lock of the store in dir.
func lockHolder(dir string) (pid int, ok bool) {
	lock := filepath.Join(dir, "lock")
	var st unix.Stat_t
	if err := unix.Stat(lock, &st); err != nil {
		return 0, false
	}
	m, err := control.FindAny(lock)
	if err != nil {
		return 0, false
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	return parseLocks(f, m.Major, m.Minor, st.Ino)
}

// parseLocks finds the process that holds a flock on an inode in the lines of /proc/locks:
//
//	1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
//
// The device is the file system's, in hexadecimal: that of the mount table, which on btrfs is not the one that stat reports. An inode number
// alone says little: the stores of two file systems that were made alike have their locks in the same one.
func parseLocks(r io.Reader, major, minor uint32, ino uint64) (pid int, ok bool) {
	file := fmt.Sprintf("%02x:%02x:%d", major, minor, ino)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		field := strings.Fields(lines.Text())
		if len(field) < 6 || field[1] != "FLOCK" || field[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(field[4]); err == nil && pid > 0 {
			return pid, true
		}
	}
	return 0, false
}

// removeStore removes the files of a store that nobody uses, but not its directory.
func removeStore(dir string) {
	lock, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return // somebody has opened it meanwhile: it is his now
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		os.RemoveAll(filepath.Join(dir, entry.Name()))
	}
}

// isEmptyStore reports whether nothing was ever put into the store, as far as it can be seen.
func isEmptyStore(store *snapshot.Store) bool {
	infos, err := store.List()
	if err != nil || len(infos) > 0 {
		return false
	}
	empty := true
	err = store.Live().ReadDir(snapshot.Root, 0, func(snapshot.Dirent) bool {
		empty = false
		return false
	})
	return err == nil && empty
}

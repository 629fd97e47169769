package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// writerName is what /proc/PID/comm says of a snapshot's writer.
const writerName = "snapfs-writer"

// orphans watches, while a command waits for a store's lock, for the writer of a daemon that was killed: it finishes its work first,
// and holds the lock until then (I8, I9).
type orphans struct {
	dir    string        // the store
	say    io.Writer     // where it is said whom the command waits for
	quiet  time.Duration // nothing is said before; and how often it looks
	limit  time.Duration
	since  time.Time
	looked time.Time
	said   bool
	killed time.Time
}

// newOrphans begins a wait for the lock of the store in dir. An orphan writes what it holds to the page cache and leaves the syncing to
// the next daemon, so it takes a second or two at most. One that has not ended after half a minute meets a disk that hardly answers: it is
// killed, which loses what it has not written yet, as without it.
func newOrphans(dir string, say io.Writer) *orphans {
	return &orphans{dir: dir, say: say, quiet: 300 * time.Millisecond, limit: endingLimit, since: time.Now()}
}

// look is called again and again while the store is locked. waiting says that an orphan holds the lock; the error is the one to give up with.
func (o *orphans) look() (waiting bool, err error) {
	now := time.Now()
	if now.Sub(o.since) < o.quiet || now.Sub(o.looked) < o.quiet {
		return o.said, nil
	}
	o.looked = now
	pid, fd, ok := o.find()
	if !ok {
		return false, nil
	}
	defer unix.Close(fd)
	if !o.said {
		o.said = true
		fmt.Fprintf(o.say, "snapfs: waiting for the writer of a daemon that was killed (process %d)\n", pid)
	}
	if now.Sub(o.since) < o.limit {
		return true, nil
	}
	if o.killed.IsZero() {
		o.killed = now
		fmt.Fprintf(o.say, "snapfs: the writer (process %d) has not ended in %v and is killed\n", pid, o.limit)
		return true, ignoreGone(unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
	}
	if now.Sub(o.killed) > exitLimit {
		return true, control.Errorf(control.Refused, "store %s is locked by process %d, the writer of a daemon that was killed, and cannot be killed itself: the disk does not answer", o.dir, pid)
	}
	return true, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// find returns an orphaned writer that has the store's lock open, as a number and a descriptor that is sure to mean the same process.
func (o *orphans) find() (pid, fd int, ok bool) {
	lock, err := fileAt(filepath.Join(o.dir, "lock"))
	if err != nil {
		return 0, -1, false
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, -1, false
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || commandOf(pid) != writerName {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if hasOpen(pid, lock) && commandOf(pid) == writerName && !hasOpen(parentOf(pid), lock) {
			return pid, fd, true
		}
		unix.Close(fd)
	}
	return 0, -1, false
}

// fileID tells files apart.
type fileID struct {
	major, minor uint32
	ino          uint64
}

// fileAt returns which file is at path. It never asks the daemon of a mount, which may hang.
func fileAt(path string) (fileID, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st)
	return fileID{st.Dev_major, st.Dev_minor, st.Ino}, err
}

// hasOpen reports whether a process has a file open, as far as we may look.
func hasOpen(pid int, file fileID) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		if open, err := fileAt(filepath.Join(dir, entry.Name())); err == nil && open == file {
			return true
		}
	}
	return false
}

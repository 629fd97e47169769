package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/fs/control"
)

// endDying ends the connections of a daemon of the store that was killed and cannot die: one of its threads tells the kernel of a change
// in .snapshots, and waits there for the lock of that directory, which a client has who waits for the daemon's answer. Nobody can be
// killed then, and whoever looks at the mount waits as well, until the connection is aborted. (fuse_reverse_inval_entry in fs/fuse/dir.c
// of Linux takes the lock, and the device stays open as long as it waits for it.)
func endDying(store string) {
	mounts, err := control.Mounts() // before the look at the holder: one that another daemon makes when he has died is not among them
	if err != nil {
		return
	}
	pid, ok := lockHolder(store)
	if !ok || !isDying(pid) {
		return
	}
	for _, m := range mounts {
		if m.Type == control.FSType && m.Source == store {
			abortConnection(m)
		}
	}
}

// endDyingAt is endDying for the store whose mount a path is in. It goes by the path's words: to look at it could wait for the daemon.
func endDyingAt(path string) {
	path, err := filepath.Abs(path)
	if err != nil {
		return
	}
	mounts, err := control.Mounts()
	if err != nil {
		return
	}
	for _, m := range mounts {
		if m.Type == control.FSType && control.Inside(path, m.Point) {
			endDying(m.Source)
		}
	}
}

// abortConnection has the kernel end everything that waits for the daemon of a mount. Where it cannot be done, whoever goes on says what is
// in the way.
func abortConnection(m control.Mounted) {
	if fs.AbortConnection(m.Minor) != nil && isOnTop(m) { // fusectl is not mounted: root can do without
		_ = unix.Unmount(m.Point, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW)
	}
}

// isOnTop reports whether the mount point leads to the mount: another one may be over it, which unmounting by path would hit.
func isOnTop(m control.Mounted) bool {
	top, err := control.FindAny(m.Point)
	return err == nil && top.ID == m.ID
}

// isDying reports whether a process was killed and is still there.
func isDying(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "State":
			if strings.HasPrefix(value, "Z") {
				return true
			}
		case "SigPnd", "ShdPnd":
			if bits, err := strconv.ParseUint(value, 16, 64); err == nil && bits>>(unix.SIGKILL-1)&1 == 1 {
				return true
			}
		}
	}
	return false
}

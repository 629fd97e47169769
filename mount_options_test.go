package snapfs_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// fileCaps is cap_net_raw=ep, as in linux/capability.h, version 2.
var fileCaps = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// TestPrivilegesGo compares with ext4 which calls take set-id bits and file capabilities away, of root's and of an owner.
func TestPrivilegesGo(t *testing.T) {
	needRoot(t)
	m := newMount(t)
	asExt4(t, m.mnt, losePrivileges)
}

func losePrivileges(w *scribe) {
	need(w, os.Chmod(w.dir, 0o777))
	f := w.path("f")
	open := func(call func(fd int) error) func() error { return func() error { return changeFile(f, call) } }
	calls := map[string]func() error{
		"write":     open(func(fd int) error { _, err := unix.Pwrite(fd, []byte("new"), 1); return err }),
		"nothing":   open(func(fd int) error { _, err := unix.Pwrite(fd, nil, 1); return err }),
		"extend":    open(func(fd int) error { _, err := unix.Pwrite(fd, []byte("new"), 100); return err }),
		"ftruncate": open(func(fd int) error { return unix.Ftruncate(fd, 2) }),
		"truncate":  func() error { return unix.Truncate(f, 3) },
		"O_TRUNC":   func() error { return os.WriteFile(f, nil, 0) },
		"allocate":  open(func(fd int) error { return unix.Fallocate(fd, 0, 0, 100) }),
		"punch": open(func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 2)
		}),
		"copy": open(func(fd int) error {
			to := int64(50)
			_, err := unix.CopyFileRange(fd, new(int64), fd, &to, 2, 0)
			return err
		}),
		"chown": func() error { return os.Chown(f, -1, 1000) },
		"chmod": func() error { return unix.Chmod(f, 0o6711) },
		"touch": func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, f, nil, 0) },
		"mode":  func() error { return setACL(f, accessACL, "u7 g7 o1") },
	}
	names := make([]string, 0, len(calls))
	for name := range calls {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, mode := range []uint32{0o6777, 0o6767, 0o4711, 0o2777, 0o777} {
		for _, uid := range []int{0, 1000} {
			for _, name := range names {
				writeFile(w, f, "some text")
				need(w, errors.Join(os.Chown(f, 1000, 1000), unix.Chmod(f, mode)))
				if mode == 0o777 { // both at once could not be told apart, see killsPriv
					need(w, unix.Setxattr(f, "security.capability", fileCaps, 0))
				}
				w.did(fmt.Sprintf("%s by %d of %o", name, uid, mode), asUser(uid, calls[name]))
				w.shows("f")
			}
		}
	}
}

package fs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Attach mounts a FUSE device, read-only, at point for a Showing of the store source, and returns the device, which the daemon is
// to have. Until it serves, every look at the mount waits. The caller is in a mount namespace of his own, and in the user
// namespace that owns it: the kernel wants the device opened there, and takes the mount since Linux 4.18.
func Attach(point, source string, noExec bool) (*os.File, error) {
	device, err := os.OpenFile(devFuse, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the FUSE device: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d,allow_other,default_permissions",
		device.Fd(), unix.S_IFDIR, os.Geteuid(), os.Getegid(), maxWrite)
	flags := uintptr(unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if noExec {
		flags |= unix.MS_NOEXEC
	}
	if err := unix.Mount(source, point, "fuse."+fsName, flags, options); err != nil {
		device.Close()
		return nil, fmt.Errorf("mount the frozen tree at %s: %w", point, err)
	}
	return device, nil
}

// WidenReadAhead makes the kernel read ahead at a Showing as much as at the live tree, if this process may.
func WidenReadAhead(point string) { widenReadAhead(point) }

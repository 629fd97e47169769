package snapfs_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls that package unix has not, or not for one thread only. What the mount has to answer goes by Syscall: the
// runtime must know that it takes time, since this very process serves the mount.

func setGroups(groups []uint32) error {
	var first unsafe.Pointer
	if len(groups) > 0 {
		first = unsafe.Pointer(&groups[0])
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0)
	return errnoErr(errno)
}

func errnoErr(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// getdents reads the next entries of a directory; none at its end.
func getdents(fd int, buf []byte) (ents []dirEntry, err error) {
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		return nil, err
	}
	for b := buf[:n]; len(b) > 0; {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		name := b[19:size]
		ents = append(ents, dirEntry{
			name: string(name[:bytes.IndexByte(name, 0)]),
			ino:  binary.NativeEndian.Uint64(b),
			off:  int64(binary.NativeEndian.Uint64(b[8:])),
			kind: b[18],
		})
		b = b[size:]
	}
	return ents, nil
}

func crc(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// ioctlBytes is an ioctl with a buffer.
func ioctlBytes(fd int, request uint, arg []byte) error {
	var first unsafe.Pointer
	if len(arg) > 0 {
		first = unsafe.Pointer(&arg[0])
	}
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(first))
	return errnoErr(errno)
}

// quotactlFd asks for the quota of user 0.
func quotactlFd(fd int) error {
	var buf [112]byte
	_, _, errno := syscall.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(0x800007<<8), 0, uintptr(unsafe.Pointer(&buf)), 0, 0)
	return errnoErr(errno)
}

// swapon makes a file swap space.
func swapon(path string) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), 0, 0)
	return errnoErr(errno)
}

// faccessat2 is access(2) with flags: package unix emulates some of them.
func faccessat2(dirfd int, path string, mode, flags uint32) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall6(unix.SYS_FACCESSAT2, uintptr(dirfd), uintptr(unsafe.Pointer(p)), uintptr(mode), uintptr(flags), 0, 0)
	return errnoErr(errno)
}

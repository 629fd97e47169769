package cow

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctl that lists the extents of a file: include/uapi/linux/fiemap.h.
const (
	fsIOCFiemap        = 0xc020660b
	fiemapExtentLast   = 0x1
	fiemapExtentShared = 0x2000
)

// fiemap is struct fiemap with room for some struct fiemap_extent.
type fiemap struct {
	start, length        uint64
	flags, mapped, count uint32
	_                    uint32
	extents              [32]struct {
		logical, physical, length uint64
		_                         [2]uint64
		flags                     uint32
		_                         [3]uint32
	}
}

// unsharedUpTo returns how far the bytes [from, to) of a file are known to share no block with another file. A file system
// that cannot tell does not share.
func unsharedUpTo(fd int, from, to int64) int64 {
	m := fiemap{start: uint64(from), length: uint64(to - from)}
	m.count = uint32(len(m.extents))
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsIOCFiemap, uintptr(unsafe.Pointer(&m))); errno != 0 {
		return to
	}
	known := from
	for _, e := range m.extents[:min(m.mapped, m.count)] {
		if e.flags&fiemapExtentShared != 0 {
			return max(from, int64(e.logical))
		}
		if known = int64(e.logical + e.length); e.flags&fiemapExtentLast != 0 {
			return to
		}
	}
	if m.mapped < m.count {
		return to
	}
	return min(known, to)
}

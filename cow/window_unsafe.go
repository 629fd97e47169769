package cow

import (
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions of this file are the only ones in the daemon that touch mapped memory. Addresses are uintptr: the memory
// is outside the Go heap, and the garbage collector must not follow them.

// mapPrivate maps length bytes of fd at off. MAP_NORESERVE: only written pages take memory, and those are bounded by
// the pool (I12), not by the kernel's bookkeeping.
func mapPrivate(fd int, off int64, length uint64) (uintptr, error) {
	addr, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, uintptr(length), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_NORESERVE, uintptr(fd), uintptr(off))
	if errno != 0 {
		return 0, errno
	}
	return addr, nil
}

// mapShared maps length bytes of anonymous memory that a forked child shares.
func mapShared(length uint64) (uintptr, error) {
	fd := -1
	addr, _, errno := unix.Syscall6(unix.SYS_MMAP, 0, uintptr(length), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE, uintptr(fd), 0)
	if errno != 0 {
		return 0, errno
	}
	return addr, nil
}

// remap makes a mapping longer; it may move.
func remap(addr uintptr, length, to uint64) (uintptr, error) {
	addr, _, errno := unix.Syscall6(unix.SYS_MREMAP, addr, uintptr(length), uintptr(to), unix.MREMAP_MAYMOVE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return addr, nil
}

// unmap ends a mapping. It can fail only for arguments that were never mapped.
func unmap(addr uintptr, length uint64) {
	_, _, _ = unix.Syscall(unix.SYS_MUNMAP, addr, uintptr(length), 0)
}

// forget drops private pages, in one call however many: 256 MiB take 7 ms so, 94 ms page by page.
func forget(addr uintptr, length uint64) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, addr, uintptr(length), unix.MADV_DONTNEED)
}

// copyIn stores data at addr, copyOut loads len(b) bytes from it. A page that the kernel cannot provide (a failing disk, a
// base file cut short under the mapping) raises SIGBUS, which SetPanicOnFault turns into a panic, and this into an error.
func copyIn(addr uintptr, data []byte) error {
	return guarded(func() { copy(memory(addr, len(data)), data) })
}

func copyOut(b []byte, addr uintptr) error {
	return guarded(func() { copy(b, memory(addr, len(b))) })
}

// memory makes a slice of mapped memory; it must not outlive the mapping.
//
//go:nocheckptr
func memory(addr uintptr, n int) []byte {
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&addr)), n)
}

func guarded(f func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, fault := r.(interface{ Addr() uintptr }); !fault {
				panic(r)
			}
			err = unix.EFAULT
		}
	}()
	f()
	return nil
}

// pwriteFrom writes length bytes of mapped memory to fd at off. A bad page is EFAULT, without a signal.
func pwriteFrom(fd int, addr uintptr, length, off int64) error {
	for length > 0 {
		n, _, errno := unix.Syscall6(unix.SYS_PWRITE64, uintptr(fd), addr, uintptr(length), uintptr(off), 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return errno
		case n == 0:
			return unix.EIO
		default:
			addr, length, off = addr+n, length-int64(n), off+int64(n)
		}
	}
	return nil
}

// readProcess copies from addr of process pid into b; ESRCH when the process has exited.
func readProcess(pid int, b []byte, addr uintptr) error {
	local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
	remote := []unix.RemoteIovec{{Base: addr, Len: len(b)}}
	n, err := unix.ProcessVMReadv(pid, local, remote, 0)
	if err != nil {
		return err
	}
	if n < len(b) {
		return unix.EFAULT
	}
	return nil
}

package cow

import (
	"syscall"
	"unsafe" // and go:linkname

	"golang.org/x/sys/unix"
)

// The law of the child (I8). What runs between the fork and the child's exit has one thread, a copy of the parent's
// memory at an arbitrary moment (locks held by threads that do not exist here, the garbage collector anywhere in its
// work), and a stack that must not grow. So everything in it
//
//   - is nosplit (the linker verifies the depth of the chain), takes no lock, allocates nothing, and stores no pointers, so
//     that no write barrier runs;
//   - is free of race-detector and checkptr calls (norace, nocheckptr);
//   - talks to the kernel by raw system calls only, and tests what they return, because nothing may panic.
//
// The runtime's fork hooks, which package syscall uses for fork and exec, block all signals around the fork; the
// child keeps them blocked, so that no Go signal handler ever runs in it. (SIGKILL cannot be blocked, and a fault
// while blocked ends the process: both are what we want.) gVisor's forkStub is the model; the names are on Go's list
// of linknames that are kept for such use.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

// childArgs is what the child needs to know, as plain numbers.
type childArgs struct {
	plan   uintptr
	gate   uintptr    // read end of the pipe on which it is let go; it ends where the parent dies before that
	base   uintptr    // descriptor of base/
	parent uintptr    // process id of the daemon
	keep   [3]uintptr // the descriptors to keep, ascending: gate, base and the store's lock (I9)
}

// Exit codes of a writer. The plan's header says more.
const (
	exitDone   = 0
	exitFailed = 1
	exitOrphan = 2 // the daemon died before it let the writer go
)

// forkWriter forks the daemon. It returns the child's process id in the parent; the child runs its plan and exits.
//
//go:norace
//go:nosplit
//go:nocheckptr
func forkWriter(a *childArgs) (pid uintptr, errno syscall.Errno) {
	beforeFork()
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	childMain(a)
	return 0, 0 // not reached
}

// childMain is all that a writer does. Its first act is to close what it does not need: above all /dev/fuse, which would
// keep a dead daemon's mount alive.
//
//go:norace
//go:nosplit
//go:nocheckptr
func childMain(a *childArgs) {
	next := uintptr(0)
	for i := 0; i < len(a.keep); i++ {
		if a.keep[i] > next {
			syscall.RawSyscall(unix.SYS_CLOSE_RANGE, next, a.keep[i]-1, 0)
		}
		next = a.keep[i] + 1
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, next, ^uintptr(0)>>32, 0)
	h := *(**planHeader)(unsafe.Pointer(&a.plan))
	syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(&h.name)), 0)
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, a.gate, uintptr(unsafe.Pointer(&h.scratch)), 1)
	if n != 1 || errno != 0 {
		childExit(exitOrphan)
	}
	childRun(a, h)
}

// childRun runs the steps. It goes on if the daemon dies meanwhile: every page that it overwrites was saved before it was let go
// (I1), and its lock keeps the next daemon away (I9), so to finish is as safe as to stop, and what was captured is not lost.
// Only an orphan does not sync: nobody is told that those bytes are durable, and the next daemon, which waits, syncs everything.
//
//go:norace
//go:nosplit
//go:nocheckptr
func childRun(a *childArgs, h *planHeader) {
	fd := ^uintptr(0)
	at := a.plan + PageSize
	for i := uint64(0); i < h.steps; i++ {
		s := *(**planStep)(unsafe.Pointer(&at))
		var errno syscall.Errno
		switch s.kind {
		case planOpen:
			fd, _, errno = syscall.RawSyscall6(syscall.SYS_OPENAT, a.base, s.addr, syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0, 0, 0)
		case planWrite:
			errno = childWrite(h, fd, s)
		case planSync:
			errno = childSync(a, syscall.SYS_FDATASYNC, fd)
		case planClose:
			_, _, errno = syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
		case planSyncFS:
			errno = childSync(a, unix.SYS_SYNCFS, a.base)
		}
		if errno != 0 {
			h.errno, h.atStep = uint64(errno), i
			h.status = planFailed
			childExit(exitFailed)
		}
		at += planStepSize
	}
	h.status = planDone
	childExit(exitDone)
}

// childSync makes the system call that syncs fd, unless the daemon is gone.
//
//go:norace
//go:nosplit
//go:nocheckptr
func childSync(a *childArgs, call, fd uintptr) syscall.Errno {
	if ppid, _, _ := syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0); ppid != a.parent {
		return 0
	}
	_, _, errno := syscall.RawSyscall(call, fd, 0, 0)
	return errno
}

// childChunk is how many bytes are written at a time, so that the daemon sees progress.
const childChunk = 4 << 20

//go:norace
//go:nosplit
//go:nocheckptr
func childWrite(h *planHeader, fd uintptr, s *planStep) syscall.Errno {
	addr, off, left := s.addr, uintptr(s.off), uintptr(s.n)
	for left > 0 {
		k := left
		if k > childChunk {
			k = childChunk
		}
		n, _, errno := syscall.RawSyscall6(syscall.SYS_PWRITE64, fd, addr, k, off, 0, 0)
		if errno != 0 {
			return errno
		}
		if n == 0 {
			return syscall.EIO
		}
		addr, off, left = addr+n, off+n, left-n
		h.done += uint64((n + PageSize - 1) / PageSize)
	}
	return 0
}

//go:norace
//go:nosplit
//go:nocheckptr
func childExit(code uintptr) {
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
	}
}

package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const socketName = "control.sock"

// socketPath names the socket in the open directory dir, in few bytes.
func socketPath(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName)
}

// openDir opens a directory only to name files in it.
func openDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// listen binds the socket in dir with mode 0600. The caller holds the store's lock (I9), so that a socket file that is there
// already belongs to a daemon that is dead.
func listen(dir *os.File) (*net.UnixListener, error) {
	err := unix.Unlinkat(int(dir.Fd()), socketName, 0)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return nil, fmt.Errorf("remove old %s/%s: %w", dir.Name(), socketName, err)
	}
	// The mode comes from the umask: a chmod after the bind would leave a moment in which anybody may connect.
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(dir), Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("bind %s/%s: %w", dir.Name(), socketName, bare(err))
	}
	l.SetUnlinkOnClose(false) // by its name, whose descriptor may mean another directory by then
	return l, nil
}

// peer returns the credentials of the process at the other end.
func peer(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, sockErr)
}

// connectLimit bounds how long a command waits for a daemon that does not answer at all.
const connectLimit = 5 * time.Second

package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fsName makes the mount's type fuse.snapfs.
const fsName = "snapfs"

const (
	devFuse    = "/dev/fuse"
	fusermount = "fusermount3"
)

// maxWrite bounds READ and WRITE requests, in bytes.
const maxWrite = 1 << 20

// maxBackground bounds the requests that the kernel has under way on its own account (read-ahead, write-back).
const maxBackground = 64

// connect mounts: root by mount(2), others through fusermount3.
func (m *Mount) connect() (*gofuse.Server, error) {
	if _, err := os.Stat(devFuse); err != nil {
		return nil, fmt.Errorf("%w: the kernel's FUSE support is missing (modprobe fuse)", err)
	}
	root := os.Geteuid() == 0
	if _, err := exec.LookPath(fusermount); err != nil && !root {
		return nil, fmt.Errorf("%w: mounting as a user needs %s, of the Debian package fuse3", syscall.ENOENT, fusermount)
	}
	// go-fuse opens the device without O_CLOEXEC. A process started meanwhile would inherit it, and keep a dead mount
	// alive: the lock is what os/exec holds off for.
	if root {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	server, err := gofuse.NewServer(newFace(m), m.opt.MountPoint, m.mountOptions(root))
	if err != nil {
		return nil, err
	}
	if err := sealDevice(); err != nil {
		return nil, errors.Join(err, disconnect(m.opt.MountPoint))
	}
	return server, nil
}

// capabilities that the kernel is asked for. With access control lists come DONT_MASK (the umask does not count where a
// directory has a default list) and SETXATTR_EXT (whether a new list clears the setgid bit). EXPORT_SUPPORT: see export.go.
//
// Not ATOMIC_O_TRUNC, with which open(O_TRUNC) is one request: Linux then forgets the size without the inode's lock (fuse_open, and once
// more in fuse_do_setattr). A write at that moment comes to lie behind a hole, or the next O_APPEND overwrites it, and what was stored to a
// mapping comes back. Without, it is OPEN and a SETATTR under the lock.
const capabilities = gofuse.CAP_HANDLE_KILLPRIV_V2 | gofuse.CAP_READDIRPLUS_AUTO |
	gofuse.CAP_DONT_MASK | gofuse.CAP_SETXATTR_EXT | gofuse.CAP_EXPORT_SUPPORT

// mountOptions says how the kernel is to treat the mount; the package comment says why it may cache so much.
func (m *Mount) mountOptions(root bool) *gofuse.MountOptions {
	o := &gofuse.MountOptions{
		FsName:                   m.opt.StorePath,
		Name:                     fsName,
		AllowOther:               root || m.opt.AllowOther,
		Options:                  []string{"default_permissions"},
		DirectMountStrict:        root,
		DirectMountFlags:         uintptr(m.opt.Flags) | unix.MS_NOSUID | unix.MS_NODEV,
		MaxWrite:                 maxWrite,
		MaxBackground:            maxBackground,
		DisableSplice:            true, // reads come from memory or by pread
		ExplicitDataCacheControl: true,
		EnableSymlinkCaching:     true,
		EnableAcl:                !m.opt.NoACL,
		ExtraCapabilities:        capabilities,
		DisabledCapabilities:     gofuse.CAP_PASSTHROUGH, // would go around copy-on-write
		Logger:                   log.New(goFuseLog{m.faults.log.Writer()}, m.faults.log.Prefix(), m.faults.log.Flags()),
		Debug:                    m.opt.Debug,
	}
	if m.opt.Writeback {
		o.ExtraCapabilities |= gofuse.CAP_WRITEBACK_CACHE
	}
	if m.opt.ReadOnly {
		o.DirectMountFlags |= unix.MS_RDONLY
	}
	if !root {
		o.Options = append(o.Options, Flags(o.DirectMountFlags).words()...)
	}
	if root && m.opt.Dev {
		o.Options = append(o.Options, "dev") // go-fuse takes the flag away again
	}
	if root && m.opt.Suid {
		o.Options = append(o.Options, "suid")
	}
	return o
}

// goFuseLog drops the line that go-fuse logs when a mount ends while a request is read: that is no failure.
type goFuseLog struct{ io.Writer }

func (l goFuseLog) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(syscall.ECONNABORTED.Error())) {
		return len(line), nil
	}
	return l.Writer.Write(line)
}

// sealDevice keeps the FUSE device from processes that we start.
func sealDevice() error {
	const fds = "/proc/self/fd"
	entries, err := os.ReadDir(fds)
	if err != nil {
		return err
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(fds, e.Name()))
		if err != nil || target != devFuse {
			continue // gone already, as the descriptor of this listing
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		unix.CloseOnExec(fd)
	}
	return nil
}

// readAhead is how much the kernel reads ahead of a sequential reader, in KiB: half as fast again as its default of 128.
const readAhead = "1024"

// widenReadAhead sets readAhead for a mount; the protocol cannot. Only root may, others do without.
func widenReadAhead(mountPoint string) {
	var st unix.Stat_t
	if err := unix.Stat(mountPoint, &st); err != nil {
		return
	}
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	_ = os.WriteFile(path, []byte(readAhead), 0) // nothing but speed is lost
}

// disconnect unmounts what is mounted at path.
func disconnect(path string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(fusermount, "-u", path)
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(stderr.String())
	if strings.Contains(text, "busy") {
		return fmt.Errorf("%s: %w", text, syscall.EBUSY)
	}
	return errors.Join(err, errors.New(text))
}

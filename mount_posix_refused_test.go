package snapfs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ioctl requests and flags that package unix has not.
const (
	fifreeze       = 0xC0045877
	fiemap         = 0xC020660B
	fitrim         = 0xC0185879
	fsGetFlags     = 0x80086601
	fsSetFlags     = 0x40086602
	fsGetVersion   = 0x80087601
	fsGetXattr     = 0x801C581F
	fsShutdown     = 0x8004587D
	fsSetLabel     = 0x41009432
	fsEnableVerity = 0x40806685
	fsSetPolicy    = 0x400C6613
	rwfAtomic      = 0x40
	rwfDontCache   = 0x80
	mapSync        = 0x80000
)

// refusal is a call that snapfs refuses although a file system could do it, with the errno that the caller gets.
type refusal struct {
	doc   string // the first cell of its row in docs/posix.md
	errno syscall.Errno
	call  func(s stage) error
}

// stage is what refused calls are tried on: a file and a directory that are open, by descriptor and by path, and a snapshot.
type stage struct {
	m         *mounted
	file, dir int
	path      string
}

func (s stage) ioctl(request uint) error { return ioctlBytes(s.file, request, make([]byte, 256)) }

var refusals = []refusal{
	{"Reflinks: `FICLONE`, `cp --reflink=always`", unix.EOPNOTSUPP, func(s stage) error { return unix.IoctlFileClone(s.file, s.file) }},
	{"Swap files: `swapon`", unix.EINVAL, func(s stage) error { return swapon(s.path) }},
	{"Flags of files: `FS_IOC_GETFLAGS`, `lsattr`", unix.ENOTTY, func(s stage) error { return s.ioctl(fsGetFlags) }},
	{"Flags of files: `FS_IOC_SETFLAGS`, `chattr`", unix.ENOTTY, func(s stage) error { return s.ioctl(fsSetFlags) }},
	{"Project ids and extent hints: `FS_IOC_FSGETXATTR`", unix.ENOTTY, func(s stage) error { return s.ioctl(fsGetXattr) }},
	{"Generation by ioctl: `FS_IOC_GETVERSION`", unix.ENOTTY, func(s stage) error { return s.ioctl(fsGetVersion) }},
	{"Extent maps: `FS_IOC_FIEMAP`, `filefrag`", unix.EOPNOTSUPP, func(s stage) error { return s.ioctl(fiemap) }},
	{"Freezing: `FIFREEZE`, `fsfreeze`", unix.EOPNOTSUPP, func(s stage) error { return s.ioctl(fifreeze) }},
	{"Discarding: `FITRIM`, `fstrim`", unix.ENOTTY, func(s stage) error { return s.ioctl(fitrim) }},
	{"Labels: `FS_IOC_SETFSLABEL`", unix.ENOTTY, func(s stage) error { return s.ioctl(fsSetLabel) }},
	{"Shutting down: `FS_IOC_SHUTDOWN`", unix.ENOTTY, func(s stage) error { return s.ioctl(fsShutdown) }},
	{"Encryption by the file system: `FS_IOC_SET_ENCRYPTION_POLICY`", unix.ENOTTY, func(s stage) error { return s.ioctl(fsSetPolicy) }},
	{"Verity: `FS_IOC_ENABLE_VERITY`", unix.ENOTTY, func(s stage) error { return s.ioctl(fsEnableVerity) }},
	{"Any other ioctl of a file system", unix.ENOTTY, func(s stage) error { return s.ioctl(0x5A5A) }},
	{"Quota: `quotactl`", unix.ENOSYS, func(s stage) error { return quotactlFd(s.file) }},
	{"`fallocate` with `FALLOC_FL_COLLAPSE_RANGE`", unix.EOPNOTSUPP, func(s stage) error {
		return unix.Fallocate(s.file, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096)
	}},
	{"`fallocate` with `FALLOC_FL_INSERT_RANGE`", unix.EOPNOTSUPP, func(s stage) error {
		return unix.Fallocate(s.file, unix.FALLOC_FL_INSERT_RANGE, 0, 4096)
	}},
	{"`fallocate` with `FALLOC_FL_UNSHARE_RANGE`", unix.EOPNOTSUPP, func(s stage) error {
		return unix.Fallocate(s.file, unix.FALLOC_FL_UNSHARE_RANGE, 0, 4096)
	}},
	{"Writes that do not tear: `RWF_ATOMIC`", unix.EOPNOTSUPP, func(s stage) error { return pwritev2(s.file, rwfAtomic) }},
	{"Writes that are not cached: `RWF_DONTCACHE`", unix.EOPNOTSUPP, func(s stage) error { return pwritev2(s.file, rwfDontCache) }},
	{"Writes that do not wait: `RWF_NOWAIT`", unix.EOPNOTSUPP, func(s stage) error { return pwritev2(s.file, unix.RWF_NOWAIT) }},
	{"Persistent memory: `MAP_SYNC`", unix.EOPNOTSUPP, func(s stage) error {
		_, err := unix.Mmap(s.file, 0, 4096, unix.PROT_READ, unix.MAP_SHARED_VALIDATE|mapSync)
		return err
	}},
	{"Watching a whole file system by file handles: `FAN_MARK_FILESYSTEM` with `FAN_REPORT_FID`", unix.ENODEV, fanotifyByHandle},
	{"Idmapped mounts: `mount_setattr` with `MOUNT_ATTR_IDMAP`", unix.EINVAL, idmapped},
	{"Anything in a snapshot that would change it", unix.EROFS, func(s stage) error { return os.WriteFile(s.m.frozen("s", "file"), nil, 0) }},
	{"A hard link between a snapshot and the live tree", unix.EXDEV, func(s stage) error { return os.Link(s.m.frozen("s", "file"), s.m.live("hard")) }},
	{"A name `.snapshots` in the root", unix.EEXIST, func(s stage) error { return os.Mkdir(s.m.live(".snapshots"), 0o755) }},
	{"Removing or renaming `.snapshots`", unix.EBUSY, func(s stage) error { return os.Rename(s.m.live(".snapshots"), s.m.live("x")) }},
	{"Making anything but a directory in `.snapshots`", unix.EPERM, func(s stage) error { return os.WriteFile(s.m.frozen("file"), nil, 0o644) }},
	{"Moving something into `.snapshots`", unix.EPERM, func(s stage) error { return os.Rename(s.path, s.m.frozen("file")) }},
}

func pwritev2(fd, flags int) error {
	_, err := unix.Pwritev2(fd, [][]byte{[]byte("x")}, 0, flags)
	return err
}

func fanotifyByHandle(s stage) error {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_REPORT_FID|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_CREATE|unix.FAN_ONDIR, s.dir, "")
}

// idmapped asks for a copy of the mount with other owners.
func idmapped(s stage) error {
	other := exec.Command("sleep", "100")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100_000, Size: 1000}}
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if err := other.Start(); err != nil {
		return err
	}
	defer func() { _, _ = other.Process.Kill(), other.Wait() }()
	users, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", other.Process.Pid))
	if err != nil {
		return err
	}
	defer users.Close()
	tree, err := unix.OpenTree(s.dir, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users.Fd())})
}

// TestRefused: each call of the table fails with the errno that the docs promise, and changes nothing.
func TestRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("some of these calls are root's")
	}
	dir, err := unix.Open(newExt4(t), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	need(t, err)
	if err := errors.Join(idmapped(stage{dir: dir}), unix.Close(dir)); err != nil {
		t.Errorf("idmapping does not even work on ext4: %v", err) // then its refusal means nothing
	}
	m := newMount(t)
	writeFile(t, m.live("file"), string(make([]byte, 64<<10)))
	m.snapshot("s")
	before := readTree(t, m.mnt)
	for _, r := range refusals {
		t.Run(r.doc, func(t *testing.T) {
			s := stage{m: m, path: m.live("file")}
			var err, failed error
			s.file, err = unix.Open(s.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			s.dir, failed = unix.Open(m.mnt, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			need(t, errors.Join(err, failed))
			defer unix.Close(s.file)
			defer unix.Close(s.dir)
			wantErrno(t, "the call", r.call(s), r.errno)
			wantSameTree(t, "after it", before, readTree(t, m.mnt), everything&^aspectAtime)
		})
	}
}

package snapfs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// onSmallDisk puts the store on a file system of its own.
func onSmallDisk(m *mounted) {
	if os.Geteuid() != 0 {
		m.t.Skip("only root can mount images")
	}
	dir := m.t.TempDir()
	image, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	need(m.t, os.Mkdir(disk, 0o700))
	for _, command := range [][]string{{"truncate", "-s", "64M", image}, {"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, disk}} {
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err != nil {
			m.t.Fatalf("%v: %v: %s", command, err, out)
		}
	}
	m.t.Cleanup(func() { need(m.t, exec.Command("umount", disk).Run()) })
	m.storeDir = filepath.Join(disk, "store")
	m.opt.StorePath = m.storeDir
}

// fillDisk has somebody else take all room on the disk of the store, until cure.
func (m *mounted) fillDisk() (cure func()) {
	m.t.Helper()
	path := filepath.Join(filepath.Dir(m.storeDir), "filler")
	f, err := os.Create(path)
	need(m.t, err)
	defer f.Close()
	for n := 1 << 20; n >= 512; {
		if _, err := f.Write(make([]byte, n)); err != nil {
			n /= 2
		}
	}
	return func() { need(m.t, os.Remove(path)) }
}

// failSnapshot has a snapshot fail for lack of room.
func (m *mounted) failSnapshot(name string) (cure func()) {
	m.t.Helper()
	cure = m.fillDisk()
	_, err := m.mount.Snapshot(snapshot.Request{Name: name})
	wantErrno(m.t, "snapshot", err, unix.ENOSPC)
	return cure
}

func (m *mounted) wantMode(want string) {
	m.t.Helper()
	status, err := m.mount.Status()
	need(m.t, err)
	if status.Mode != want {
		m.t.Errorf("the mode is %s, want %s", status.Mode, want)
	}
}

// TestStopWritesOnError: after a failed snapshot nothing can be changed, until one succeeds.
func TestStopWritesOnError(t *testing.T) {
	m := newMount(t, onSmallDisk, func(m *mounted) { m.storeOpt.StopOnError = true })
	writeFile(t, m.live("f"), "first")
	open, err := os.OpenFile(m.live("f"), os.O_RDWR, 0)
	need(t, err)
	t.Cleanup(func() { _ = open.Close() }) // else the mount stays busy
	m.snapshot("before")
	cure := m.failSnapshot("fails")
	m.wantMode("ro-after-error")
	status, err := m.mount.Status()
	need(t, err)
	if !strings.Contains(status.ModeReason, "fails") {
		t.Errorf("the status says %q, and not which snapshot failed", status.ModeReason)
	}
	for what, change := range map[string]func() error{
		"create":    func() error { return os.WriteFile(m.live("new"), nil, 0o600) },
		"open":      func() error { return appendTo(m.live("f"), "more") },
		"write":     func() error { _, err := open.WriteAt([]byte("x"), 0); return err },
		"fallocate": func() error { return unix.Fallocate(int(open.Fd()), 0, 0, 100_000) },
		"truncate":  func() error { return open.Truncate(0) },
		"chmod":     func() error { return os.Chmod(m.live("f"), 0o600) },
		"setxattr":  func() error { return unix.Setxattr(m.live("f"), "user.x", nil, 0) },
		"unlink":    func() error { return os.Remove(m.live("f")) },
		"rename":    func() error { return os.Rename(m.live("f"), m.live("g")) },
		"mkdir":     func() error { return os.Mkdir(m.live("d"), 0o700) },
	} {
		wantErrno(t, what, change(), unix.EROFS)
	}
	wantFile(t, m.live("f"), "first")
	wantFile(t, m.frozen("before", "f"), "first")
	cure()
	m.snapshot("succeeds")
	m.wantMode("rw")
	writeFile(t, m.live("new"), "works")
	need(t, open.Close())
	m.remount()
	wantFile(t, m.live("f"), "first")
	wantFile(t, m.frozen("before", "f"), "first")
	wantFile(t, m.frozen("succeeds", "f"), "first")
}

// TestFailedSnapshotGoesOn: without the option the tree goes on, and the status says what happened.
func TestFailedSnapshotGoesOn(t *testing.T) {
	m := newMount(t, onSmallDisk)
	writeFile(t, m.live("f"), "first")
	m.snapshot("before")
	cure := m.failSnapshot("fails")
	m.wantMode("rw")
	status, err := m.mount.Status()
	need(t, err)
	if status.FailedSnapshots != 1 || status.Last == nil || !strings.HasPrefix(status.Last.Status, "failed: ") {
		t.Errorf("the status says %d failed, last %+v", status.FailedSnapshots, status.Last)
	}
	wantErrno(t, "create", os.WriteFile(m.live("new"), nil, 0o600), unix.ENOSPC)
	need(t, os.Chmod(m.live("f"), 0o600))
	cure()
	writeFile(t, m.live("new"), "works")
	m.snapshot("succeeds")
	wantFile(t, m.frozen("succeeds", "new"), "works")
}

// TestFailureInBackground: the metadata store cannot write its tables, although its log is well. Who writes gets EIO, and the status and
// the log say why; reading goes on, unmounting works, and the next mount is as ever.
func TestFailureInBackground(t *testing.T) {
	var failing atomic.Bool
	m := newMount(t, func(m *mounted) {
		m.damaged = true
		m.storeOpt.MetaFault = func(op, path string) error {
			if failing.Load() && strings.HasSuffix(path, ".sst") {
				return fmt.Errorf("%s %s: %w", op, filepath.Base(path), unix.EIO)
			}
			return nil
		}
	})
	writeFile(t, m.live("f"), "first")
	m.snapshot("before")
	failing.Store(true)
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = unix.Setxattr(m.live("f"), fmt.Sprint("user.", i%100), make([]byte, 60_000), 0)
	}
	wantErrno(t, "setxattr", err, unix.EIO)
	answered(t, func() {
		wantErrno(t, "create", os.WriteFile(m.live("new"), nil, 0o600), unix.EIO)
		wantErrno(t, "mkdir .snapshots", os.Mkdir(m.frozen("meanwhile"), 0o700), unix.EIO)
		wantFile(t, m.live("f"), "first")
		wantFile(t, m.frozen("before", "f"), "first")
	})
	m.wantMode("ro-after-error")
	status, err := m.mount.Status()
	need(t, err)
	if !strings.Contains(status.ModeReason, ".sst") {
		t.Errorf("the status says %q", status.ModeReason)
	}
	answered(t, func() {
		for log := ""; !strings.Contains(log, ".sst"); time.Sleep(time.Millisecond) {
			m.mu.Lock()
			log = fmt.Sprint(m.reported)
			m.mu.Unlock()
		}
	})
	answered(t, func() { need(t, m.mount.Unmount()) })
	if err := m.store.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("close: %v, want EIO", err)
	}
	failing.Store(false)
	m.start()
	m.wantMode("rw")
	wantFile(t, m.live("f"), "first")
	wantFile(t, m.frozen("before", "f"), "first")
	writeFile(t, m.live("new"), "works")
	m.snapshot("after")
}

// TestAbortOfAMountThatIsGone: it does not end the connection of another one, which has the number by now.
func TestAbortOfAMountThatIsGone(t *testing.T) {
	m := newMount(t)
	device := deviceOf(t, m.mnt)
	gone := m.mount
	m.remount()
	if deviceOf(t, m.mnt) != device {
		t.Skip("the new mount has a new number")
	}
	need(t, gone.Abort())
	writeFile(t, filepath.Join(m.mnt, "file"), "data")
}

func deviceOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	need(t, unix.Stat(path, &st))
	return st.Dev
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/snapfs/snapfs/fs/control"
)

// TestDaemonThatCannotDie kills a daemon while it waits in the kernel for the lock of .snapshots, which somebody has who waits for the
// daemon. The next mount frees them all, and so does umount.
func TestDaemonThatCannotDie(t *testing.T) {
	for _, by := range []string{"mount", "umount"} {
		t.Run(by, func(t *testing.T) { testDaemonThatCannotDie(t, by) })
	}
}

func testDaemonThatCannotDie(t *testing.T, by string) {
	if _, err := os.Stat("/sys/fs/fuse/connections"); err != nil || os.Geteuid() != 0 {
		t.Skip("only root, where fusectl is mounted, can end a connection")
	}
	p := newPlace(t)
	p.mount(t, "flush_interval=1h")
	write(t, p.in("file"), oldBytes)
	snapfs(t, "snapshot", p.point, "before").ok()
	write(t, p.in("more"), "more")
	f, err := os.OpenFile(p.in("file"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(youngBytes)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	daemon := p.daemon(t)
	ended := make(chan struct{})
	slow := command("snapshot", p.point, "slow")
	if err := slow.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { slow.Wait(); close(ended) }()
	writer := stopWriter(daemon, ended)
	if writer == 0 {
		t.Skip("the writer was too quick")
	}
	t.Cleanup(func() { syscall.Kill(writer, syscall.SIGKILL) })
	remover := exec.Command("rmdir", p.in(".snapshots/before")) // waits for its turn, with the lock
	if err := remover.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "rmdir", func() bool { return waitsIn(remover.Process.Pid, "request_wait_answer") })
	teller := command("snapshot", "--no-wait", p.point, "told") // the daemon tells the kernel of it
	if err := teller.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the notification", func() bool { return waitsIn(daemon, "fuse_reverse_inval_entry") })
	syscall.Kill(daemon, syscall.SIGKILL)
	t.Cleanup(func() { abortAt(t, p.point) }) // where the test fails
	time.Sleep(100 * time.Millisecond)
	if !isDying(daemon) {
		t.Errorf("process %d is not dying", daemon)
	}
	syscall.Kill(writer, syscall.SIGCONT)
	if by == "umount" {
		snapfs(t, "umount", p.point).ok()
	}
	snapfs(t, "mount", p.store, p.point).ok()
	if err := remover.Wait(); err == nil {
		t.Error("rmdir succeeded")
	}
	<-ended
	_ = teller.Wait()
	wantFile(t, p.at("before", "file"), oldBytes)
}

// abortAt ends the connection of the mount at point.
func abortAt(t *testing.T, point string) {
	t.Helper()
	mounts, err := control.Mounts()
	if err != nil {
		t.Error(err)
	}
	for _, m := range mounts {
		if m.Point == point && m.Type == control.FSType {
			abortConnection(m)
		}
	}
}

// waitsIn reports whether a thread of a process waits in a function of the kernel.
func waitsIn(pid int, function string) bool {
	threads, _ := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	for _, thread := range threads {
		if text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + thread.Name() + "/wchan"); err == nil && string(text) == function {
			return true
		}
	}
	return false
}

// twoAlike mounts two new tmpfs, whose inodes have the same numbers.
func twoAlike(t *testing.T) (one, two string) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a tmpfs")
	}
	one, two = t.TempDir(), t.TempDir()
	for _, dir := range []string{one, two} {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	}
	return one, two
}

// TestLockHolderOfTheOtherStore: who holds the lock of one store is not taken for the daemon of another, whose connection would be ended
// with him.
func TestLockHolderOfTheOtherStore(t *testing.T) {
	one, two := twoAlike(t)
	inos := map[uint64]bool{}
	for _, dir := range []string{one, two} {
		lock, err := os.Create(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		var st syscall.Stat_t
		if err := syscall.Fstat(int(lock.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		inos[st.Ino] = true
		if dir == one {
			err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(inos) != 1 {
		t.Skip("the two file systems number their inodes differently")
	}
	if pid, ok := lockHolder(one); !ok || pid != os.Getpid() {
		t.Errorf("the lock is held by %d, %v, not by %d", pid, ok, os.Getpid())
	}
	if pid, ok := lockHolder(two); ok {
		t.Errorf("nobody holds the lock, not %d", pid)
	}
}

// TestAbortOfACoveredMount: where there is no fusectl, the file system that somebody has mounted over a mount is not unmounted for it.
func TestAbortOfACoveredMount(t *testing.T) {
	_, dir := twoAlike(t)
	below, err := control.FindAny(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	write(t, filepath.Join(dir, "precious"), "data")
	below.Minor = 1<<20 - 1 // of no connection
	abortConnection(below)
	if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
		t.Errorf("the file system over the mount is gone: %v", err)
	}
}

package main

import (
	"os"
	"os/exec"
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

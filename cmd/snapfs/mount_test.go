package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

func TestMountMakesDirectories(t *testing.T) {
	p := newPlace(t)
	p.store, p.point = filepath.Join(p.dir, "a/b/store"), filepath.Join(p.dir, "c/d/mnt")
	p.mount(t)
	write(t, p.in("file"), "hello")
	snapfs(t, "umount", p.point).ok()
	if _, ok := lockHolder(p.store); ok {
		t.Error("the store is still locked after umount")
	}
	if _, err := os.Stat(filepath.Join(p.store, "control.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	p.mount(t)
	wantFile(t, p.in("file"), "hello")
	snapfs(t, "umount", p.in("file")).ok() // any path inside will do
}

// TestMountByMount8 mounts as mount(8) asks a file system's program to.
func TestMountByMount8(t *testing.T) {
	p := newPlace(t)
	snapfs(t, p.store, p.point, "-o", "rw,nosuid,nodev,nofail,_netdev,x-systemd.automount,snapdir=visible").ok()
	entries, err := os.ReadDir(p.point)
	if err != nil || len(entries) != 1 || entries[0].Name() != ".snapshots" {
		t.Errorf("the root has %v, %v", entries, err)
	}
}

func TestMountForeground(t *testing.T) {
	p := newPlace(t)
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		cmd := command("mount", "-f", p.store, p.point)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 1000)
		n, err := out.Read(line)
		if want := "snapfs: " + p.store + " is mounted at " + p.point + "\n"; err != nil || string(line[:n]) != want {
			t.Errorf("it said %q, %v", line[:n], err)
		}
		write(t, p.in("file"), "written before "+sig.String())
		cmd.Process.Signal(sig)
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v: %v", sig, err)
		}
		p.mount(t)
		wantFile(t, p.in("file"), "written before "+sig.String())
		snapfs(t, "umount", p.point).ok()
	}
}

func TestNoExecMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can add noexec")
	}
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("script"), "#!/bin/sh\n")
	if err := os.Chmod(p.in("script"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(p.in("script")).Run(); err != nil {
		t.Error(err)
	}
	snapfs(t, "umount", p.point).ok()
	p.mount(t, "noexec")
	if err := exec.Command(p.in("script")).Run(); !isErrno(err, syscall.EACCES) {
		t.Errorf("with noexec: %v", err)
	}
}

func TestReadOnlyMount(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "x")
	snapfs(t, "umount", p.point).ok()
	p.mount(t, "ro")
	wantFile(t, p.in("file"), "x")
	if err := os.WriteFile(p.in("other"), nil, 0o644); !isErrno(err, syscall.EROFS) {
		t.Errorf("a write: %v", err)
	}
	snapfs(t, "snapshot", p.point, "s").fails(control.Failed, "read-only")
}

// TestSignalWhileBusy: a signalled daemon ends within seconds although somebody is in the mount, and loses nothing.
func TestSignalWhileBusy(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	f, err := os.Create(p.in("file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("kept"); err != nil {
		t.Fatal(err)
	}
	mapping, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapping)
	copy(mapping, "KE") // which only the kernel knows of yet
	pid := p.daemon(t)
	start := time.Now()
	syscall.Kill(pid, syscall.SIGTERM)
	eventually(t, "the daemon's end", func() bool { _, ok := lockHolder(p.store); return !ok })
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("ending took %v", took)
	}
	if _, err := f.WriteString("late"); err == nil {
		t.Error("a write after the end succeeded")
	}
	p.mount(t)
	wantFile(t, p.in("file"), "KEpt")
}

// TestSignalWhileElsewhere: a signalled daemon ends the connection also where the mount goes on in another mount namespace, before it closes
// the store.
func TestSignalWhileElsewhere(t *testing.T) {
	needRoot(t)
	needFusectl(t)
	p := newPlace(t)
	p.mount(t)
	writer := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", "exec 3>file; echo kept >&3; echo; while echo more >&3; do :; done")
	writer.Dir = p.point
	out, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	defer writer.Process.Kill()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(p.daemon(t), syscall.SIGTERM)
	eventually(t, "the daemon's end", func() bool { _, ok := lockHolder(p.store); return !ok })
	writer.Wait()
	wantNotHeld(t, p)
}

// TestSignalWhileCovered: what somebody has mounted over the mount is not ours to unmount.
func TestSignalWhileCovered(t *testing.T) {
	needRoot(t)
	needFusectl(t)
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "below")
	pid := p.daemon(t)
	if err := unix.Mount("none", p.point, "tmpfs", 0, "size=1M"); err != nil {
		t.Fatal(err)
	}
	covered := true
	defer func() {
		if covered {
			detach(p.point)
		}
	}()
	write(t, p.in("precious"), "above")
	syscall.Kill(pid, syscall.SIGTERM)
	eventually(t, "the daemon's end", func() bool { _, ok := lockHolder(p.store); return !ok })
	wantNotHeld(t, p)
	wantFile(t, p.in("precious"), "above")
	if err := detach(p.point); err != nil {
		t.Fatal(err)
	}
	covered = false
	p.mount(t) // which cleans the dead mount away
	wantFile(t, p.in("file"), "below")
}

// needFusectl skips a test where connections cannot be aborted.
func needFusectl(t *testing.T) {
	t.Helper()
	const magic = 0x65735543 // FUSE_CTL_SUPER_MAGIC in fs/fuse/control.c
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/fuse/connections", &st); err != nil || st.Type != magic {
		t.Skip("fusectl is not mounted at /sys/fs/fuse/connections")
	}
}

// wantNotHeld checks that the daemon of a place ended after its connection had.
func wantNotHeld(t *testing.T, p place) {
	t.Helper()
	log, err := os.ReadFile(logPath(p.store))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "still holds") {
		t.Errorf("the store was closed while the kernel had the mount:\n%s", log)
	}
}

func TestUmountBusy(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	if err := os.Mkdir(p.in("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("sleep", "1000")
	sleeper.Dir = p.in("dir")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	r := snapfs(t, "umount", p.point)
	r.fails(control.Refused, p.point+" is busy", "sleep (process "+strconv.Itoa(sleeper.Process.Pid)+")", p.in("dir"), "cwd")
	write(t, p.in("still"), "served")
	sleeper.Process.Kill()
	sleeper.Wait()

	f, err := os.Open(p.in("still"))
	if err != nil {
		t.Fatal(err)
	}
	snapfs(t, "umount", p.point).fails(control.Refused, "process "+strconv.Itoa(os.Getpid()), p.in("still"), "fd "+strconv.Itoa(int(f.Fd())))
	mapping, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ, unix.MAP_SHARED)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	snapfs(t, "umount", p.point).fails(control.Refused, "process "+strconv.Itoa(os.Getpid()), p.in("still"), "map")
	unix.Munmap(mapping)

	// The command itself, given from inside, is not in the way.
	cmd := command("umount", ".")
	cmd.Dir = p.point
	finish(t, cmd).ok()
}

// TestKilledDaemon: the mount of a killed daemon answers ENOTCONN, is recognised as dead, and the next one has all that was flushed.
func TestKilledDaemon(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "first")
	snapfs(t, "snapshot", p.point, "before").ok()
	f, err := os.Create(p.in("file"))
	if err == nil {
		_, err = f.WriteString("second")
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	syscall.Kill(p.daemon(t), syscall.SIGKILL)
	eventually(t, "ENOTCONN", func() bool {
		_, err := os.Open(p.in("file"))
		return isErrno(err, syscall.ENOTCONN)
	})
	snapfs(t, "status", p.point).fails(control.NoMount)
	snapfs(t, "snapshot", p.point, "x").fails(control.NoMount)
	p.mount(t)
	wantFile(t, p.in("file"), "second")
	wantFile(t, p.at("before", "file"), "first")
	if mounts := mountsAt(t, p.point); mounts != 1 {
		t.Errorf("%d mounts at the mount point, want 1", mounts)
	}
	syscall.Kill(p.daemon(t), syscall.SIGKILL)
	eventually(t, "ENOTCONN", func() bool { return isDead(p.point) })
	snapfs(t, "umount", p.in("file")).ok()
	if mounts := mountsAt(t, p.point); mounts != 0 {
		t.Errorf("%d mounts left by umount", mounts)
	}
}

// TestMountWaitsForEnding: umount(8) returns before the daemon has exited; a mount that follows at once waits for it.
func TestMountWaitsForEnding(t *testing.T) {
	p := newPlace(t)
	for i := range 5 {
		p.mount(t)
		write(t, p.in("file"), strings.Repeat("x", 1<<20)+strconv.Itoa(i))
		if err := unmount(p.point); err != nil {
			t.Fatal(err)
		}
	}
	p.mount(t)
	wantFile(t, p.in("file"), strings.Repeat("x", 1<<20)+"4")
}

// unmount unmounts as umount(8) does.
func unmount(point string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(point, 0)
	}
	return exec.Command("fusermount3", "-u", "--", point).Run()
}

func mountsAt(t *testing.T, point string) (n int) {
	t.Helper()
	mounts, err := control.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.Point == point {
			n++
		}
	}
	return n
}

func isErrno(err error, want syscall.Errno) bool {
	return err != nil && bareErrno(err) == want
}

// TestStrangePaths: what the mount table escapes, and a path that is too long for a socket address.
func TestStrangePaths(t *testing.T) {
	p := newPlace(t)
	strange := filepath.Join(p.dir, "with space", `back\slash,comma`, "new\nline", "Ünïcode", strings.Repeat("long", 30))
	p.store, p.point = filepath.Join(strange, "store"), filepath.Join(strange, "mnt")
	p.mount(t)
	write(t, p.in("file"), "x")
	if out := snapfs(t, "snapshot", p.in("file"), "s p a c e").ok(); out != "s p a c e\n" {
		t.Errorf("snapshot printed %q", out)
	}
	wantFile(t, p.at("s p a c e", "file"), "x")
	snapfs(t, "mount", p.store, filepath.Join(p.dir, "other")).fails(control.Refused, "locked by process")
	snapfs(t, "umount", p.point).ok()
	snapfs(t, "check", p.store).ok()
}

// TestMountAtOnce: of several mounts of one new store at the same time one wins, and the others are refused.
func TestMountAtOnce(t *testing.T) {
	p := newPlace(t)
	const many = 4
	results := make(chan result, many)
	for i := range many {
		go func() { results <- snapfs(t, "mount", p.store, filepath.Join(p.dir, "mnt"+strconv.Itoa(i))) }()
	}
	won := 0
	for range many {
		if r := <-results; r.code == control.Done {
			won++
		} else {
			r.fails(control.Refused, "locked by process")
		}
	}
	if won != 1 {
		t.Errorf("%d mounts of one store", won)
	}
	names, err := filepath.Glob(filepath.Join(p.dir, "mnt*"))
	if err != nil || len(names) != 1 {
		t.Errorf("mount points left: %v, %v", names, err)
	}
}

// TestUmountWhileSnapshot: umount lets a snapshot that has begun become durable.
func TestUmountWhileSnapshot(t *testing.T) {
	p := newPlace(t)
	p.mount(t, "flush_interval=1h")
	old, young := strings.Repeat("old.", 8<<20), strings.Repeat("new.", 8<<20)
	write(t, p.in("file"), old)
	snapfs(t, "snapshot", p.point, "before").ok()
	f, err := os.OpenFile(p.in("file"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(young)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	snapfs(t, "snapshot", "--no-wait", p.point, "during").ok()
	snapfs(t, "umount", p.point).ok()
	p.mount(t)
	infos := lines[snapshot.Info](t, snapfs(t, "list", "--json", p.point).ok())
	if len(infos) != 2 || infos[1].Name != "during" || infos[1].State != snapshot.Durable {
		t.Errorf("the list is %+v", infos)
	}
	wantFile(t, p.at("before", "file"), old)
	wantFile(t, p.at("during", "file"), young)
	wantFile(t, p.in("file"), young)
}

// TestKilledDuringSnapshot: the daemon dies while a writer is at work. The next mount waits for the orphan, and what was durable is whole.
func TestKilledDuringSnapshot(t *testing.T) {
	p := newPlace(t)
	p.mount(t, "flush_interval=1h")
	old, young := strings.Repeat("old.", 8<<20), strings.Repeat("new.", 8<<20)
	write(t, p.in("file"), old)
	snapfs(t, "snapshot", p.point, "before").ok()
	f, err := os.OpenFile(p.in("file"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(young)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	snapfs(t, "snapshot", "--no-wait", p.point, "during").ok()
	syscall.Kill(p.daemon(t), syscall.SIGKILL)
	eventually(t, "ENOTCONN", func() bool { return isDead(p.point) })
	if r := snapfs(t, "mount", p.store, p.point); r.code != control.Done { // it may say that it waits
		t.Fatal(r.stderr)
	}
	wantFile(t, p.at("before", "file"), old)
	infos := lines[snapshot.Info](t, snapfs(t, "list", "--json", p.point).ok())
	for _, info := range infos {
		if info.State != snapshot.Durable {
			t.Errorf("after recovery: %+v", info)
		}
	}
	if len(infos) == 2 { // it was durable before the kill
		wantFile(t, p.at("during", "file"), young)
	}
	snapfs(t, "snapshot", p.point, "after").ok()
}

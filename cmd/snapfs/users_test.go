package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/snapfs/snapfs/fs/control"
)

// Users that every system has: fusermount3 wants to know their names.
const (
	daemonUser = 1
	nobody     = 65534
)

// stranger is somebody without rights, who mounts a store of his own by fusermount3.
type stranger struct {
	t   *testing.T
	uid uint32
}

// own makes the command run as the user.
func (u stranger) own(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.uid}}
	cmd.Dir = "/"
	return cmd
}

func (u stranger) snapfs(args ...string) result {
	u.t.Helper()
	return finish(u.t, u.own(command(args...)))
}

// sh runs a script as the user, which ends with its first failure.
func (u stranger) sh(dir, script string) {
	u.t.Helper()
	if out, err := u.own(exec.Command("sh", "-ec", "cd "+dir+"\n"+script)).CombinedOutput(); err != nil {
		u.t.Errorf("user %d: %v: %s\nin: %s", u.uid, err, out, script)
	}
}

// ownDevice is in the environment of a test that runs where everybody may open /dev/fuse.
const ownDevice = "SNAPFS_TEST_OWN_DEVICE"

// withOpenDevice runs a test where users may open /dev/fuse. If they may not on this machine, that is a mount namespace of its own, with
// another device file in the place of the real one: it reports false then, and the test is over.
func withOpenDevice(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	info, err := os.Stat("/dev/fuse")
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o006 == 0o006 {
		return true
	}
	if os.Getenv(ownDevice) != "" {
		t.Fatal("/dev/fuse is still closed")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := `mount -t tmpfs none "$1" && mknod -m 666 "$1/fuse" c 10 229 && mount --bind "$1/fuse" /dev/fuse || exit 99
		shift; exec "$@"`
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", dir,
		self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), ownDevice+"=1")
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil && cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 99:
		t.Skipf("users may not open /dev/fuse here, and it cannot be replaced: %s", out)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Errorf("the test did not run:\n%s", out)
	}
	return false
}

// userPlace is a place that belongs to a user.
func userPlace(t *testing.T, u stranger) place {
	t.Helper()
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Fatal("fusermount3 is missing (Debian package fuse3)")
	}
	p := newPlace(t)
	if err := os.Chmod(filepath.Dir(p.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(p.dir, int(u.uid), int(u.uid)); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTourOfUser: a user mounts, and does with the mount what can be done. Others are kept out, root among them.
func TestTourOfUser(t *testing.T) {
	if !withOpenDevice(t) {
		return
	}
	u, other := stranger{t, nobody}, stranger{t, daemonUser}
	p := userPlace(t, u)
	u.snapfs("mount", p.store, p.point).ok()
	defer func() { _ = exec.Command("umount", "-l", p.point).Run() }() // if it failed half way: root cannot look into it
	u.sh(p.point, `
		echo monday > notes
		mkdir .snapshots/before
		echo tuesday > notes
		grep -q monday .snapshots/before/notes
		grep -q tuesday notes
		mkdir -p a/b; ln notes a/b/hard; ln -s ../notes a/link; mkfifo fifo
		chmod 4755 notes; setfattr -n user.x -v y notes
		! echo x > .snapshots/before/notes
		! touch .snapshots/file
		mv .snapshots/before .snapshots/monday
		test -z "$(ls -A | grep snapshots)"
		cp -a a copy
		dd if=/dev/zero of=big bs=1M count=20 conv=notrunc status=none`)
	if out := u.snapfs("snapshot", p.point, "second").ok(); out != "second\n" {
		t.Errorf("snapshot printed %q", out)
	}
	u.sh(p.point, `rm -r a notes; test "$(cat .snapshots/second/a/b/hard)" = tuesday; cp -a .snapshots/second/a .`)
	table := u.snapfs("list", p.point).ok()
	if !strings.Contains(table, "monday") || !strings.Contains(table, "second") {
		t.Errorf("list printed\n%s", table)
	}
	u.snapfs("status", p.point).ok()
	for _, path := range []string{p.point, p.in("a"), p.at("second", "a")} {
		if _, err := os.Stat(path); !isErrno(err, syscall.EACCES) {
			t.Errorf("root looks at %s: %v", path, err)
		}
	}
	other.sh("/", "! ls "+p.point+" 2>/dev/null; ! ls "+p.store+" 2>/dev/null")
	if r := other.snapfs("snapshot", p.point, "mine"); r.code == control.Done {
		t.Error("somebody else took a snapshot")
	}
	if r := other.snapfs("umount", p.point); r.code == control.Done {
		t.Error("somebody else unmounted")
	}
	u.snapfs("rename", p.point, "monday", "first").ok()
	u.snapfs("delete", p.point, "first").ok()
	u.sh(p.point, "rmdir .snapshots/second; test -z \"$(ls .snapshots)\"; test -s big")
	u.snapfs("umount", p.point).ok()
	u.snapfs("check", p.store).ok()
	u.snapfs("mount", p.store, p.point, "-o", "ro").ok()
	u.sh(p.point, "test -s big; ! touch x 2>/dev/null; ! mkdir .snapshots/x 2>/dev/null")
	u.snapfs("umount", p.point).ok()
}

// TestSignalOfUser: the daemon of a user, who may not unmount by force, ends the connection before it closes the store, too.
func TestSignalOfUser(t *testing.T) {
	needFusectl(t)
	if !withOpenDevice(t) {
		return
	}
	u := stranger{t, nobody}
	p := userPlace(t, u)
	u.snapfs("mount", p.store, p.point).ok()
	sleeper := u.own(exec.Command("sh", "-c", "cd "+p.point+" && echo && exec sleep 1000"))
	out, err := sleeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleeper.Wait()
	defer sleeper.Process.Kill()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(p.daemon(t), syscall.SIGTERM)
	eventually(t, "the daemon's end", func() bool { _, ok := lockHolder(p.store); return !ok })
	wantNotHeld(t, p)
}

// TestRefusedUsers: what a user lacks is said.
func TestRefusedUsers(t *testing.T) {
	if !withOpenDevice(t) {
		return
	}
	u := stranger{t, nobody}
	p := userPlace(t, u)
	mount := func(env ...string) result {
		cmd := u.own(command("mount", p.store, p.point))
		cmd.Env = append(cmd.Env, env...)
		return finish(t, cmd)
	}
	mount("PATH=/nonexistent").fails(control.Failed, "fusermount3", "fuse3")

	// A fusermount3 without its setuid bit may not mount.
	bin := t.TempDir()
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", `cp "$(command -v fusermount3)" `+bin+" && chmod 755 "+bin+"/fusermount3").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	mount("PATH="+bin).fails(control.Failed, "fusermount3")

	text, err := os.ReadFile("/etc/fuse.conf")
	if err == nil && !strings.Contains("\n"+string(text), "\nuser_allow_other") {
		u.snapfs("mount", p.store, p.point, "-o", "allow_other").fails(control.Failed, "user_allow_other", "/etc/fuse.conf")
	}
	root := newPlace(t) // of root: a user may not mount there
	u.snapfs("mount", p.store, root.point).fails(control.Failed, root.point)
	u.snapfs("mount", root.store, p.point).fails(control.Failed, root.store)
	if _, err := os.Stat(p.point); err == nil {
		if n := mountsAt(t, p.point); n != 0 {
			t.Errorf("%d mounts are left", n)
		}
	}
}

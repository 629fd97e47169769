package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snapfs/snapfs/fs/control"
)

// asUser runs a shell script as nobody, with snapfs as $snapfs, in a directory of his.
func asUser(t *testing.T, script string) result {
	t.Helper()
	dir := t.TempDir()
	program, home := filepath.Join(dir, "snapfs"), filepath.Join(dir, "home")
	copyProgram(t, program)
	for _, err := range []error{os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.Mkdir(home, 0o755), os.Chown(home, nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := stranger{t, nobody}.own(exec.Command("sh", "-c", "cd "+home+"\n"+script))
	cmd.Env = append(os.Environ(), asCommand+"=1", "snapfs="+program, "GORACE=atexit_sleep_ms=0 halt_on_error=1")
	return finish(t, cmd)
}

func copyProgram(t *testing.T, path string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if closed := to.Close(); err != nil || closed != nil {
		t.Fatal(err, closed)
	}
}

// TestExecAsUser: the owner of a mount needs no root, where he may make user namespaces.
func TestExecAsUser(t *testing.T) {
	if !withOpenDevice(t) {
		return
	}
	needUserNamespaces(t)
	r := asUser(t, `
		$snapfs mount store mnt || exit 99
		mkdir mnt/sub; echo old > mnt/sub/file; live=$(stat -c '%i %u %g %Y' mnt mnt/sub mnt/sub/file)
		cd mnt/sub
		$snapfs exec . -- sh -c '
			id -u; cat file; pwd -P; echo new > file || echo refused; umount '$PWD'/.. || echo kept; grep CapEff /proc/self/status
			test "$(stat -c "%i %u %g %Y" .. . file)" = "'"$live"'" && echo same
			test -e ../.snapshots || echo hidden; exit 5'
		echo status $?
		$snapfs list .
		$snapfs exec . -- sh -c 'echo ready > ../../ready; exec sleep 271828.5' & pid=$!
		while ! test -e ../../ready; do sleep 0.02; done
		kill -9 $pid; wait $pid; echo killed $?
		while ! $snapfs list . | grep -q 'no snapshots'; do sleep 0.02; done
		cd ../..; $snapfs umount mnt || echo busy`)
	want := []string{"65534", "old", "mnt/sub", "refused", "kept", "CapEff:\t0000000000000000", "same", "hidden", "status 5", "no snapshots", "killed 137", ""}
	got := strings.Split(r.stdout, "\n")
	if len(got) == len(want) {
		got[2] = strings.Join(strings.Split(got[2], "/")[len(strings.Split(got[2], "/"))-2:], "/")
	}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("it said\n%s\nwant\n%s\nstderr %s", strings.Join(got, "\n"), strings.Join(want, "\n"), r.stderr)
	}
}

// ownPath is where this program is; /proc/self/exe would mean setpriv.
func ownPath(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestExecAsUserDaemonEnds: the namespace of a user's exec holds on to the live tree; a daemon that is told to end ends nevertheless.
func TestExecAsUserDaemonEnds(t *testing.T) {
	if !withOpenDevice(t) {
		return
	}
	needUserNamespaces(t)
	r := asUser(t, `
		$snapfs mount -f store mnt > serving 2> log & daemon=$!
		while ! test -s serving; do sleep 0.02; done
		$snapfs exec mnt -- sh -c 'echo ready > ready; exec sleep 271828.6' & exec=$!
		while ! test -e ready; do sleep 0.02; done
		kill -TERM $daemon
		wait $exec; echo exec $?
		wait $daemon; echo daemon $?
		cat log >&2`)
	if r.stdout != "exec 3\ndaemon 0\n" || len(marked("271828.6")) > 0 {
		t.Errorf("it said %q, stderr %s", r.stdout, r.stderr)
	}
}

// needUserNamespaces skips where the system forbids them.
func needUserNamespaces(t *testing.T) {
	t.Helper()
	needRoot(t)
	cmd := stranger{t, nobody}.own(exec.Command("unshare", "-Um", "true"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("users may not make user namespaces here: %s", out)
	}
}

// TestExecWithoutNamespaces: where users may not make namespaces they are told what to do, and nothing is left.
func TestExecWithoutNamespaces(t *testing.T) {
	needUserNamespaces(t)
	p := newPlace(t)
	p.mount(t)
	// Root of a user namespace that may have none below it, without the right to mount.
	cmd := command("exec", p.point, "--", "true")
	outer := exec.Command("unshare", append([]string{"-Ur", "sh", "-c", `echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all "$@"`, "sh"}, cmd.Args...)...)
	outer.Args[len(outer.Args)-len(cmd.Args)] = ownPath(t)
	outer.Env = cmd.Env
	finish(t, outer).fails(control.Refused, "does not let user 0 mount", "root", ".snapshots")
	p.noneLeft(t)
}

// TestExecWithoutCapabilities: root in a container without CAP_SYS_ADMIN goes by a user namespace like others.
func TestExecWithoutCapabilities(t *testing.T) {
	needUserNamespaces(t)
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "x")
	cmd := command("exec", p.point, "--", "sh", "-c", "cat "+p.in("file")+" && ! touch "+p.in("file")+" 2>/dev/null")
	outer := exec.Command("setpriv", append([]string{"--bounding-set=-sys_admin", "--inh-caps=-all"}, cmd.Args...)...)
	outer.Args[len(outer.Args)-len(cmd.Args)] = ownPath(t)
	outer.Env = cmd.Env
	if out := finish(t, outer).ok(); out != "x" {
		t.Errorf("it printed %q", out)
	}
	p.noneLeft(t)
}

// TestExecRefusedToOthers: who may not take snapshots is told so, also where he cannot even see the store.
func TestExecRefusedToOthers(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	private := filepath.Join(p.dir, "private")
	p.store = filepath.Join(private, "store")
	if err := os.Mkdir(private, 0o755); err != nil {
		t.Fatal(err)
	}
	p.mount(t)
	program := filepath.Join(p.dir, "snapfs")
	copyProgram(t, program)
	for dir := p.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []os.FileMode{0o755, 0o700} {
		if err := os.Chmod(private, mode); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"exec", p.point, "--", "true"}, {"snapshot", p.point}, {"list", p.point}} {
			cmd := command(args...)
			cmd.Path = program
			finish(t, stranger{t, daemonUser}.own(cmd)).fails(control.Refused, "permission denied")
		}
	}
}

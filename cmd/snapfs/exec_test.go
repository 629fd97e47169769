package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

// execute runs a shell script in the frozen tree.
func (p place) execute(t *testing.T, script string, flags ...string) result {
	t.Helper()
	args := append(append([]string{"exec"}, flags...), p.point, "--", "sh", "-c", script)
	return finish(t, command(args...))
}

// noneLeft wants no snapshots, no process of an exec in this place, none that was marked, and no mount but the live one.
func (p place) noneLeft(t *testing.T, marks ...string) {
	t.Helper()
	eventually(t, "the snapshot to go", func() bool { return snapfs(t, "list", p.point).ok() == "no snapshots\n" })
	for _, mark := range append(marks, p.point+"\x00--\x00") {
		eventually(t, "the processes to go", func() bool { return len(marked(mark)) == 0 })
	}
	mounts, err := control.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, m := range mounts {
		if m.Source == p.store {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d mounts of the store", n)
	}
}

// marked returns the processes that have mark in their arguments.
func marked(mark string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), mark) {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// running is an exec whose command has printed a line.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	line   string
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr strings.Builder
}

// start starts a script in the frozen tree, and returns when it has printed a line.
func (p place) start(t *testing.T, script string, flags ...string) *running {
	t.Helper()
	args := append(append([]string{"exec"}, flags...), p.point, "--", "sh", "-c", script)
	r := &running{t: t, cmd: command(args...)}
	r.cmd.Stderr = &r.stderr
	stdout, err := r.cmd.StdoutPipe()
	if err == nil {
		r.stdin, err = r.cmd.StdinPipe()
	}
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.stdout = bufio.NewReader(stdout)
	r.line, err = r.stdout.ReadString('\n')
	if err != nil {
		r.cmd.Wait()
		t.Fatalf("the command printed %q, %v; stderr %q", r.line, err, r.stderr.String())
	}
	return r
}

// wait returns the exit code; -1 if a signal ended snapfs.
func (r *running) wait() control.Code {
	r.stdin.Close()
	io.Copy(io.Discard, r.stdout)
	r.cmd.Wait()
	return control.Code(r.cmd.ProcessState.ExitCode())
}

func (r *running) want(code control.Code, words ...string) {
	r.t.Helper()
	if got := r.wait(); got != code {
		r.t.Errorf("code %d, want %d; stderr %q", got, code, r.stderr.String())
	}
	for _, word := range words {
		if !strings.Contains(r.stderr.String(), word) {
			r.t.Errorf("stderr %q does not say %q", r.stderr.String(), word)
		}
	}
}

// child returns the first child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*")
	var found []int
	for _, path := range all {
		n, _ := strconv.Atoi(filepath.Base(path))
		if parentOf(n) == pid {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		t.Fatalf("process %d has no child", pid)
	}
	return slices.Min(found)
}

const statFormat = "stat -c '%n %i %f %u %g %h %s %Y %Z' . .. sub sub/file link hard"

func TestExecShowsTheSameTree(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	sub := p.in("sub")
	if err := os.Mkdir(sub, 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, p.in("sub/file"), "frozen")
	for _, err := range []error{os.Symlink("sub/file", p.in("link")), os.Link(p.in("sub/file"), p.in("hard")), unix.Setxattr(p.in("sub/file"), "user.x", []byte("y"), 0)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	live, err := exec.Command("sh", "-c", "cd "+sub+"/.. && "+strings.Replace(statFormat, " .. ", " ", 1)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, live)
	}
	frozen := p.execute(t, "cd "+p.point+" && "+strings.Replace(statFormat, " .. ", " ", 1)).ok()
	if frozen != string(live) {
		t.Errorf("frozen\n%slive\n%s", frozen, live)
	}
	var st unix.Stat_t
	if err := unix.Stat(p.point, &st); err != nil {
		t.Fatal(err)
	}
	if dev := p.execute(t, "stat -c %d "+p.point).ok(); dev == fmt.Sprintln(st.Dev) {
		t.Errorf("the same device %s", dev)
	}
	out := p.execute(t, `cd `+p.point+` && cat sub/file link && find . | sort && getfattr -n user.x --only-values sub/file && test ! -e .snapshots`).ok()
	if want := "frozenfrozen.\n./hard\n./link\n./sub\n./sub/file\ny"; out != want {
		t.Errorf("it shows %q, want %q", out, want)
	}
	p.noneLeft(t)
}

// TestExecIsFrozen: what is written outside meanwhile is not seen inside, and nothing can be written inside.
func TestExecIsFrozen(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "old")
	r := p.start(t, `echo $SNAPFS_SNAPSHOT; read x; cat `+p.in("file")+`; ls `+p.point+`
		touch `+p.in("file")+` || echo refused; mkdir `+p.in("dir")+` || echo refused
		mount -o remount,rw `+p.point+`; touch `+p.in("new")+` || echo refused; echo x > `+p.in("file")+` || echo refused`)
	write(t, p.in("file"), "new")
	write(t, p.in("other"), "new")
	infos := lines[snapshot.Info](t, snapfs(t, "list", "--json", p.point).ok())
	if len(infos) != 1 || !infos[0].Temporary || infos[0].Name+"\n" != r.line || infos[0].Description != "for sh" {
		t.Errorf("meanwhile there are %+v, and it was told %q", infos, r.line)
	}
	if table := snapfs(t, "list", p.point).ok(); !strings.Contains(table, "durable, temporary") {
		t.Errorf("list says %q", table)
	}
	snapfs(t, "umount", p.point).fails(control.Refused, "snapfs exec (process "+strconv.Itoa(r.cmd.Process.Pid)+")")
	fmt.Fprintln(r.stdin, "go")
	rest, _ := io.ReadAll(r.stdout)
	if got, want := string(rest), "oldfile\nrefused\nrefused\nrefused\nrefused\n"; got != want {
		t.Errorf("the command saw %q, want %q", got, want)
	}
	r.wait()
	wantFile(t, p.in("file"), "new")
	p.noneLeft(t)
}

func TestExecStatus(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("data"), "x")
	for script, code := range map[string]control.Code{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137, "kill -TERM $$": 143, "exit 255": 255} {
		if r := p.execute(t, script); r.code != code || r.stderr != "" {
			t.Errorf("%s: code %d, stderr %q", script, r.code, r.stderr)
		}
	}
	snapfs(t, "exec", p.point, "--", "no-such-program").fails(127, "no-such-program", "not found")
	snapfs(t, "exec", p.point, "--", p.in("none")).fails(127, "no such file")
	snapfs(t, "exec", p.point, "--", p.in("data")).fails(126, "permission denied")
	snapfs(t, "exec", p.point, "--", p.point).fails(126)
	if out := snapfs(t, "exec", p.point, "--", "printf", "%s,", "a", "", "-x", "--json", "b c").ok(); out != "a,,-x,--json,b c," {
		t.Errorf("the arguments came as %q", out)
	}
	for _, args := range [][]string{{"exec"}, {"exec", p.point}, {"exec", p.point, "--"}, {"exec", "--", "true"}, {"exec", p.point, "true"}, {"exec", "--none", p.point, "--", "true"}} {
		snapfs(t, args...).fails(control.Usage)
	}
	snapfs(t, "exec", p.dir, "--", "true").fails(control.NoMount, p.dir)
	snapfs(t, "exec", "--name", "a/b", p.point, "--", "true").fails(control.Usage)
	snapfs(t, "snapshot", p.point, "taken").ok()
	snapfs(t, "exec", "--name", "taken", p.point, "--", "true").fails(control.Exists, "taken")
	snapfs(t, "delete", p.point, "taken").ok()
	p.noneLeft(t)
}

func TestExecKeeps(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "kept")
	if out := p.execute(t, "echo $SNAPFS_SNAPSHOT", "--keep", "--name", "kept", "-m", "why").ok(); out != "kept\n" {
		t.Errorf("it was told %q", out)
	}
	p.execute(t, "exit 3", "--keep", "--name", "also")
	infos := lines[snapshot.Info](t, snapfs(t, "list", "--json", p.point).ok())
	if len(infos) != 2 || infos[0].Name != "kept" || infos[0].Temporary || infos[0].Description != "why" || infos[1].Name != "also" {
		t.Errorf("there are %+v", infos)
	}
	snapfs(t, "umount", p.point).ok()
	p.mount(t)
	wantFile(t, p.at("kept", "file"), "kept")
}

func TestExecCurrentDirectory(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	if err := os.MkdirAll(p.in("a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, p.in("a/b/file"), "x")
	link := filepath.Join(p.dir, "link")
	if err := os.Symlink(p.point, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"a/b", "a"} {
		cmd := command("exec", ".", "--", "sh", "-c", "pwd -P; touch here || ls; touch "+p.in("a/other")+"; cd .. && pwd -P")
		cmd.Dir = filepath.Join(link, dir)
		cmd.Env = append(cmd.Env, "PWD="+cmd.Dir)
		r := finish(t, cmd)
		if want := fmt.Sprintf("%s\n%s\n%s\n", p.in(dir), map[string]string{"a/b": "file", "a": "b"}[dir], filepath.Dir(p.in(dir))); r.stdout != want {
			t.Errorf("in %s it printed %q, want %q; stderr %s", dir, r.stdout, want, r.stderr)
		}
	}
	cmd := command("exec", p.point, "--", "pwd", "-P")
	cmd.Dir = p.dir
	if out := finish(t, cmd).ok(); out != p.dir+"\n" {
		t.Errorf("outside it is in %q", out)
	}
	p.noneLeft(t)
}

// TestExecAtPartOfTree: the mount is of a subdirectory.
func TestExecAtPartOfTree(t *testing.T) {
	needRoot(t)
	p := newPlace(t)
	p.mount(t)
	if err := os.MkdirAll(p.in("a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, p.in("a/b/file"), "x")
	part := filepath.Join(p.dir, "part")
	if err := os.Mkdir(part, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(p.in("a"), part, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(part, unix.MNT_DETACH)
	out := snapfs(t, "exec", filepath.Join(part, "b"), "--", "sh", "-c", "cd "+part+" && find . | sort && stat -c %i b/file && ! touch b/file 2>&1").ok()
	var st unix.Stat_t
	if err := unix.Stat(p.in("a/b/file"), &st); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(".\n./b\n./b/file\n%d\ntouch:", st.Ino); !strings.HasPrefix(out, want) {
		t.Errorf("it shows %q, want %q", out, want)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can do that")
	}
}

func TestExecPassesSignalsOn(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	for _, name := range []string{"HUP", "INT", "QUIT", "TERM", "USR1", "USR2"} {
		r := p.start(t, `trap 'echo got `+name+`; exit 9' `+name+`; echo ready; while :; do sleep 0.02; done`)
		r.cmd.Process.Signal(unix.SignalNum("SIG" + name))
		line, _ := r.stdout.ReadString('\n')
		if line != "got "+name+"\n" {
			t.Errorf("%s: the command said %q", name, line)
		}
		r.want(9)
	}
	r := p.start(t, "echo ready; exec sleep 1000")
	r.cmd.Process.Signal(syscall.SIGTERM)
	r.want(143)
	p.noneLeft(t)
}

// TestExecKilled kills each of the processes of an exec: nothing of the others is left.
func TestExecKilled(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "x")
	const mark = "271828.1" // seconds that nobody else sleeps
	for name, victim := range map[string]func(r *running) int{
		"the outer process": func(r *running) int { return r.cmd.Process.Pid },
		"the inner process": func(r *running) int { return child(t, r.cmd.Process.Pid) },
		"the command":       func(r *running) int { return child(t, child(t, r.cmd.Process.Pid)) },
	} {
		r := p.start(t, "(setsid sleep "+mark+" & ) & sleep "+mark+" & cd "+p.point+"; echo ready; sleep "+mark)
		eventually(t, "three sleeps", func() bool { return len(marked("sleep\x00"+mark)) >= 3 })
		syscall.Kill(victim(r), syscall.SIGKILL)
		code := r.wait()
		if want := map[string]control.Code{"the outer process": -1, "the inner process": control.Failed, "the command": 137}[name]; code != want {
			t.Errorf("%s killed: code %d, want %d; stderr %q", name, code, want, r.stderr.String())
		}
		p.noneLeft(t, mark)
	}
}

// TestExecDaemonEnds: a command that has lost its tree does not go on.
func TestExecDaemonEnds(t *testing.T) {
	p := newPlace(t)
	const mark = "271828.2"
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		p.mount(t)
		write(t, p.in("file"), "x")
		pid := p.daemon(t)
		r := p.start(t, "cd "+p.point+"; echo ready; sleep "+mark)
		syscall.Kill(pid, sig)
		r.want(control.NoMount, "the daemon")
		eventually(t, "the processes to go", func() bool { return len(marked(mark)) == 0 })
		eventually(t, "the daemon to go", func() bool { return syscall.Kill(pid, 0) != nil })
		p.mount(t)
		p.noneLeft(t, mark)
		snapfs(t, "umount", p.point).ok()
	}
}

// TestExecStragglers: what the command leaves in the background gets errors, keeps nothing busy, and does not hang.
func TestExecStragglers(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "x")
	said := filepath.Join(p.dir, "said")
	p.execute(t, `cd `+p.point+`; (exec >/dev/null 2>`+said+`; while cat file; do sleep 0.01; done; ls sub; echo x > file; echo end >&2) & :`).ok()
	if infos := snapfs(t, "list", p.point).ok(); infos != "no snapshots\n" {
		t.Errorf("after the command there are %s", infos)
	}
	eventually(t, "the straggler to end", func() bool {
		text, _ := os.ReadFile(said)
		return strings.HasSuffix(string(text), "end\n")
	})
	if text, _ := os.ReadFile(said); strings.Count(string(text), "not connected") < 2 {
		t.Errorf("it said %s", text)
	}
	wantFile(t, p.in("file"), "x")
}

// TestExecManyAtOnce: each sees the tree as it was at its own start.
func TestExecManyAtOnce(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	var wg sync.WaitGroup
	for i := range 6 {
		write(t, p.in("file"), strconv.Itoa(i))
		r := p.start(t, "echo ready; read x; cat "+p.in("file")+"; echo")
		wg.Go(func() {
			fmt.Fprintln(r.stdin, "go")
			line, _ := r.stdout.ReadString('\n')
			if line != strconv.Itoa(i)+"\n" {
				t.Errorf("number %d saw %q", i, line)
			}
			r.want(control.Done)
		})
	}
	wg.Wait()
	p.noneLeft(t)
}

// TestExecOfDeletedSnapshot: deleting or renaming the snapshot does not take the tree from the command.
func TestExecOfDeletedSnapshot(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "x")
	for _, args := range [][]string{{"delete", p.point, "it"}, {"rename", p.point, "it", "that"}} {
		r := p.start(t, "echo ready; read x; cat "+p.in("file")+"; echo", "--name", "it")
		snapfs(t, args...)
		write(t, p.in("file"), "y")
		fmt.Fprintln(r.stdin, "go")
		if line, _ := r.stdout.ReadString('\n'); line != "x\n" {
			t.Errorf("after %v it reads %q", args, line)
		}
		r.want(control.Done)
		p.noneLeft(t)
		write(t, p.in("file"), "x")
	}
}

// TestViewOfWhatIsNoDevice: what a command gives the daemon to serve may be anything; the snapshot goes with the connection.
func TestViewOfWhatIsNoDevice(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	client, err := control.Dial(t.Context(), p.store)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	unmounted, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unmounted.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	for _, device := range []*os.File{nil, read, unmounted} {
		frozen := false
		view, err := client.View(t.Context(), control.ViewRequest{}, func() { frozen = true })
		if err != nil || !frozen {
			t.Fatalf("frozen %v, %v", frozen, err)
		}
		if _, err := os.Stat(p.at(view.Taken.Name, "")); err != nil {
			t.Error(err)
		}
		if device != nil {
			if err := view.Serve(t.Context(), device); control.CodeOf(err) != control.Failed {
				t.Errorf("%s served: %v", device.Name(), err)
			}
		} else if err := view.Close(t.Context()); err != nil {
			t.Error(err)
		}
		eventually(t, "the daemon to hang up", func() bool {
			select {
			case <-view.Gone():
				return true
			default:
				return false
			}
		})
		if _, err := os.Stat(p.at(view.Taken.Name, "")); !os.IsNotExist(err) {
			t.Errorf("the snapshot is still there: %v", err)
		}
	}
	p.noneLeft(t)
}

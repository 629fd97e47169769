package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snapfs/snapfs/fs/control"
)

// TestHooks: both run around the freeze, of snapshot and of exec.
func TestHooks(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	log := filepath.Join(p.dir, "log")
	before := `echo before $SNAPFS_MOUNTPOINT >> ` + log + `; echo inside > ` + p.in("file")
	after := `echo after >> ` + log + `; echo outside > ` + p.in("file")
	if r := snapfs(t, "snapshot", "--before", before, "--after", after, p.point, "one"); r.ok() != "one\n" {
		t.Errorf("it printed %q", r.stdout)
	}
	wantFile(t, p.at("one", "file"), "inside\n")
	wantFile(t, p.in("file"), "outside\n")
	if out := p.execute(t, "cat "+p.in("file")+" "+log, "--before", before+"; echo said; echo complained >&2", "--after", after); out.stdout != "inside\n"+strings.Repeat("before "+p.point+"\nafter\n", 2) || out.stderr != "said\ncomplained\n" {
		t.Errorf("the command printed %q, %q", out.stdout, out.stderr)
	}
}

// TestHooksFail: without the hook before there is no snapshot; the one after runs in any case.
func TestHooksFail(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	ran := filepath.Join(p.dir, "ran")
	after := "echo after >> " + ran
	none := func(what string) {
		t.Helper()
		if list := snapfs(t, "list", p.point).ok(); list != "no snapshots\n" {
			t.Errorf("%s: there are %s", what, list)
		}
		wantFile(t, ran, "after\n")
		os.Remove(ran)
	}
	snapfs(t, "snapshot", "--before", "exit 3", "--after", after, p.point).fails(control.Failed, "before", "exit status 3")
	none("the hook before fails")
	const mark = "271828.3"
	start := time.Now()
	snapfs(t, "snapshot", "--before", "sleep "+mark+" & sleep "+mark, "--after", after, "--hook-timeout", "100ms", p.point).fails(control.Failed, "longer than 100ms")
	none("the hook before takes too long")
	if took := time.Since(start); took > time.Minute {
		t.Errorf("a limit of 100 ms held for %v", took)
	}
	eventually(t, "the slow hook to go", func() bool { return len(marked(mark)) == 0 })
	p.execute(t, "echo run", "--before", "false", "--after", after).fails(control.Failed, "before")
	none("the hook before exec fails")
	snapfs(t, "snapshot", "--after", after, p.point, "..").fails(control.Usage)
	none("the name is wrong")

	if r := snapfs(t, "snapshot", "--after", "exit 4", p.point, "one"); r.code != control.Failed || r.stdout != "one\n" || !strings.Contains(r.stderr, "after the freeze failed") {
		t.Errorf("the hook after fails: %+v", r)
	}
	snapfs(t, "delete", p.point, "one").ok()
	for script, code := range map[string]control.Code{"echo run": control.Failed, "echo run; exit 9": 9} {
		if r := p.execute(t, script, "--after", "exit 4"); r.code != code || r.stdout != "run\n" || !strings.Contains(r.stderr, "after the freeze failed") {
			t.Errorf("%s, and the hook after fails: %+v", script, r)
		}
	}
	p.noneLeft(t, mark)
}

// TestHookInterrupted: what the user had paused goes on.
func TestHookInterrupted(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	ran := filepath.Join(p.dir, "ran")
	const mark = "271828.4"
	for _, cmd := range [][]string{{"snapshot", p.point}, {"exec", p.point}} {
		args := append(cmd, "--before", "sleep "+mark, "--after", "echo after > "+ran)
		if cmd[0] == "exec" {
			args = append(args, "--", "echo", "run")
		}
		c := command(args...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the hook to begin", func() bool { return len(marked("sleep\x00"+mark)) > 0 })
		c.Process.Signal(syscall.SIGINT)
		c.Wait()
		if code := control.Code(c.ProcessState.ExitCode()); code != control.Interrupted {
			t.Errorf("%s interrupted in a hook: code %d", cmd[0], code)
		}
		wantFile(t, ran, "after\n")
		os.Remove(ran)
		p.noneLeft(t, mark)
	}
}

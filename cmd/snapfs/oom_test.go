package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/snapfs/snapfs/fs/control"
)

// memoryGroup is a control group that limits memory.
type memoryGroup struct {
	t   *testing.T
	dir string
}

// newMemoryGroup puts a process into a group of its own. It skips the test where that cannot be had (version 1 only: in version 2 somebody
// has to have delegated one).
func newMemoryGroup(t *testing.T, pid int) memoryGroup {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	own := ""
	for line := range strings.Lines(string(text)) {
		if _, path, ok := strings.Cut(line, ":memory:"); ok {
			own = strings.TrimSpace(path)
		}
	}
	g := memoryGroup{t, filepath.Join("/sys/fs/cgroup/memory", own, fmt.Sprint("snapfs-test-", pid))}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Skipf("no control group for memory: %v", err)
	}
	t.Cleanup(func() {
		eventually(t, "the end of the control group", func() bool { return !errors.Is(syscall.Rmdir(g.dir), syscall.EBUSY) })
	})
	g.set("cgroup.procs", pid)
	return g
}

func (g memoryGroup) set(name string, value int) {
	if err := os.WriteFile(filepath.Join(g.dir, name), []byte(strconv.Itoa(value)), 0); err != nil {
		g.t.Fatal(err)
	}
}

// figure reads a line "NAME VALUE" of a file of the group.
func (g memoryGroup) figure(file, name string) (value int) {
	text, err := os.ReadFile(filepath.Join(g.dir, file))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, name+" %d", &value)
	}
	return value
}

// TestOutOfMemory: when the memory ends, the kernel kills the writer of a snapshot and not the daemon (its oom_score_adj is highest). That
// costs the snapshot and nothing else (I7).
func TestOutOfMemory(t *testing.T) {
	const size = 96 << 20
	p := newPlace(t)
	p.mount(t, "flush_interval=1h", "dirty_limit=1G") // more than there is: what a careless user asks for
	daemon := p.daemon(t)
	version := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, size) }
	overwrite := func(n int) {
		f, err := os.OpenFile(p.in("file"), os.O_WRONLY|os.O_CREATE, 0o644)
		if err == nil {
			_, err = f.Write(version(n))
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatalf("overwrite %d: %v", n, err)
		}
	}
	group := newMemoryGroup(t, daemon)
	overwrite(1)
	snapfs(t, "snapshot", p.point, "before").ok()
	overwrite(2) // private, until the writer of the next snapshot has saved it
	group.set("memory.limit_in_bytes", group.figure("memory.stat", "rss")+size/2)
	for n := 3; group.figure("memory.oom_control", "oom_kill") == 0; n++ {
		if n == 50 {
			t.Fatal("no writer was stopped in time")
		}
		cmd := command("snapshot", p.point, fmt.Sprint("during", n))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		writer := stopWriter(daemon, ended) // so that it does not end before the memory does
		overwrite(n)                        // copies every page that the writer holds
		if killed := group.figure("memory.oom_control", "oom_kill") > 0; !killed && writer != 0 {
			syscall.Kill(writer, syscall.SIGCONT)
		}
		<-ended
		if failed := cmd.ProcessState.ExitCode() != 0; failed != (group.figure("memory.oom_control", "oom_kill") > 0) {
			t.Errorf("round %d: snapshot: %v: %s", n, cmd.ProcessState, stderr.String())
		}
		got, err := os.ReadFile(p.in("file"))
		if err != nil || !bytes.Equal(got, version(n)) {
			t.Fatalf("round %d: the live file is not what was written last (%v)", n, err)
		}
	}
	if p.daemon(t) != daemon {
		t.Error("the daemon was killed")
	}
	got, err := os.ReadFile(p.at("before", "file"))
	if err != nil || !bytes.Equal(got, version(1)) {
		t.Errorf("the snapshot from before has changed (%v)", err)
	}
	snapfs(t, "check", p.store).ok()
	if r := snapfs(t, "umount", p.point); r.code != control.Done {
		t.Errorf("umount: %s", r.stderr)
	}
}

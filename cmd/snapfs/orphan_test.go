package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// The bytes of orphaned's file, in the snapshot "before" and since.
var oldBytes, youngBytes = strings.Repeat("old.", 4<<20), strings.Repeat("new.", 4<<20)

// orphaned leaves a store whose daemon was killed while the writer of a snapshot was at work. The writer is stopped, until it gets SIGCONT.
func orphaned(t *testing.T, p place) (writer int) {
	t.Helper()
	p.mount(t, "flush_interval=1h")
	write(t, p.in("file"), oldBytes)
	snapfs(t, "snapshot", p.point, "before").ok()
	for range 50 { // a writer that was too quick left nothing to kill
		f, err := os.OpenFile(p.in("file"), os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(youngBytes)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		daemon := p.daemon(t)
		cmd := command("snapshot", p.point, "during")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		writer = stopWriter(daemon, ended)
		if writer != 0 && letGo(writer) {
			syscall.Kill(daemon, syscall.SIGKILL)
			<-ended
			eventually(t, "ENOTCONN", func() bool { return isDead(p.point) })
			t.Cleanup(func() { syscall.Kill(writer, syscall.SIGKILL) })
			return writer
		}
		if writer != 0 {
			syscall.Kill(writer, syscall.SIGCONT)
		}
		<-ended
		snapfs(t, "delete", p.point, "during", "before").ok()
		write(t, p.in("file"), oldBytes)
		snapfs(t, "snapshot", p.point, "before").ok()
	}
	t.Fatal("no writer was stopped in time")
	return 0
}

// stopWriter stops the writer of a daemon as soon as there is one; 0 if ended is closed first.
func stopWriter(daemon int, ended <-chan struct{}) (pid int) {
	for {
		for _, pid := range writersOf(daemon) {
			if syscall.Kill(pid, syscall.SIGSTOP) == nil {
				return pid
			}
		}
		select {
		case <-ended:
			return 0
		default:
		}
	}
}

// letGo waits until the daemon has let the stopped writer go, by a byte in a pipe that the writer has not read yet; false if that does not
// come: the writer had read it before it was stopped, or had ended.
func letGo(writer int) bool {
	for start := time.Now(); time.Since(start) < 2*time.Second; time.Sleep(5 * time.Millisecond) {
		pipes, _ := filepath.Glob("/proc/" + strconv.Itoa(writer) + "/fd/*")
		for _, pipe := range pipes {
			if strings.HasPrefix(target(pipe), "pipe:") && unread(pipe) == 1 {
				return true
			}
		}
	}
	return false
}

// unread returns how many bytes are in a pipe.
func unread(path string) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// TestOrphanFinishes: a writer outlives its daemon and brings what it holds to the disk; the next mount says that it waits for it. The
// snapshot itself is gone: nobody was told that it is there.
func TestOrphanFinishes(t *testing.T) {
	p := newPlace(t)
	writer := orphaned(t, p)
	cmd := command("mount", p.store, p.point)
	var said transcript
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the message", func() bool { return strings.Contains(said.String(), strconv.Itoa(writer)) })
	if want := "snapfs: waiting for the writer of a daemon that was killed (process " + strconv.Itoa(writer) + ")\n"; said.String() != want {
		t.Errorf("mount says %q, want %q", said.String(), want)
	}
	syscall.Kill(writer, syscall.SIGCONT)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("mount: %v: %s", err, said.String())
	}
	wantFile(t, p.at("before", "file"), oldBytes)
	wantFile(t, p.in("file"), youngBytes)
	infos := lines[snapshot.Info](t, snapfs(t, "list", "--json", p.point).ok())
	if len(infos) != 1 || infos[0].Name != "before" {
		t.Errorf("the list is %+v", infos)
	}
}

// transcript collects what a process says while it runs.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *transcript) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// TestOrphanThatHangs: a writer that does not end is killed after a while, and the mount goes on.
func TestOrphanThatHangs(t *testing.T) {
	p := newPlace(t)
	orphaned(t, p)
	var said bytes.Buffer
	o := newOrphans(p.store, &said)
	o.limit = 0
	eventually(t, "the end of the writer", func() bool {
		if _, err := o.look(); err != nil {
			t.Fatal(err)
		}
		_, _, there := o.find()
		return !there
	})
	if !strings.Contains(said.String(), "is killed\n") {
		t.Errorf("it says %q", said.String())
	}
	p.mount(t)
	wantFile(t, p.at("before", "file"), oldBytes)
	snapfs(t, "snapshot", p.point, "after").ok()
}

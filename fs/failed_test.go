package fs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// killWriters kills the writers of this process, and reports how many there were.
func killWriters(t *testing.T) (n int) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lists {
		list, _ := os.ReadFile(path) // of a thread that is gone
		for _, field := range strings.Fields(string(list)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			if unix.Kill(pid, unix.SIGKILL) == nil {
				n++
			}
		}
	}
	return n
}

// TestLookAtWhatFails: somebody looks at a snapshot that is being written, and it fails. Nothing of it stays: neither a view, which
// would keep its data, nor the kernel's memory of its name.
func TestLookAtWhatFails(t *testing.T) {
	for _, noWait := range []bool{false, true} {
		t.Run(fmt.Sprintf("no wait %v", noWait), func(t *testing.T) { lookAtWhatFails(t, noWait) })
	}
}

func lookAtWhatFails(t *testing.T, noWait bool) {
	m := newTestMountReporting(t, func(error) {}) // the failure is told
	file := filepath.Join(m.opt.MountPoint, "file")
	write := func(b byte) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt(bytes.Repeat([]byte{b}, 20_000), 0); err != nil {
			t.Fatal(err)
		}
	}
	write('a')
	takeSnapshot(t, m, "one")
	write('b') // private: the next snapshot has a writer
	two := filepath.Join(m.opt.MountPoint, snapdirName, "two")
	look := func(snapshot.Taken) {
		if _, err := os.ReadFile(filepath.Join(two, "file")); err != nil {
			t.Errorf("look at the snapshot: %v", err)
		}
		if killWriters(t) == 0 {
			t.Error("the snapshot has no writer: the test tests nothing")
		}
	}
	_, err := m.Snapshot(snapshot.Request{Name: "two", NoWait: noWait, Frozen: look})
	if err == nil && !noWait {
		t.Fatal("the snapshot succeeded")
	}
	gone := func(what string, is func() bool) {
		t.Helper()
		for range 500 {
			if is() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%s is still there", what)
	}
	gone("the name", func() bool { _, err := os.Stat(two); return os.IsNotExist(err) })
	gone("the view", func() bool { return m.views.idle() == 0 })
	if _, err := m.Delete([]string{"one"}, false); err != nil {
		t.Error(err)
	}
	gone("an undo log", func() bool {
		logs, err := os.ReadDir(filepath.Join(m.opt.StorePath, "undo"))
		return err == nil && len(logs) == 0
	})
	if err := os.Mkdir(two, 0o700); err != nil {
		t.Errorf("the name is not free: %v", err)
	}
}

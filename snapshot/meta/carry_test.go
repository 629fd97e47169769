package meta

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestKilledCommits kills a process that has committed without a sync: a moment after the commit it is not lost.
func TestKilledCommits(t *testing.T) {
	if dir := os.Getenv("SNAPFS_TEST_CARRY"); dir != "" {
		d, err := Open(dir, Options{})
		if err != nil {
			panic(err)
		}
		b := d.NewBatch()
		b.SetEpoch(77)
		if _, err := b.Commit(false); err != nil {
			panic(err)
		}
		os.Stdout.WriteString("committed\n")
		time.Sleep(time.Hour)
	}
	dir := filepath.Join(t.TempDir(), "meta")
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledCommits$")
	cmd.Env = append(os.Environ(), "SNAPFS_TEST_CARRY="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 100)
	if n, _ := out.Read(said); string(said[:n]) != "committed\n" {
		t.Fatalf("the process said %q", said[:n])
	}
	for start := time.Now(); !logHasRecords(t, dir); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the log is not written out")
		}
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	d, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if e, err := d.Epoch(); e != 77 || err != nil {
		t.Errorf("the epoch is %d, %v; 77 was committed", e, err)
	}
}

// logHasRecords reports whether the mark that the test commits is in a log: marks are kept under their names.
func logHasRecords(t *testing.T, dir string) bool {
	t.Helper()
	names, err := filepath.Glob(dir + "/*.log")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil && strings.Contains(string(text), markEpoch) {
			return true
		}
	}
	return false
}

// syncCounter counts the syncs of logs.
type syncCounter struct {
	vfs.FS
	syncs *int
}

func (c syncCounter) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.Create(name, category)
	if err != nil || !isLog(name) {
		return f, err
	}
	return countedFile{f, c.syncs}, nil
}

type countedFile struct {
	vfs.File
	syncs *int
}

func (f countedFile) SyncData() error {
	*f.syncs++
	return f.File.SyncData()
}

// TestCarryDoesNotSync: writing the log out leaves the sync out; who wants one gets it, and so does a log that is closed.
func TestCarryDoesNotSync(t *testing.T) {
	syncs := 0
	d, err := Open("", Options{FS: syncCounter{vfs.NewMem(), &syncs}})
	if err != nil {
		t.Fatal(err)
	}
	d.carrier.end() // by hand
	d.carrier = newCarrier()
	close(d.carrier.done)
	commit := func(sync bool) {
		t.Helper()
		b := d.NewBatch()
		b.SetEpoch(5)
		if _, err := b.Commit(sync); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, n int) {
		t.Helper()
		if syncs != n {
			t.Errorf("%s: %d syncs, want %d", what, syncs, n)
		}
		syncs = 0
	}
	syncs = 0
	commit(false)
	d.carry()
	want("carry", 0)
	commit(true)
	want("a synced commit", 1)
	d.carry()
	want("nothing to carry", 0)
	commit(false)
	d.carry()
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	want("sync after carry", 1)
	commit(false)
	d.carry()
	if err := d.db.Flush(); err != nil { // begins a new log, and closes the old one
		t.Fatal(err)
	}
	if syncs == 0 {
		t.Error("a log was closed without the sync that was left out")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

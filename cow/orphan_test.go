package cow

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOrphanedWriter kills a daemon (this test's binary, run again) while it has a writer, before the writer was let go and after.
// The orphan keeps the lock while it lives (I9), and no descriptor that it does not need. Before, it ends and has written nothing;
// after, it finishes: what it holds is in the base files, and what the snapshot before it reads is saved (I8).
func TestOrphanedWriter(t *testing.T) {
	if dir := os.Getenv("SNAPFS_TEST_ORPHAN"); dir != "" {
		orphanDaemon(dir, os.Getenv("SNAPFS_TEST_ORPHAN_LET_GO") != "")
	}
	t.Run("waiting", func(t *testing.T) { testOrphan(t, false) })
	t.Run("at work", func(t *testing.T) { testOrphan(t, true) })
}

const orphanPages = 256

func testOrphan(t *testing.T, letGo bool) {
	dir := tempDir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestOrphanedWriter$")
	cmd.Env = append(os.Environ(), "SNAPFS_TEST_ORPHAN="+dir)
	if letGo {
		cmd.Env = append(cmd.Env, "SNAPFS_TEST_ORPHAN_LET_GO=1")
	}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	says := bufio.NewScanner(out)
	if !says.Scan() {
		t.Fatal("the daemon said nothing")
	}
	writer, err := strconv.Atoi(says.Text())
	if err != nil {
		t.Fatalf("the daemon said %q", says.Text())
	}
	if !letGo {
		wantDescriptors(t, writer)
	} else if !says.Scan() { // it is let go; but the daemon has stopped it, to be killed first
		t.Fatal("the daemon did not let the writer go")
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	lock, err := os.OpenFile(dir+"/lock", os.O_RDWR, 0)
	must(t, err)
	defer lock.Close()
	if letGo {
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			t.Error("the lock is free while the orphan is at work")
		}
		must(t, unix.Kill(writer, unix.SIGCONT))
	}
	start := time.Now()
	for unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the orphan still holds the lock")
		}
		time.Sleep(time.Millisecond)
	}
	for unix.Kill(writer, 0) == nil && !isZombie(writer) { // it closes its files before it is gone
		if time.Since(start) > 20*time.Second {
			t.Fatal("the lock is free but the writer lives")
		}
		time.Sleep(time.Millisecond)
	}
	wantAfterOrphan(t, dir, letGo)
}

// wantAfterOrphan opens what the daemon and its writer have left, as recovery would: snapshot 1 is durable, snapshot 2 is not.
func wantAfterOrphan(t *testing.T, dir string, letGo bool) {
	p, err := OpenPool(dir, []Epoch{1}, 3, Options{Index: newMemIndex(), FlushInterval: -1})
	must(t, err)
	live, err := p.Open(1, orphanPages*PageSize, 0, 1, true)
	must(t, err)
	frozen, err := p.OpenFrozen(1, 1, orphanPages*PageSize)
	must(t, err)
	want := byte('a')
	if letGo {
		want = 'b'
	}
	for name, f := range map[string]struct {
		io.ReaderAt
		want byte
	}{"live": {live, want}, "frozen": {frozen, 'a'}} {
		got := make([]byte, orphanPages*PageSize)
		if _, err := f.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, bytes.Repeat([]byte{f.want}, len(got))) {
			t.Errorf("%s: byte 0 is %q, want %q everywhere", name, got[0], f.want)
		}
	}
	live.Close()
	frozen.Close()
	must(t, p.Close())
}

// wantDescriptors waits until the writer has closed what it does not need: its first act, but not before it runs.
func wantDescriptors(t *testing.T, writer int) {
	t.Helper()
	var names []string
	for range 200 {
		names = descriptors(t, writer)
		if len(names) == 3 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the writer keeps %v; want a pipe, base and the lock", names)
}

func descriptors(t *testing.T, pid int) (names []string) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		name, _ := os.Readlink(dir + e.Name())
		names = append(names, name)
	}
	return names
}

func isZombie(pid int) bool {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return strings.Contains(string(b), ") Z ")
}

// orphanDaemon is the daemon of TestOrphanedWriter: it says the number of its writer, and that it let it go, and waits to be killed.
func orphanDaemon(dir string, letGo bool) {
	need := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	lock, err := os.OpenFile(dir+"/lock", os.O_RDWR|os.O_CREATE, 0o600)
	need(err)
	need(unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	p, err := OpenPool(dir, nil, 1, Options{Index: newMemIndex(), LockFD: int(lock.Fd()), FlushInterval: -1})
	need(err)
	record := func(Epoch, int64, int64) error { return nil }
	f, err := p.Create(1)
	need(err)
	write := func(b byte) {
		_, err := f.WriteAt(bytes.Repeat([]byte{b}, orphanPages*PageSize), 0, record)
		need(err)
	}
	write('a')
	fz, err := p.Freeze(func(Epoch) error { return nil })
	need(err)
	fz.Finish()
	write('b')
	fz, err = p.Freeze(func(Epoch) error { return nil })
	need(err)
	fmt.Println(fz.WriterPID())
	if letGo {
		need(unix.Kill(fz.WriterPID(), unix.SIGSTOP))
		need(fz.Save())
		need(fz.Write(func(int64, int64) { // called every so often while the writer has not ended
			fmt.Println("let go")
			time.Sleep(time.Minute)
		}))
	}
	time.Sleep(time.Minute) // it is killed long before
	runtime.KeepAlive(lock)
}

package snapfs_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/snapshot"
)

// roleVariable names the part that a test binary is to play instead of testing.
const roleVariable = "SNAPFS_TEST_ROLE"

// playRole runs in a process of its own. What maps files of the mount must: the test process serves it.
func playRole(role string, args []string) error {
	switch role {
	case "counter":
		return countInMapping(args[0])
	case "locker":
		return tryLocks(args[0])
	case "appender":
		return appendRecords(args[0], args[1])
	case "serve":
		return serveMount(args[0], args[1], args[2])
	}
	return fmt.Errorf("unknown role")
}

// serveMount is a daemon: it serves a store until stdin ends. mode may be "writeback".
func serveMount(storeDir, mnt, mode string) error {
	store, err := snapshot.Open(storeDir, snapshot.Options{Create: true})
	for end := time.Now().Add(time.Minute); errors.Is(err, snapshot.ErrHeld) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond) // the writer of a daemon that was killed
		store, err = snapshot.Open(storeDir, snapshot.Options{Create: true})
	}
	if err != nil {
		return err
	}
	mount, err := fs.New(store, fs.Options{MountPoint: mnt, StorePath: storeDir, Version: "test", Writeback: mode == "writeback"})
	if err != nil {
		return errors.Join(err, store.Close())
	}
	fmt.Println("serving")
	_, err = io.Copy(io.Discard, os.Stdin)
	err = errors.Join(err, mount.Unmount())
	mount.Wait()
	return errors.Join(err, store.Close())
}

// actor is another process that follows a script of lines.
type actor struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func startActor(t testing.TB, cmd *exec.Cmd) *actor {
	t.Helper()
	a := &actor{t: t, cmd: cmd}
	var err error
	a.stdin, err = cmd.StdinPipe()
	need(t, err)
	stdout, err := cmd.StdoutPipe()
	need(t, err)
	a.out = bufio.NewReader(stdout)
	cmd.Stderr = os.Stderr
	need(t, cmd.Start())
	return a
}

// startRole starts this test binary in a role.
func startRole(t testing.TB, role string, args ...string) *actor {
	t.Helper()
	self, err := os.Executable()
	need(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	return startActor(t, cmd)
}

// say sends a line.
func (a *actor) say(line string) {
	a.t.Helper()
	_, err := io.WriteString(a.stdin, line+"\n")
	need(a.t, err)
}

// hear returns the next line.
func (a *actor) hear() string {
	a.t.Helper()
	line, err := a.out.ReadString('\n')
	if err != nil {
		a.t.Fatalf("%s ended early: %q, %v", a.cmd.Path, line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// end closes the script and waits for a good end.
func (a *actor) end() {
	a.t.Helper()
	a.stdin.Close()
	_, _ = io.Copy(io.Discard, a.out)
	if err := a.cmd.Wait(); err != nil {
		a.t.Errorf("%s: %v", a.cmd.Path, err)
	}
}

// commandIn is a command that runs in a directory, which may be of a mount that this process serves. Cmd.Dir would not do:
// between fork and exec the child would ask this process for the directory, which cannot stop its world meanwhile.
func commandIn(dir, name string, args ...string) *exec.Cmd {
	return exec.Command("env", append([]string{"-C", dir, name}, args...)...)
}

// run runs a program to its end and returns what it printed.
func run(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	out, err := commandIn(dir, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// The first thread of a process cannot end: it is kept out of onThread.
func init() { runtime.LockOSThread() }

// onThread runs do on a thread of its own, which ends with it: what do changes of the thread is gone.
func onThread(do func() error) error {
	result := make(chan error, 1)
	go func() {
		defer close(result)    // also if a test ends it
		runtime.LockOSThread() // never unlocked
		result <- do()
	}()
	return <-result
}

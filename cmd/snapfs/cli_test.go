package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// The commands are run for real, each as a process of its own: this test program, which with asCommand in its environment is snapfs. So what
// -race sees includes them.
const asCommand = "SNAPFS_TEST_RUN_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(loadPoint) != "" {
		loadMount()
	}
	if os.Getenv(asCommand) != "" {
		os.Exit(int(run(os.Args[1:])))
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		fmt.Fprintf(os.Stderr, "these tests mount file systems: %v\n", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// result is how a command ended.
type result struct {
	t              *testing.T
	args           string
	code           control.Code
	stdout, stderr string
}

// command prepares snapfs with args.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "GORACE=atexit_sleep_ms=0 halt_on_error=1")
	return cmd
}

// snapfs runs a command to its end.
func snapfs(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, command(args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{t, strings.Join(cmd.Args[1:], " "), control.Code(cmd.ProcessState.ExitCode()), stdout.String(), stderr.String()}
}

// ok wants success, and nothing on stderr; it returns stdout.
func (r result) ok() string {
	r.t.Helper()
	if r.code != control.Done || r.stderr != "" {
		r.t.Fatalf("snapfs %s: code %d, stderr %q, stdout %q", r.args, r.code, r.stderr, r.stdout)
	}
	return r.stdout
}

// fails wants a code, nothing on stdout, and one line on stderr that has all the words.
func (r result) fails(code control.Code, words ...string) {
	r.t.Helper()
	if r.code != code {
		r.t.Errorf("snapfs %s: code %d, want %d; stderr %q", r.args, r.code, code, r.stderr)
	}
	if r.stdout != "" {
		r.t.Errorf("snapfs %s: printed %q", r.args, r.stdout)
	}
	if !strings.HasPrefix(r.stderr, "snapfs: ") || strings.Count(r.stderr, "\n") != 1 || !strings.HasSuffix(r.stderr, "\n") {
		r.t.Errorf("snapfs %s: stderr is not one line: %q", r.args, r.stderr)
	}
	for _, word := range words {
		if !strings.Contains(r.stderr, word) {
			r.t.Errorf("snapfs %s: stderr %q does not say %q", r.args, r.stderr, word)
		}
	}
}

// place is a store and a mount point below a directory of their own.
type place struct{ dir, store, point string }

func newPlace(t *testing.T) place {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir, filepath.Join(dir, "store"), filepath.Join(dir, "mnt")}
	t.Cleanup(func() { p.cleanUp(t) })
	return p
}

// mount mounts with -o options.
func (p place) mount(t *testing.T, options ...string) {
	t.Helper()
	args := []string{"mount", p.store, p.point}
	for _, option := range options {
		args = append(args, "-o", option)
	}
	if out := snapfs(t, args...).ok(); out != "" {
		t.Errorf("mount printed %q", out)
	}
}

// cleanUp unmounts, and checks every store that a test has left behind.
func (p place) cleanUp(t *testing.T) {
	mounts, err := control.Mounts()
	if err != nil {
		t.Error(err)
	}
	for _, m := range mounts {
		if !control.Inside(m.Point, p.dir) || m.Type != control.FSType {
			continue
		}
		if r := snapfs(t, "umount", m.Point); r.code != control.Done {
			t.Errorf("clean up: %s", r.stderr)
			if pid, ok := lockHolder(m.Source); ok {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			detach(m.Point)
		}
	}
	if t.Failed() {
		if text, err := os.ReadFile(logPath(p.store)); err == nil {
			t.Logf("the daemon's log:\n%s", text)
		}
		return
	}
	if _, err := os.Stat(filepath.Join(p.store, "lock")); err == nil {
		if r := snapfs(t, "check", p.store); r.code != control.Done && r.code != control.Damaged || r.code == control.Damaged && !damagedOnPurpose[p.store] {
			t.Errorf("check at the end: code %d: %s%s", r.code, r.stdout, r.stderr)
		}
	}
}

// damagedOnPurpose has the stores that a test has damaged.
var damagedOnPurpose = map[string]bool{}

// daemon returns the process that serves the store.
func (p place) daemon(t *testing.T) int {
	t.Helper()
	c, err := control.Dial(t.Context(), p.store)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Hello().PID
}

// in is a path in the live tree.
func (p place) in(name string) string { return filepath.Join(p.point, name) }

// at is a path in a snapshot.
func (p place) at(snapshot, name string) string {
	return filepath.Join(p.point, ".snapshots", snapshot, name)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %.60q, %v; want %.60q", path, got, err, want)
	}
}

// lines decodes NDJSON.
func lines[T any](t *testing.T, text string) (all []T) {
	t.Helper()
	for line := range strings.Lines(text) {
		dec := json.NewDecoder(strings.NewReader(line))
		dec.DisallowUnknownFields()
		var v T
		if err := dec.Decode(&v); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}

// fingerprint describes everything below dir: names and modes, and of files sizes, times of change, bytes.
func fingerprint(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("%s %v", path, info.Mode())
		if !info.IsDir() {
			line += fmt.Sprintf(" %d %v", info.Size(), info.ModTime())
		}
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(text))
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// unchanged runs refused and wants nothing below dir to be different after it.
func unchanged(t *testing.T, dir string, refused func()) {
	t.Helper()
	before := fingerprint(t, dir)
	refused()
	after := fingerprint(t, dir)
	for _, line := range after {
		if !slices.Contains(before, line) {
			t.Errorf("new or changed: %s", line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			t.Errorf("gone or changed: %s", line)
		}
	}
}

// eventually waits for something that happens in another process.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// onTmpfs puts the store on a file system of its own, of some bytes, and returns where that is mounted.
func (p *place) onTmpfs(t *testing.T, size int) string {
	t.Helper()
	dir := filepath.Join(p.dir, "disk")
	p.store = filepath.Join(dir, "store")
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a tmpfs")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cleanUp(t)
		unix.Unmount(dir, unix.MNT_DETACH)
	})
	return dir
}

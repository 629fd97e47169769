// Package snapfs_test tests the whole of snapfs through mounts of it, as its users see it.
package snapfs_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/snapshot"
)

// TestMain lets the test binary play other processes: see startRole.
func TestMain(m *testing.M) {
	syscall.Umask(0o022)
	if role := os.Getenv(roleVariable); role != "" {
		if err := playRole(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// mounted is a store with its mount, served by the test process itself.
type mounted struct {
	t        testing.TB
	storeDir string
	mnt      string
	opt      fs.Options
	storeOpt snapshot.Options
	store    *snapshot.Store
	mount    *fs.Mount
	damaged  bool // on purpose: failures are expected

	mu       sync.Mutex
	reported []error // GUARDED_BY(mu); background failures
}

// newMount mounts a new store, until the end of the test.
func newMount(t testing.TB, options ...func(*mounted)) *mounted {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Fatalf("these tests mount: %v", err)
	}
	dir := t.TempDir()
	need(t, os.Chmod(filepath.Dir(dir), 0o755)) // other users pass through it
	m := &mounted{t: t, storeDir: filepath.Join(dir, "store"), mnt: filepath.Join(dir, "mnt")}
	// Tests read whole trees to compare them: that must not change them. What reading does to times is for mount_times_test.go.
	m.opt = fs.Options{MountPoint: m.mnt, StorePath: m.storeDir, Version: "test", Flags: unix.MS_NOATIME}
	m.storeOpt = snapshot.Options{Create: true, Report: m.report}
	for _, option := range options {
		option(m)
	}
	need(t, os.Mkdir(m.mnt, 0o755))
	need(t, os.Mkdir(m.storeDir, 0o700))
	m.start()
	t.Cleanup(func() {
		m.stop()
		m.check()
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.reported) > 0 && !m.damaged {
			t.Errorf("failures in the background: %v", errors.Join(m.reported...))
		}
	})
	return m
}

func writeback(m *mounted) { m.opt.Writeback = true }
func visible(m *mounted)   { m.opt.Visible = true }

func (m *mounted) report(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reported = append(m.reported, err)
}

func (m *mounted) start() {
	m.t.Helper()
	store, err := snapshot.Open(m.storeDir, m.storeOpt)
	if err != nil {
		m.t.Fatalf("open store: %v", err)
	}
	mount, err := fs.New(store, m.opt)
	if err != nil {
		m.t.Fatalf("mount: %v", errors.Join(err, store.Close()))
	}
	m.store, m.mount = store, mount
}

// stop unmounts and closes the store; what is in use fails the test.
func (m *mounted) stop() {
	m.t.Helper()
	if m.mount == nil {
		return
	}
	if err := m.mount.Unmount(); err != nil {
		m.t.Errorf("unmount: %v", err)
		_ = syscall.Unmount(m.mnt, syscall.MNT_DETACH) // the store is closed next: end it somehow
	}
	m.mount.Wait()
	if err := m.store.Close(); err != nil && !m.damaged {
		m.t.Errorf("close store: %v", err)
	}
	m.mount, m.store = nil, nil
}

// check verifies the closed store.
func (m *mounted) check() {
	m.t.Helper()
	if m.damaged {
		return
	}
	report, err := snapshot.Check(m.storeDir)
	if err != nil {
		m.t.Errorf("check: %v", err)
	}
	for _, p := range report.Problems {
		m.t.Errorf("check: %s: %s", p.Path, p.What)
	}
	if report.Unused > 0 {
		m.t.Errorf("check: %d base files that nobody reads are left", report.Unused)
	}
}

func (m *mounted) remount() {
	m.t.Helper()
	m.stop()
	m.start()
}

// snapshot takes a snapshot as `snapfs snapshot` does, and returns where it is to be seen.
func (m *mounted) snapshot(name string) string {
	m.t.Helper()
	if _, err := m.mount.Snapshot(snapshot.Request{Name: name}); err != nil {
		m.t.Fatalf("snapshot %s: %v", name, err)
	}
	return m.frozen(name)
}

// live and frozen return the path of something in the live tree and in a snapshot.
func (m *mounted) live(elem ...string) string {
	return filepath.Join(append([]string{m.mnt}, elem...)...)
}

func (m *mounted) frozen(name string, elem ...string) string {
	return filepath.Join(append([]string{m.mnt, ".snapshots", name}, elem...)...)
}

// need fails the test at once if there is an error.
func need(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErrno checks that err is errno.
func wantErrno(t testing.TB, what string, err error, errno syscall.Errno) {
	t.Helper()
	if !errors.Is(err, errno) {
		t.Errorf("%s: got %v, want %v", what, err, errno)
	}
}

// writeFile writes a file in one write.
func writeFile(t testing.TB, path, text string) {
	t.Helper()
	need(t, os.WriteFile(path, []byte(text), 0o644))
}

// wantFile checks what is in a file.
func wantFile(t testing.TB, path, text string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if string(got) != text {
		t.Errorf("%s holds %.60q, want %.60q", path, got, text)
	}
}

// wantNames checks what a directory lists.
func wantNames(t testing.TB, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	need(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("%s lists %q, want %q", dir, got, names)
	}
}

// notPosix is the test of go-fuse's that is not about POSIX: it wants two locks of one process to exclude each other.
// Every native file system fails it; TestLocks has what should hold.
const notPosix = "FcntlFlockLocksFile"

// posixTests runs go-fuse's conformance tests, each in a new directory of its own below dir.
func posixTests(t *testing.T, dir string) {
	need(t, os.Mkdir(dir, 0o755))
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		if name == notPosix {
			continue
		}
		t.Run(name, func(t *testing.T) {
			own := filepath.Join(dir, name)
			need(t, os.Mkdir(own, 0o755))
			posixtest.All[name](t, own)
		})
	}
}

func TestPosix(t *testing.T) {
	m := newMount(t)
	posixTests(t, m.live("first"))
	before := readTree(t, m.live("first"))
	m.remount()
	wantSameTree(t, "after a remount", before, readTree(t, m.live("first")), everything)
	posixTests(t, m.live("second"))
	// Once more after a snapshot: now every page of the first runs is protected.
	m.snapshot("s")
	posixTests(t, m.live("third"))
	wantSameTree(t, "in the snapshot", before, readTree(t, m.frozen("s", "first")), everything)
}

func TestPosixWriteback(t *testing.T) {
	m := newMount(t, writeback)
	posixTests(t, m.live("dir"))
}

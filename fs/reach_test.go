package fs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// newTestMount mounts a new store until the end of the test.
func newTestMount(t *testing.T) *Mount {
	t.Helper()
	return newTestMountReporting(t, func(err error) { t.Error(err) })
}

func newTestMountReporting(t *testing.T, report func(error)) *Mount {
	t.Helper()
	dir := t.TempDir()
	opt := Options{MountPoint: filepath.Join(dir, "mnt"), StorePath: filepath.Join(dir, "store")}
	for _, path := range []string{opt.MountPoint, opt.StorePath} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	store, err := snapshot.Open(opt.StorePath, snapshot.Options{Create: true, Report: report})
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(store, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// TestReach opens inodes without their paths, in each way there is: by file handle takes root, by hidden name does not.
func TestReach(t *testing.T) {
	m := newTestMount(t)
	path := filepath.Join(m.opt.MountPoint, "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	root := m.openRoot()
	defer unix.Close(root)
	ways := map[string]func(snapshot.Ino) (int, error){
		"reach":       func(ino snapshot.Ino) (int, error) { return m.reach(root, ino) },
		"hidden name": m.openHidden,
	}
	if os.Geteuid() == 0 {
		ways["file handle"] = func(ino snapshot.Ino) (int, error) { return openHandle(root, ino) }
	}
	check := func(when string) {
		for way, open := range ways {
			fd, err := open(nodeID(st.Ino).ino())
			if err != nil {
				t.Errorf("%s, %s: %v", when, way, err)
				continue
			}
			var got unix.Stat_t
			if err := unix.Fstat(fd, &got); err != nil || got.Ino != st.Ino || got.Dev != st.Dev {
				t.Errorf("%s, %s: opened inode %d, want %d (%v)", when, way, got.Ino, st.Ino, err)
			}
			unix.Close(fd)
			if fd, err := open(1 << 30); err == nil {
				unix.Close(fd)
				t.Errorf("%s: opened an inode that does not exist", way)
			}
		}
	}
	check("with a name")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("without a name")
	entries, err := os.ReadDir(m.opt.MountPoint)
	if err != nil || len(entries) != 0 {
		t.Errorf("the root lists %v, %v", entries, err)
	}
}

// TestPushIsSureWithoutAWay: what cannot be opened is written back all the same.
func TestPushIsSureWithoutAWay(t *testing.T) {
	m := newTestMount(t)
	path := filepath.Join(m.opt.MountPoint, "f")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m.opt.MountPoint = t.TempDir() // as if another mount lay over it
	defer func() { m.opt.MountPoint = filepath.Dir(path) }()
	if err := m.push(); err != nil {
		t.Error(err)
	}
	if n := m.faults.count.Load(); n != 0 {
		t.Errorf("%d failures", n)
	}
}

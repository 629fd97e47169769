package snapfs_test

import (
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// baseFile returns the largest base file of a store.
func baseFile(t *testing.T, store string) (path string) {
	t.Helper()
	var most int64
	err := filepath.WalkDir(filepath.Join(store, "base"), func(p string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > most {
			path, most = p, info.Size()
		}
		return err
	})
	need(t, err)
	return path
}

// answered fails the test if do does not return: then a request was not answered.
func answered(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a request is not answered")
	}
}

// newDamaged returns a mount with a file f of 1 MiB, frozen in snapshot s, of which nothing is cached.
func newDamaged(t *testing.T) *mounted {
	m := newMount(t)
	m.damaged = true
	writeFile(t, m.live("f"), strings.Repeat("lost", 1<<18))
	f, err := os.Open(m.live("f"))
	need(t, err)
	need(t, errors.Join(f.Sync(), f.Close()))
	writeFile(t, m.live("other"), "here")
	m.snapshot("s")
	m.remount()
	return m
}

// wantAlive checks that the rest of the tree works.
func (m *mounted) wantAlive() {
	m.t.Helper()
	wantFile(m.t, m.live("other"), "here")
	wantFile(m.t, m.frozen("s", "other"), "here")
	writeFile(m.t, m.live("new"), "works")
	wantFile(m.t, m.live("new"), "works")
	status, err := m.mount.Status()
	need(m.t, err)
	if status.Failures == 0 {
		m.t.Error("the status counts no failed requests")
	}
}

// TestLostBaseFile takes the base file away. Whoever asks for its bytes gets EIO.
func TestLostBaseFile(t *testing.T) {
	m := newDamaged(t)
	need(t, os.Remove(baseFile(t, m.storeDir)))
	answered(t, func() {
		_, err := os.ReadFile(m.live("f"))
		wantErrno(t, "read", err, unix.EIO)
		_, err = os.ReadFile(m.frozen("s", "f"))
		wantErrno(t, "read of the snapshot", err, unix.EIO)
		wantErrno(t, "write", appendTo(m.live("f"), "more"), unix.EIO)
		m.wantAlive()
	})
	m.stop()
	report, err := snapshot.Check(m.storeDir)
	need(t, err)
	if len(report.Problems) == 0 {
		t.Error("check finds nothing wrong")
	}
}

// TestCutBaseFile cuts the base file under its mapping: a store into the mapping behind the end would be SIGBUS. It is EIO
// for the writer, and the daemon lives.
func TestCutBaseFile(t *testing.T) {
	m := newDamaged(t)
	f, err := os.OpenFile(m.live("f"), os.O_RDWR, 0)
	need(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("private"), 100_000)
	need(t, err)
	need(t, os.Truncate(baseFile(t, m.storeDir), 8192))
	answered(t, func() {
		_, err := f.WriteAt([]byte("into a page that is gone"), 600_000)
		wantErrno(t, "write", err, unix.EIO)
		m.wantAlive()
	})
}

// TestCutWhileUnmounted cuts the base file of a store that nobody has open. What is lost is EIO, not zeros, and check says whose it is.
func TestCutWhileUnmounted(t *testing.T) {
	m := newDamaged(t)
	m.stop()
	need(t, os.Truncate(baseFile(t, m.storeDir), 100_000))
	m.start()
	answered(t, func() {
		for _, path := range []string{m.live("f"), m.frozen("s", "f")} {
			f, err := os.Open(path)
			need(t, err)
			defer f.Close()
			b := make([]byte, 100)
			if n, err := f.ReadAt(b, 50_000); n != len(b) || err != nil {
				t.Errorf("%s: read before the cut: %d, %v", path, n, err)
			}
			_, err = f.ReadAt(b, 600_000)
			wantErrno(t, path, err, unix.EIO)
			if at, err := f.Seek(600_000, unix.SEEK_DATA); at != 600_000 || err != nil {
				t.Errorf("%s: data at %d, %v: what is lost is no hole", path, at, err)
			}
		}
		wantErrno(t, "append", appendTo(m.live("f"), "more"), unix.EIO)
		m.wantAlive()
	})
	for _, check := range []func() (snapshot.Report, error){
		m.store.Check,
		func() (snapshot.Report, error) { m.stop(); return snapshot.Check(m.storeDir) },
	} {
		report, err := check()
		need(t, err)
		if len(report.Problems) != 1 || !slices.Equal(report.Problems[0].Files, []string{".snapshots/s/f", "f"}) {
			t.Errorf("check says %+v", report.Problems)
		}
	}
	m.start()
	writeFile(t, m.live("f"), "written anew")
	wantFile(t, m.live("f"), "written anew")
}

package snapfs_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// handleOf returns the file handle of a path, which it does not follow if it is a symbolic link.
func handleOf(t testing.TB, path string) unix.FileHandle {
	t.Helper()
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		t.Fatalf("handle of %s: %v", path, err)
	}
	return h
}

// byHandle opens a file handle of the mount.
func (m *mounted) byHandle(h unix.FileHandle, flags int) (*os.File, error) {
	m.t.Helper()
	root, err := unix.Open(m.mnt, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	need(m.t, err)
	defer unix.Close(root)
	for {
		fd, err := unix.OpenByHandleAt(root, h, flags|unix.O_CLOEXEC)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), "by handle"), nil
		case unix.EINTR: // the runtime's own signals
		default:
			return nil, err
		}
	}
}

// wantHandle checks that a handle leads to the inode called ino, and returns the path that the kernel has for it.
func (m *mounted) wantHandle(what string, h unix.FileHandle, ino uint64) string {
	m.t.Helper()
	f, err := m.byHandle(h, unix.O_PATH)
	if err != nil {
		m.t.Errorf("%s by handle: %v", what, err)
		return ""
	}
	defer f.Close()
	var st unix.Stat_t
	need(m.t, unix.Fstat(int(f.Fd()), &st))
	if st.Ino != ino {
		m.t.Errorf("%s by handle is inode %d, was %d", what, st.Ino, ino)
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	need(m.t, err)
	return path
}

func inoOf(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	need(t, unix.Lstat(path, &st))
	return st.Ino
}

// handlesTree makes something of every kind, live and in a snapshot, and returns the paths.
func handlesTree(t testing.TB, m *mounted) []string {
	need(t, os.MkdirAll(m.live("d/e/f"), 0o755))
	writeFile(t, m.live("d/e/file"), "by handle")
	need(t, os.Symlink("file", m.live("d/e/link")))
	need(t, unix.Mkfifo(m.live("d/e/fifo"), 0o644))
	m.snapshot("s")
	names := []string{"d", "d/e", "d/e/f", "d/e/file", "d/e/link", "d/e/fifo"}
	paths := []string{m.mnt, m.live(".snapshots"), m.frozen("s")}
	for _, name := range names {
		paths = append(paths, m.live(name), m.frozen("s", name))
	}
	return paths
}

// TestHandles: a file handle leads to its inode for as long as that lives, also when the kernel knows nothing of it any more
// and when the store has been mounted again.
func TestHandles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may open by handle")
	}
	for _, option := range []func(*mounted){func(*mounted) {}, visible} {
		m := newMount(t, option)
		paths := handlesTree(t, m)
		// Each with an empty cache: none may need what another has made known.
		for _, path := range paths {
			h, ino := handleOf(t, path), inoOf(t, path)
			m.remount()
			got := m.wantHandle(path, h, ino)
			if info, err := os.Lstat(path); err != nil || info.IsDir() && got != path {
				t.Errorf("directory %s by handle is at %s, %v", path, got, err)
			}
		}
	}
}

func TestHandlesOfFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may open by handle")
	}
	m := newMount(t)
	handlesTree(t, m)
	live, frozen := handleOf(t, m.live("d/e/file")), handleOf(t, m.frozen("s", "d/e/file"))
	need(t, os.Rename(m.live("d/e/file"), m.live("moved")))
	writeFile(t, m.live("moved"), "changed")
	m.remount()
	for text, h := range map[string]unix.FileHandle{"changed": live, "by handle": frozen} {
		f, err := m.byHandle(h, unix.O_RDONLY)
		need(t, err)
		got, err := io.ReadAll(f)
		if err != nil || string(got) != text {
			t.Errorf("the file reads %q, %v; want %q", got, err, text)
		}
		need(t, f.Close())
	}
	f, err := m.byHandle(live, unix.O_WRONLY|unix.O_TRUNC)
	need(t, err)
	_, err = f.WriteString("written by handle")
	need(t, errors.Join(err, f.Close()))
	wantFile(t, m.live("moved"), "written by handle")
	_, err = m.byHandle(frozen, unix.O_WRONLY)
	wantErrno(t, "writing to a frozen file by handle", err, unix.EROFS)

	connectable, _, err := unix.NameToHandleAt(unix.AT_FDCWD, m.live("moved"), atHandleConnectable)
	if errors.Is(err, unix.EINVAL) {
		return // an older kernel
	}
	need(t, err)
	m.remount()
	if got := m.wantHandle("connectable", connectable, inoOf(t, m.live("moved"))); got != m.live("moved") {
		t.Errorf("a connectable handle leads to %s", got)
	}
}

// atHandleConnectable asks for a handle with the directory in it (AT_HANDLE_CONNECTABLE, Linux 6.13).
const atHandleConnectable = 2

// TestStaleHandles: what is gone is ESTALE, what never was as well.
func TestStaleHandles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may open by handle")
	}
	m := newMount(t)
	paths := handlesTree(t, m)[2:]
	m.snapshot("later")
	handles := map[string]unix.FileHandle{}
	for _, path := range paths {
		handles[path] = handleOf(t, path)
	}
	open, err := os.Open(m.live("d/e/file"))
	need(t, err)
	need(t, os.RemoveAll(m.live("d")))
	need(t, os.Remove(m.frozen("s")))
	m.wantHandle("an unlinked file that is open", handles[m.live("d/e/file")], inoOfFile(t, open))
	need(t, open.Close())
	stale := func(when string) {
		t.Helper()
		for path, h := range handles {
			f, err := m.byHandle(h, unix.O_PATH)
			wantErrno(t, when+": "+filepath.Base(path), err, unix.ESTALE)
			f.Close() // of none if all is well
		}
	}
	m.remount()
	stale("after a remount")
	good := handleOf(t, m.mnt)
	bytes := good.Bytes()
	handles = map[string]unix.FileHandle{
		"of another generation": unix.NewFileHandle(good.Type(), append(append([]byte{}, bytes[:8]...), 1, 0, 0, 0)),
		"of nothing":            unix.NewFileHandle(good.Type(), make([]byte, len(bytes))),
		"of no inode":           unix.NewFileHandle(good.Type(), []byte{0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0}),
		"of no epoch":           unix.NewFileHandle(good.Type(), []byte{0xff, 0xff, 0xff, 0x7f, 1, 0, 0, 0, 0, 0, 0, 0}),
		"of all ones but one":   unix.NewFileHandle(good.Type(), []byte{0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0, 0, 0, 0}),
		"too short":             unix.NewFileHandle(good.Type(), bytes[:4]),
		"of another type":       unix.NewFileHandle(7, bytes),
	}
	stale("a handle")
	err = onThread(func() error {
		if err := become(alice, alice); err != nil {
			return err
		}
		_, err := m.byHandle(good, unix.O_PATH)
		return err
	})
	wantErrno(t, "a handle opened by a user", err, unix.EPERM)
}

func inoOfFile(t testing.TB, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	need(t, unix.Fstat(int(f.Fd()), &st))
	return st.Ino
}

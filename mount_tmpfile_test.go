package snapfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// nameless opens a file without a name in dir.
func nameless(t testing.TB, dir string, flags int) *os.File {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|flags, 0o644)
	if err != nil {
		t.Fatalf("O_TMPFILE in %s: %v", dir, err)
	}
	return os.NewFile(uintptr(fd), "nameless")
}

// name gives an open file a name, by each of the two ways that there are.
func name(f *os.File, path string, byProc bool) error { return nameFD(int(f.Fd()), path, byProc) }

func nameFD(fd int, path string, byProc bool) error {
	if byProc {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	}
	return unix.Linkat(fd, "", unix.AT_FDCWD, path, unix.AT_EMPTY_PATH)
}

func links(t testing.TB, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	need(t, unix.Fstat(int(f.Fd()), &st))
	return uint64(st.Nlink)
}

func TestNamelessFiles(t *testing.T) {
	m := newMount(t)
	need(t, os.Mkdir(m.live("d"), 0o755))
	for _, byProc := range []bool{true, false} {
		path := m.live(fmt.Sprint("d/byProc=", byProc))
		f := nameless(t, m.live("d"), 0)
		defer f.Close()
		_, err := f.WriteString("text")
		need(t, err)
		wantNames(t, m.live("d"), names(t, m.live("d"))...)
		if n := links(t, f); n != 0 {
			t.Errorf("it has %d links", n)
		}
		m.snapshot(fmt.Sprint("open", byProc))
		_, err = f.WriteString(" goes on")
		need(t, err)
		if err := name(f, path, byProc); err == unix.ENOENT && !byProc && os.Geteuid() != 0 {
			continue // AT_EMPTY_PATH takes CAP_DAC_READ_SEARCH
		} else if err != nil {
			t.Fatalf("link, by /proc %v: %v", byProc, err)
		}
		wantFile(t, path, "text goes on")
		if n := links(t, f); n != 1 {
			t.Errorf("with a name it has %d links", n)
		}
		need(t, os.Link(path, path+"2"))
		wantErrno(t, "a name that is taken", name(f, path, byProc), unix.EEXIST)
		need(t, os.Remove(path))
		need(t, os.Remove(path+"2"))
		wantErrno(t, "a new name for a file that lost its last", name(f, path, byProc), unix.ENOENT)
		_, err = f.WriteString(" and on")
		need(t, err)
	}
	f := nameless(t, m.mnt, unix.O_EXCL)
	defer f.Close()
	wantErrno(t, "a name for a file opened with O_EXCL", name(f, m.live("never"), true), unix.ENOENT)
	wantNames(t, m.frozen("opentrue", "d"))
	m.snapshot("end")
}

func names(t testing.TB, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	need(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestNamelessFileIsDropped: closed it takes no space, and in the store there is nothing of it.
func TestNamelessFileIsDropped(t *testing.T) {
	m := newMount(t)
	before, err := m.mount.Status()
	need(t, err)
	f := nameless(t, m.mnt, 0)
	_, err = f.Write(make([]byte, 4<<20))
	need(t, err)
	need(t, f.Sync())
	need(t, f.Close())
	m.remount()
	after, err := m.mount.Status()
	need(t, err)
	if after.StoreBytes > before.StoreBytes+1<<20 {
		t.Errorf("the store grew from %d to %d bytes", before.StoreBytes, after.StoreBytes)
	}
	report, err := m.store.Check()
	need(t, err)
	if report.Files != 1 || report.Unused != 0 {
		t.Errorf("a check finds %d files and %d unused base files", report.Files, report.Unused)
	}
}

// TestNamelessFileIsMadeInItsDirectory: owner, group, umask and default list as for a file with a name.
func TestNamelessFileIsMadeInItsDirectory(t *testing.T) {
	needRoot(t)
	m := newMount(t)
	asExt4(t, m.mnt, func(w *scribe) {
		for i, text := range []string{"", "u7 U7:1000 g5 m7 o0"} {
			dir, file := fmt.Sprint("d", i), fmt.Sprint("d", i, "/file")
			need(w, os.Mkdir(w.path(dir), 0o777))
			need(w, os.Chown(w.path(dir), 0, 77))
			need(w, unix.Chmod(w.path(dir), 0o2777))
			if text != "" {
				need(w, setACL(w.path(dir), defaultACL, text))
			}
			need(w, underMask(0o027, func() error {
				fd, err := unix.Open(w.path(dir), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				return nameFD(fd, w.path(file), true)
			}))
			w.shows(file)
		}
	})
}

// TestNamelessFilesAfterACrash: with a name that was synced all of it is there, else nothing.
func TestNamelessFilesAfterACrash(t *testing.T) {
	m := newMount(t)
	kept, lost := nameless(t, m.mnt, 0), nameless(t, m.mnt, 0)
	for _, f := range []*os.File{kept, lost} {
		_, err := f.WriteString("synced")
		need(t, err)
		need(t, f.Sync())
	}
	need(t, name(kept, m.live("kept"), true))
	dir, err := os.Open(m.mnt)
	need(t, err)
	need(t, dir.Sync())
	need(t, dir.Close())
	copied := filepath.Dir(m.storeDir) // the same file system, for the rename
	run(t, copied, "cp", "-a", m.storeDir, "copied")
	need(t, kept.Close())
	need(t, lost.Close())
	n := newMount(t)
	n.stop()
	need(t, os.RemoveAll(n.storeDir))
	need(t, os.Rename(filepath.Join(copied, "copied"), n.storeDir))
	n.start()
	wantFile(t, n.live("kept"), "synced")
	wantNames(t, n.mnt, "kept")
	report, err := n.store.Check()
	need(t, err)
	if report.Files != 2 || report.Unused != 0 || len(report.Problems) > 0 {
		t.Errorf("a check finds %+v", report)
	}
}

func TestRenameWhiteout(t *testing.T) {
	needRoot(t)
	m := newMount(t)
	asExt4(t, m.mnt, func(w *scribe) {
		need(w, os.Mkdir(w.path("d"), 0o755))
		need(w, os.Mkdir(w.path("d/sub"), 0o755))
		need(w, os.Mkdir(w.path("e"), 0o755))
		writeFile(w, w.path("f"), "f")
		writeFile(w, w.path("g"), "g")
		try := func(from, to string, flags uint) {
			w.did(fmt.Sprintf("%s to %s, %d", from, to, flags), rename(w.path(from), w.path(to), flags))
			for _, name := range append(names(w, w.dir), "d") {
				if name != "lost+found" {
					w.shows(name)
				}
			}
		}
		try("f", "h", unix.RENAME_WHITEOUT)
		try("g", "h", unix.RENAME_WHITEOUT)
		try("d/sub", "e/sub", unix.RENAME_WHITEOUT)
		try("h", "g", unix.RENAME_WHITEOUT|unix.RENAME_NOREPLACE)
		try("h", "i", unix.RENAME_WHITEOUT|unix.RENAME_NOREPLACE)
		try("i", "h", unix.RENAME_WHITEOUT|unix.RENAME_EXCHANGE)
		try("none", "h", unix.RENAME_WHITEOUT)
		try("i", "h", unix.RENAME_EXCHANGE)
		var st unix.Stat_t
		need(w, unix.Lstat(w.path("d/sub"), &st))
		w.did(fmt.Sprintf("whiteout %o %d", st.Mode, st.Rdev), nil)
		need(w, os.Remove(w.path("d/sub")))
		w.shows("d")
		w.shows("e")
	})
	m.snapshot("s")
	wantErrno(t, "frozen", rename(m.frozen("s", "h"), m.frozen("s", "z"), unix.RENAME_WHITEOUT), unix.EROFS)
}

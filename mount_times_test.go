package snapfs_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs"
)

// tickTime is longer than the clock of file times stands still on any file system.
const tickTime = 15 * time.Millisecond

// moves notes which times of some files a call changed: a, m, c.
func (w *scribe) moves(what string, names []string, call func() error) {
	w.Helper()
	before := w.times(names)
	time.Sleep(tickTime)
	err := call()
	if err != nil {
		w.Fatalf("%s in %s: %v", what, w.dir, err)
	}
	if w.settle != nil {
		w.settle()
	}
	var moved []string
	for i, now := range w.times(names) {
		letters := ""
		for j, t := range now {
			if t != before[i][j] {
				letters += "amc"[j : j+1]
			}
		}
		moved = append(moved, names[i]+":"+letters)
	}
	w.notes = append(w.notes, what+" moves "+strings.Join(moved, " "))
}

func (w *scribe) times(names []string) (all [][3]unix.Timespec) {
	w.Helper()
	for _, name := range names {
		var st unix.Stat_t
		need(w, unix.Lstat(w.path(name), &st))
		all = append(all, [3]unix.Timespec{st.Atim, st.Mtim, st.Ctim})
	}
	return all
}

// TestWhichTimesMove goes through the calls that read or change something, twice where relatime lets the first read count and not
// the second. That an open for reading counts as a read when it is closed is the one difference to ext4: the kernel does not
// tell of reads from its cache.
func TestWhichTimesMove(t *testing.T) {
	needRoot(t)
	for _, back := range []bool{false, true} {
		t.Run(fmt.Sprint("writeback=", back), func(t *testing.T) {
			m := newMount(t, func(m *mounted) { m.opt.Writeback, m.opt.Flags = back, 0 })
			asExt4(t, m.mnt, func(w *scribe) {
				if w.dir == m.mnt {
					w.settle = func() { waitClosed(m) }
				}
				moveTimes(w, back)
			})
		})
	}
}

func moveTimes(w *scribe, writeback bool) {
	need(w, os.Mkdir(w.path("d"), 0o755))
	writeFile(w, w.path("d/f"), strings.Repeat("text", 2000))
	writeFile(w, w.path("d/empty"), "")
	need(w, os.Symlink("f", w.path("d/l")))
	f, both := w.path("d/f"), []string{"d/f", "d"}
	read := func() error { _, err := os.ReadFile(f); return err }
	write := func() error {
		return onlyWrite(f, func(fd int) error { _, err := unix.Pwrite(fd, []byte("new"), 5); return err })
	}
	list := func() error { _, err := os.ReadDir(w.path("d")); return err }
	link := func() error { _, err := os.Readlink(w.path("d/l")); return err }
	for _, c := range []struct {
		what string
		call func() error
	}{
		{"read", read}, {"read again", read}, {"write", write}, {"read what is cached", read}, {"read again", read},
		{"chmod", func() error { return os.Chmod(f, 0o640) }}, {"read after chmod", read},
		{"chown", func() error { return os.Chown(f, 0, 0) }},
		{"setxattr", func() error { return unix.Setxattr(f, "user.a", []byte("1"), 0) }},
		{"removexattr", func() error { return unix.Removexattr(f, "user.a") }},
		{"set a list", func() error { return setACL(f, accessACL, "u6 U4:7 g4 m4 o0") }},
		{"remove a list", func() error { return unix.Removexattr(f, accessACL) }},
		{"link", func() error { return os.Link(f, w.path("d/g")) }},
		{"unlink", func() error { return os.Remove(w.path("d/g")) }},
		{"rename", func() error { return errors.Join(os.Rename(f, w.path("d/h")), os.Rename(w.path("d/h"), f)) }},
		{"list", list}, {"list again", list}, {"list after a change", func() error {
			return errors.Join(os.Mkdir(w.path("d/sub"), 0o755), list())
		}},
		{"rmdir", func() error { return os.Remove(w.path("d/sub")) }},
		{"truncate", func() error { return os.Truncate(f, 5000) }},
		{"truncate to the same", func() error { return os.Truncate(f, 5000) }},
		{"ftruncate to the same", func() error { return onlyWrite(f, func(fd int) error { return unix.Ftruncate(fd, 5000) }) }},
		{"empty write", func() error {
			return onlyWrite(f, func(fd int) error { _, err := unix.Pwrite(fd, nil, 0); return err })
		}},
		{"fallocate", func() error {
			return onlyWrite(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, 9000) })
		}},
		{"punch", func() error {
			return onlyWrite(f, func(fd int) error {
				return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
			})
		}},
		{"fsync", func() error { return onlyWrite(f, unix.Fsync) }},
		{"touch", func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, f, nil, 0) }},
		{"omit and now", func() error { return setBoth(f, unix.UTIME_OMIT, unix.UTIME_NOW) }},
		{"now and omit", func() error { return setBoth(f, unix.UTIME_NOW, unix.UTIME_OMIT) }},
		{"omit and omit", func() error { return setBoth(f, unix.UTIME_OMIT, unix.UTIME_OMIT) }},
		{"write and read without O_NOATIME", func() error { return errors.Join(write(), read()) }},
		{"O_TRUNC", func() error { return os.WriteFile(f, nil, 0) }},
		{"O_TRUNC of an empty file", func() error { return os.WriteFile(f, nil, 0) }},
		{"new content", func() error { return os.WriteFile(f, []byte("text"), 0) }},
		{"mknod", func() error { return unix.Mknod(w.path("d/p"), unix.S_IFIFO|0o600, 0) }},
		{"rename over", func() error { return os.Rename(w.path("d/p"), w.path("d/empty")) }},
	} {
		if c.what == "truncate to the same" && writeback {
			continue // the kernel keeps the times then, and changes none
		}
		w.moves(c.what, both, c.call)
	}
	for _, what := range []string{"readlink", "readlink again"} {
		w.moves(what, []string{"d/l"}, link)
	}
}

// onlyWrite is changeFile without the right to read.
func onlyWrite(path string, call func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(call(fd), unix.Close(fd))
}

func setBoth(path string, atime, mtime int64) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: atime}, {Nsec: mtime}}, 0)
}

func atime(t testing.TB, path string) unix.Timespec {
	t.Helper()
	var st unix.Stat_t
	need(t, unix.Lstat(path, &st))
	return st.Atim
}

// readAll reads a file, lists a directory and reads a link, after a change of each, and says whose atime moved.
func readAll(m *mounted, flags int) (moved string) {
	m.t.Helper()
	file, dir, link := m.live("f"), m.live("d"), m.live("l")
	for _, path := range []string{file, dir, link} {
		need(m.t, os.Lchown(path, 0, 0)) // moves the ctime
	}
	before := [3]unix.Timespec{atime(m.t, file), atime(m.t, dir), atime(m.t, link)}
	time.Sleep(tickTime)
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	need(m.t, err)
	_, err = unix.Read(fd, make([]byte, 10))
	need(m.t, errors.Join(err, unix.Close(fd)))
	fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
	need(m.t, err)
	_, err = unix.Getdents(fd, make([]byte, 4096))
	need(m.t, errors.Join(err, unix.Close(fd)))
	_, err = os.Readlink(link)
	need(m.t, err)
	waitClosed(m)
	for i, path := range []string{file, dir, link} {
		if atime(m.t, path) != before[i] {
			moved += "fdl"[i : i+1]
		}
	}
	return moved
}

// TestAtimeFlags: what the flags of the mount say, also after a remount, and O_NOATIME.
func TestAtimeFlags(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		flags uintptr
		want  string
	}{{0, "fdl"}, {unix.MS_NOATIME, ""}, {unix.MS_NODIRATIME, "fl"}, {unix.MS_STRICTATIME, "fdl"}} {
		m := newMount(t, func(m *mounted) { m.opt.Flags = fs.Flags(c.flags) })
		writeFile(t, m.live("f"), "text")
		need(t, os.Mkdir(m.live("d"), 0o755))
		need(t, os.Symlink("target", m.live("l")))
		if got := readAll(m, 0); got != c.want {
			t.Errorf("with flags %#x reading moves the atime of %q, want %q", c.flags, got, c.want)
		}
		remountFlags := func(flags uintptr) {
			need(t, unix.Mount("", m.mnt, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|flags, ""))
			time.Sleep(10 * tickTime) // the daemon is told by the mount table
		}
		remountFlags(unix.MS_NOATIME)
		if got := readAll(m, 0); got != "" {
			t.Errorf("remounted with noatime reading moves the atime of %q", got)
		}
		remountFlags(unix.MS_RELATIME)
		eventually(t, "atimes after a remount", func() bool { return strings.Contains(readAll(m, 0), "f") })
		if got := readAll(m, unix.O_NOATIME); strings.Contains(got, "f") {
			t.Error("reading with O_NOATIME moves the atime")
		}
		before := atime(t, m.live("f"))
		m.snapshot("s")
		m.remount()
		if got := atime(t, m.live("f")); got != before {
			t.Errorf("the atime was %v, and after a remount it is %v", before, got)
		}
		if got := atime(t, m.frozen("s", "f")); got != before {
			t.Errorf("the atime was %v, and in a snapshot it is %v", before, got)
		}
		_, err := os.ReadFile(m.frozen("s", "f"))
		need(t, err)
		if got := atime(t, m.frozen("s", "f")); got != before {
			t.Errorf("reading in a snapshot moves the atime")
		}
	}
}

// TestStrictAtime counts every read that is known of.
func TestStrictAtime(t *testing.T) {
	needRoot(t)
	m := newMount(t, func(m *mounted) { m.opt.Flags = unix.MS_STRICTATIME })
	writeFile(t, m.live("f"), "text")
	for range 3 {
		before := atime(t, m.live("f"))
		time.Sleep(tickTime)
		wantFile(t, m.live("f"), "text")
		waitClosed(m)
		if atime(t, m.live("f")) == before {
			t.Error("a read does not move the atime")
		}
	}
}

// TestSnapshotsLeaveAtimes: what the daemon does to a file that is open for writing, to have all of it in the snapshot, is no read.
func TestSnapshotsLeaveAtimes(t *testing.T) {
	m := newMount(t, func(m *mounted) { m.opt.Flags = unix.MS_STRICTATIME })
	f, err := os.Create(m.live("f"))
	need(t, err)
	defer f.Close()
	_, err = f.WriteString("text")
	need(t, err)
	before := atime(t, m.live("f"))
	time.Sleep(tickTime)
	m.snapshot("s")
	if atime(t, m.live("f")) != before {
		t.Error("a snapshot moves the atime")
	}
}

// TestTimesOfMappedWrites: they move when the kernel writes the pages back.
func TestTimesOfMappedWrites(t *testing.T) {
	m := newMount(t)
	path := m.live("counter")
	writeFile(t, path, strings.Repeat("\x00", counterBytes))
	var before, after unix.Stat_t
	need(t, unix.Stat(path, &before))
	time.Sleep(tickTime)
	a := startRole(t, "counter", path)
	a.say("1 10")
	a.hear()
	a.end()
	eventually(t, "new times", func() bool {
		need(t, unix.Stat(path, &after))
		return after.Mtim != before.Mtim && after.Ctim != before.Ctim
	})
}

// waitClosed waits until the daemon knows of every close.
func waitClosed(m *mounted) {
	m.t.Helper()
	eventually(m.t, "end of the open files", func() bool {
		status, err := m.mount.Status()
		need(m.t, err)
		return status.OpenHandles == 0
	})
}

// eventually waits for something that happens soon.
func eventually(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for start := time.Now(); !happened(); time.Sleep(tickTime) {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("no %s after %v", what, time.Since(start))
		}
	}
}

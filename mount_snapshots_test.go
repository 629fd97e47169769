package snapfs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot"
)

// TestSnapshotHoldsTheTree compares a snapshot, to the last aspect, with the tree as it was before: right after it, after
// everything was changed, and after remounts.
func TestSnapshotHoldsTheTree(t *testing.T) {
	m := newMount(t)
	makeTree(t, m.live("tree"))
	before := readTree(t, m.mnt)
	check := func(when string) {
		t.Helper()
		wantSameTree(t, when, before, readTree(t, m.frozen("s")), everything)
	}
	m.snapshot("s")
	check("at once")
	wantSameTree(t, "live", before, readTree(t, m.mnt), everything)
	spoilTree(t, m.live("tree"))
	check("after changes")
	m.snapshot("later")
	later := readTree(t, m.mnt)
	m.remount()
	check("after a remount")
	wantSameTree(t, "live after a remount", later, readTree(t, m.mnt), everything)
	need(t, os.RemoveAll(m.live("tree")))
	check("after deletion of the live tree")
	wantSameTree(t, "the later one", later, readTree(t, m.frozen("later")), everything)
	need(t, os.Remove(m.frozen("later")))
	check("after deletion of the later one")
	m.remount()
	check("after another remount")
}

// TestSnapshotOfACopiedTree: the same tree on the native file system is the judge of what a copy looks like.
func TestSnapshotOfACopiedTree(t *testing.T) {
	m := newMount(t)
	native := filepath.Join(t.TempDir(), "tree")
	makeTree(t, native)
	run(t, "/", "cp", "-a", native, m.live("tree"))
	m.snapshot("s")
	need(t, os.RemoveAll(m.live("tree")))
	got := readTree(t, m.frozen("s", "tree"))
	want := readTree(t, native)
	for _, nodes := range []tree{want, got} { // ctime is nobody's to copy
		for path, n := range nodes {
			n.Ctime = unix.Timespec{}
			nodes[path] = n
		}
	}
	wantSameTree(t, "copied by cp -a", want, got, aspectTimes)
}

// spoilTree changes everything in a tree made by makeTree.
func spoilTree(t testing.TB, root string) {
	t.Helper()
	at := func(path string) string { return filepath.Join(root, path) }
	writeFile(t, at("small"), "SMALL, and longer than before\n") // also changes its hard links
	f, err := os.OpenFile(at("sticky/deep/big"), os.O_RDWR, 0)
	need(t, err)
	for off := int64(0); off < 1<<20; off += 5000 {
		_, err := f.WriteAt([]byte("spoiled"), off)
		need(t, err)
	}
	need(t, f.Truncate(700_001))
	need(t, f.Close())
	need(t, unix.Chmod(at("empty"), 0o777))
	need(t, os.Remove(at("hard")))
	need(t, os.Remove(at("sticky/link")))
	need(t, os.Symlink("elsewhere", at("sticky/link")))
	need(t, unix.Lsetxattr(at("small"), "user.short", []byte("changed"), 0))
	need(t, unix.Lremovexattr(at("small"), "user.long"))
	need(t, os.Rename(at("sticky/deep"), at("empty/moved")))
	need(t, rename(at("fifo"), at("socket"), unix.RENAME_EXCHANGE))
	need(t, os.WriteFile(at("none"), []byte("something"), 0))
	need(t, unix.Truncate(at("sparse"), 1<<20))
	need(t, unix.Truncate(at("sparse"), 4<<20))
	setTimes(t, at("link"), unix.Timespec{Sec: 5}, unix.Timespec{Sec: 6})
}

// TestSnapshotsDoNotChange tries every change there is on a frozen tree.
func TestSnapshotsDoNotChange(t *testing.T) {
	m := newMount(t)
	makeTree(t, m.live("tree"))
	root := m.snapshot("s")
	before := readTree(t, root)
	at := func(path string) string { return filepath.Join(root, "tree", path) }
	open := func(path string, flags int) error {
		fd, err := unix.Open(at(path), flags|unix.O_CLOEXEC, 0o644)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	now := []unix.Timespec{{Sec: 1}, {Sec: 2}}
	for _, c := range []struct {
		name string
		err  error
	}{
		{"create", open("new", unix.O_CREAT|unix.O_WRONLY)},
		{"create exclusively", open("new", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR)},
		{"open for writing", open("small", unix.O_WRONLY)},
		{"open for both", open("small", unix.O_RDWR)},
		{"open for appending", open("small", unix.O_WRONLY|unix.O_APPEND)},
		{"open with truncation", open("small", unix.O_RDONLY|unix.O_TRUNC)},
		{"create what exists", open("small", unix.O_CREAT|unix.O_RDWR)},
		{"truncate", unix.Truncate(at("small"), 0)},
		{"mkdir", unix.Mkdir(at("new"), 0o755)},
		{"mkdir in the root", unix.Mkdir(filepath.Join(root, "new"), 0o755)},
		{"rmdir", unix.Rmdir(at("empty"))},
		{"unlink", unix.Unlink(at("small"))},
		{"symlink", unix.Symlink("x", at("new"))},
		{"mknod", unix.Mknod(at("new"), unix.S_IFREG|0o644, 0)},
		{"mkfifo", unix.Mkfifo(at("new"), 0o644)},
		{"link", unix.Link(at("small"), at("new"))},
		{"link from the live tree", unix.Link(m.live("tree/small"), at("new"))},
		{"rename", rename(at("small"), at("new"), 0)},
		{"rename over", rename(at("small"), at("none"), 0)},
		{"exchange", rename(at("small"), at("none"), unix.RENAME_EXCHANGE)},
		{"rename into the live tree", rename(at("small"), m.live("new"), 0)},
		{"rename from the live tree", rename(m.live("tree/small"), at("new"), 0)},
		{"chmod", unix.Chmod(at("small"), 0o600)},
		{"chown", unix.Lchown(at("small"), 1, 1)},
		{"utimes", unix.UtimesNanoAt(unix.AT_FDCWD, at("small"), now, 0)},
		{"setxattr", unix.Lsetxattr(at("small"), "user.new", nil, 0)},
		{"removexattr", unix.Lremovexattr(at("small"), "user.short")},
		{"chmod of the root", unix.Chmod(root, 0o700)},
	} {
		wantErrno(t, c.name, c.err, unix.EROFS)
	}
	wantErrno(t, "link into the live tree", unix.Link(at("small"), m.live("new")), unix.EXDEV)
	f, err := os.Open(at("small"))
	need(t, err)
	defer f.Close()
	_, err = f.Write([]byte("x"))
	wantErrno(t, "write to a file open for reading", err, unix.EBADF)
	need(t, f.Sync())
	wantSameTree(t, "afterwards", before, readTree(t, root), everything)
	wantNames(t, m.mnt, "tree")
}

func TestInodeNumbersOfViewsDiffer(t *testing.T) {
	m := newMount(t)
	writeFile(t, m.live("f"), "x")
	seen := make(map[uint64]string)
	for _, name := range []string{"a", "b"} {
		m.snapshot(name)
	}
	for _, path := range []string{m.mnt, m.live("f"), m.frozen(""), m.frozen("a"), m.frozen("a", "f"), m.frozen("b"), m.frozen("b", "f")} {
		var st unix.Stat_t
		need(t, unix.Lstat(path, &st))
		if other, ok := seen[st.Ino]; ok {
			t.Errorf("%s and %s are both inode %d", path, other, st.Ino)
		}
		seen[st.Ino] = path
	}
}

func TestSnapshotsDirectory(t *testing.T) {
	m := newMount(t)
	writeFile(t, m.live("f"), "one")
	dir := m.frozen("")
	wantNames(t, m.mnt, "f")
	wantNames(t, dir)

	need(t, os.Mkdir(m.frozen("first"), 0o755))
	writeFile(t, m.live("f"), "two")
	need(t, os.Mkdir(m.frozen("second"), 0o755))
	wantNames(t, dir, "first", "second")
	wantFile(t, m.frozen("first", "f"), "one")
	wantFile(t, m.frozen("second", "f"), "two")
	wantErrno(t, "mkdir of what exists", os.Mkdir(m.frozen("first"), 0o755), unix.EEXIST)
	if infos, err := m.mount.List(); err != nil || len(infos) != 2 || infos[0].Name != "first" || infos[0].State != snapshot.Durable {
		t.Errorf("list: %+v, %v", infos, err)
	}

	need(t, os.Rename(m.frozen("first"), m.frozen("renamed")))
	wantErrno(t, "rename over another", os.Rename(m.frozen("renamed"), m.frozen("second")), unix.EEXIST)
	wantErrno(t, "noreplace", rename(m.frozen("renamed"), m.frozen("second"), unix.RENAME_NOREPLACE), unix.EEXIST)
	wantErrno(t, "exchange", rename(m.frozen("renamed"), m.frozen("second"), unix.RENAME_EXCHANGE), unix.EINVAL)
	wantErrno(t, "rename of none", os.Rename(m.frozen("first"), m.frozen("x")), unix.ENOENT)
	wantFile(t, m.frozen("renamed", "f"), "one")
	wantNames(t, dir, "renamed", "second")
	m.remount()
	wantNames(t, dir, "renamed", "second")

	need(t, os.Remove(m.frozen("renamed")))
	wantErrno(t, "rmdir of none", unix.Rmdir(m.frozen("renamed")), unix.ENOENT)
	wantErrno(t, "look at a deleted one", unix.Access(m.frozen("renamed"), unix.F_OK), unix.ENOENT)
	wantNames(t, dir, "second")
	wantFile(t, m.frozen("second", "f"), "two")
}

func TestSnapshotsDirectoryIsNoOther(t *testing.T) {
	m := newMount(t)
	writeFile(t, m.live("f"), "x")
	m.snapshot("s")
	dir := m.frozen("")
	for _, c := range []struct {
		name string
		err  error
		want unix.Errno
	}{
		{"create a file in it", os.WriteFile(m.frozen("file"), nil, 0o644), unix.EPERM},
		{"symlink in it", os.Symlink("x", m.frozen("link")), unix.EPERM},
		{"fifo in it", unix.Mkfifo(m.frozen("fifo"), 0o644), unix.EPERM},
		{"link into it", os.Link(m.live("f"), m.frozen("f")), unix.EPERM},
		{"move into it", os.Rename(m.live("f"), m.frozen("f")), unix.EPERM},
		{"move a snapshot out", os.Rename(m.frozen("s"), m.live("s")), unix.EPERM},
		{"chmod", os.Chmod(dir, 0o777), unix.EPERM},
		{"chown", os.Chown(dir, 1, 1), unix.EPERM},
		{"setxattr", unix.Setxattr(dir, "user.x", nil, 0), unix.EPERM},
		{"mkdir", os.Mkdir(dir, 0o755), unix.EEXIST},
		{"create", unix.Mknod(dir, unix.S_IFREG, 0), unix.EEXIST},
		{"rmdir", unix.Rmdir(dir), unix.EBUSY},
		{"rename", os.Rename(dir, m.live("other")), unix.EBUSY},
		{"rename over it", rename(m.live("f"), dir, unix.RENAME_NOREPLACE), unix.EEXIST},
	} {
		wantErrno(t, c.name, c.err, c.want)
	}
	wantNames(t, m.mnt, "f")
	wantNames(t, dir, "s")
	need(t, os.Mkdir(m.live("sub"), 0o755))
	need(t, os.Mkdir(m.live("sub/.snapshots"), 0o755)) // only the root's is special
	wantNames(t, m.live("sub"), ".snapshots")
}

func TestVisibleSnapshots(t *testing.T) {
	m := newMount(t, visible)
	writeFile(t, m.live("f"), "x")
	m.snapshot("s")
	wantNames(t, m.mnt, ".snapshots", "f")
	out := run(t, m.mnt, "find", ".", "-name", "f")
	if out != "./.snapshots/s/f\n./f\n" && out != "./f\n./.snapshots/s/f\n" {
		t.Errorf("find sees %q", out)
	}
}

func TestSnapshotNames(t *testing.T) {
	m := newMount(t)
	for _, name := range []string{"2026-11-22T041630.123Z", "a b", "ünï", "\xff\xfe", ".hidden", "...", strings.Repeat("n", 255), "new\nline"} {
		need(t, os.Mkdir(m.frozen(name), 0o755))
		need(t, os.Remove(m.frozen(name)))
		m.snapshot(name)
	}
	for _, name := range []string{"-leading", "--", "-"} {
		wantErrno(t, "mkdir "+name, os.Mkdir(m.frozen(name), 0o755), unix.EINVAL)
		_, err := m.mount.Snapshot(snapshot.Request{Name: name})
		wantErrno(t, "snapshot "+name, err, unix.EINVAL)
		wantErrno(t, "rename to "+name, os.Rename(m.frozen("..."), m.frozen(name)), unix.EINVAL)
	}
	for _, name := range []string{"a/b", "/", ".", "..", "nul\x00", strings.Repeat("n", 256)} {
		_, err := m.mount.Snapshot(snapshot.Request{Name: name})
		wantErrno(t, fmt.Sprintf("snapshot %.20q", name), err, unix.EINVAL)
		wantErrno(t, fmt.Sprintf("rename to %.20q", name), m.mount.Rename("...", name), unix.EINVAL)
	}
	_, err := m.mount.Snapshot(snapshot.Request{Name: "a b"})
	wantErrno(t, "a name that exists", err, unix.EEXIST)
}

// TestKernelHearsOfSnapshots: names that the kernel has cached, as there or as not there, follow what is done behind it.
func TestKernelHearsOfSnapshots(t *testing.T) {
	m := newMount(t)
	writeFile(t, m.live("f"), "x")
	absent := func(name string) {
		t.Helper()
		wantErrno(t, "stat of "+name, unix.Access(m.frozen(name), unix.F_OK), unix.ENOENT)
	}
	absent("a")
	m.snapshot("a")
	wantFile(t, m.frozen("a", "f"), "x")
	absent("b")
	need(t, m.mount.Rename("a", "b"))
	absent("a")
	wantFile(t, m.frozen("b", "f"), "x")
	if _, err := m.mount.Delete([]string{"b"}, false); err != nil {
		t.Error(err)
	}
	absent("b")
	m.snapshot("b") // another one of that name
	wantFile(t, m.frozen("b", "f"), "x")

	inside, err := os.Open(m.frozen("b")) // somebody is in it
	need(t, err)
	defer inside.Close()
	if _, err := m.mount.Delete([]string{"b"}, true); err != nil {
		t.Errorf("dry run: %v", err)
	}
	wantFile(t, m.frozen("b", "f"), "x")
	if _, err := m.mount.Delete([]string{"b", "unknown"}, false); !errors.Is(err, snapshot.ErrUnknown) {
		t.Errorf("deletion of an unknown one: %v", err)
	}
	wantFile(t, m.frozen("b", "f"), "x")
	if _, err := m.mount.Delete([]string{"b"}, false); err != nil {
		t.Error(err)
	}
	absent("b")
}

func TestDeletedSnapshotInUse(t *testing.T) {
	m := newMount(t)
	need(t, os.Mkdir(m.live("d"), 0o755))
	writeFile(t, m.live("d/f"), "kept")
	m.snapshot("s")
	dir, err := os.Open(m.frozen("s", "d"))
	need(t, err)
	defer dir.Close()
	writeFile(t, m.live("d/f"), "changed")
	if _, err := m.mount.Delete([]string{"s"}, false); err != nil {
		t.Error(err)
	}
	// A directory handle keeps the listing, not the way to what is in it; nothing else than clean errors may come of it.
	for _, name := range []string{"f", "none"} {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY, 0)
		if err == nil {
			unix.Close(fd)
			t.Errorf("%s of a deleted snapshot can be opened", name)
		} else if err != unix.ESTALE && err != unix.ENOENT {
			t.Errorf("%s of a deleted snapshot: %v", name, err)
		}
	}
	wantFile(t, m.live("d/f"), "changed")
}

// TestParallelSnapshots takes, looks at and deletes snapshots from all sides at once.
func TestParallelSnapshots(t *testing.T) {
	m := newMount(t)
	writeFile(t, m.live("f"), "content")
	var wg sync.WaitGroup
	for who := range 4 {
		wg.Go(func() {
			for i := range 10 {
				name := fmt.Sprintf("%d-%d", who, i)
				var err error
				if who%2 == 0 {
					err = os.Mkdir(m.frozen(name), 0o755)
				} else {
					_, err = m.mount.Snapshot(snapshot.Request{Name: name})
				}
				if err != nil {
					t.Errorf("snapshot %s: %v", name, err)
					continue
				}
				if err := appendTo(m.live("f"), "."); err != nil {
					t.Error(err)
				}
				if got, err := os.ReadFile(m.frozen(name, "f")); err != nil || !strings.HasPrefix(string(got), "content") {
					t.Errorf("%s holds %q, %v", name, got, err)
				}
				if i%3 == 0 {
					continue
				}
				if who < 2 {
					err = os.Remove(m.frozen(name))
				} else {
					_, err = m.mount.Delete([]string{name}, false)
				}
				if err != nil {
					t.Errorf("delete %s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(m.frozen(""))
	need(t, err)
	if len(entries) != 16 {
		t.Errorf("%d snapshots are left, want 16", len(entries))
	}
}

// TestSnapshotAgainstRenames: mkdir in .snapshots holds that directory's lock and writes back what is dirty; a rename into
// it, and a removal of it, hold the root's lock and wait for the other. They must not wait for each other in a circle.
func TestSnapshotAgainstRenames(t *testing.T) {
	m := newMount(t)
	writeFile(t, m.live("counters"), "")
	need(t, unix.Truncate(m.live("counters"), counterBytes))
	writeFile(t, m.live("f"), "x")
	a := startRole(t, "counter", m.live("counters"))
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			wantErrno(t, "rename into .snapshots", os.Rename(m.live("f"), m.frozen("f")), unix.EPERM)
			wantErrno(t, "rmdir of .snapshots", unix.Rmdir(m.frozen("")), unix.EBUSY)
		}
	})
	for i := range 30 {
		a.say("1 1")
		a.hear()
		name := fmt.Sprint(i)
		start := time.Now()
		need(t, os.Mkdir(m.frozen(name), 0o755))
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("mkdir took %v", took)
		}
		if got := counterAt(t, m.frozen(name, "counters"), 1); got != uint64(i+1) {
			t.Errorf("snapshot %d holds %d", i, got)
		}
	}
	stop.Store(true)
	wg.Wait()
	a.end()
}

func TestReadOnlyMount(t *testing.T) {
	m := newMount(t)
	makeTree(t, m.live("tree"))
	m.snapshot("s")
	before := readTree(t, m.mnt)
	m.stop()
	m.opt.ReadOnly = true
	m.start()
	wantErrno(t, "create", os.WriteFile(m.live("new"), nil, 0o644), unix.EROFS)
	wantErrno(t, "unlink", os.Remove(m.live("tree/small")), unix.EROFS)
	wantErrno(t, "mkdir in .snapshots", os.Mkdir(m.frozen("t"), 0o755), unix.EROFS)
	_, err := m.mount.Snapshot(snapshot.Request{Name: "t"})
	wantErrno(t, "snapshot", err, unix.EROFS)
	_, err = m.mount.Delete([]string{"s"}, false)
	wantErrno(t, "delete", err, unix.EROFS)
	wantErrno(t, "rename", m.mount.Rename("s", "t"), unix.EROFS)
	wantSameTree(t, "live", before, readTree(t, m.mnt), everything)
	wantSameTree(t, "frozen", before, readTree(t, m.frozen("s")), everything)
}

func TestStatus(t *testing.T) {
	m := newMount(t)
	writeFile(t, m.live("f"), "x")
	m.snapshot("s")
	s, err := m.mount.Status()
	need(t, err)
	if s.MountPoint != m.mnt || s.Store != m.storeDir || s.Version != "test" || s.Mode != "rw" {
		t.Errorf("status: %+v", s)
	}
	if s.Snapshots != 1 || s.Epoch < cow.Epoch(2) || s.ResidentBytes < 1<<20 || s.PageFaults.Minor == 0 {
		t.Errorf("status: %+v", s)
	}
	if s.Last == nil || s.Last.Name != "s" || s.Last.Status != "ok" || s.TotalSnapshots != 1 {
		t.Errorf("last snapshot: %+v", s.Last)
	}
}

func TestStatFsIsTrue(t *testing.T) {
	m := newMount(t)
	var got, want unix.Statfs_t
	need(t, unix.Statfs(m.mnt, &got))
	need(t, unix.Statfs(m.storeDir, &want))
	if got.Blocks != want.Blocks || got.Bsize != want.Bsize || got.Namelen != 255 || got.Files != want.Files {
		t.Errorf("statfs says %+v, of the store %+v", got, want)
	}
}

func TestUnmountBusy(t *testing.T) {
	m := newMount(t)
	f, err := os.Create(m.live("f"))
	need(t, err)
	err = m.mount.Unmount()
	wantErrno(t, "unmount while a file is open", err, unix.EBUSY)
	_, err = f.WriteString("still works")
	need(t, err)
	need(t, f.Close())
	m.remount()
	wantFile(t, m.live("f"), "still works")
}

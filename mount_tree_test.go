package snapfs_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	iofs "io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// treeNode is all that can be seen of one entry of a tree.
type treeNode struct {
	Mode         uint32
	UID, GID     uint32
	Nlink        uint64
	Rdev         uint64
	Size         int64 // of anything but a directory
	Atime, Mtime unix.Timespec
	Ctime        unix.Timespec
	Target       string            // of a symlink
	Content      [sha256.Size]byte // of a regular file
	Xattrs       string            // names and values, sorted
	First        string            // the first path of the same inode: hard links
}

// tree is a directory with all that is below it, by relative path; "." is the directory.
type tree map[string]treeNode

// Which parts of a node count.
type aspects uint

const (
	aspectAtime    aspects = 1 << iota
	aspectTimes            // mtime and ctime
	aspectDirLinks         // link counts of directories: file systems differ

	everything = aspectAtime | aspectTimes | aspectDirLinks
	portable   = 0 // what two file systems that went through the same have in common
)

// readTree reads a whole tree, data included. Atimes are read before the data.
func readTree(t testing.TB, root string) tree {
	t.Helper()
	nodes := make(tree)
	first := make(map[[2]uint64]string)
	err := filepath.WalkDir(root, func(path string, _ iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("lstat %s: %w", path, err)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		id := [2]uint64{st.Dev, st.Ino}
		if _, seen := first[id]; !seen {
			first[id] = rel
		}
		nodes[rel], err = readNode(path, &st)
		n := nodes[rel]
		n.First = first[id]
		nodes[rel] = n
		return err
	})
	if err != nil {
		t.Fatalf("read tree: %v", err)
	}
	return nodes
}

func readNode(path string, st *unix.Stat_t) (n treeNode, err error) {
	n = treeNode{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: st.Nlink, Rdev: st.Rdev,
		Atime: st.Atim, Mtime: st.Mtim, Ctime: st.Ctim,
	}
	if n.Xattrs, err = readXattrs(path); err != nil {
		return n, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		n.Size = st.Size
		n.Target, err = os.Readlink(path)
	case unix.S_IFREG:
		n.Size = st.Size
		n.Content, err = hashFile(path, st.Size)
	}
	return n, err
}

// hashFile also checks that the file ends where stat(2) says.
func hashFile(path string, size int64) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, f)
	if err == nil && n != size {
		err = fmt.Errorf("%s has %d bytes, its size is %d", path, n, size)
	}
	return [sha256.Size]byte(hash.Sum(nil)), err
}

// readXattrs returns the attributes that a user may set.
func readXattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return "", fmt.Errorf("llistxattr %s: %w", path, err)
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var all strings.Builder
	for _, name := range names {
		if !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "trusted.") {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", fmt.Errorf("lgetxattr %s %s: %w", path, name, err)
		}
		fmt.Fprintf(&all, "%s=%x ", name, buf[:n])
	}
	return all.String(), nil
}

// differences lists the paths in which two trees differ, with what differs.
func differences(want, got tree, count aspects) []string {
	var diffs []string
	paths := make(map[string]bool)
	for path := range want {
		paths[path] = true
	}
	for path := range got {
		paths[path] = true
	}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		w, inWant := want[path]
		g, inGot := got[path]
		switch {
		case !inGot:
			diffs = append(diffs, path+": missing")
		case !inWant:
			diffs = append(diffs, path+": unexpected")
		default:
			w, g = w.only(count), g.only(count)
			if w != g {
				diffs = append(diffs, fmt.Sprintf("%s:\n\twant %+v\n\tgot  %+v", path, w, g))
			}
		}
	}
	return diffs
}

// only blanks the parts of a node that do not count.
func (n treeNode) only(count aspects) treeNode {
	if count&aspectAtime == 0 {
		n.Atime = unix.Timespec{}
	}
	if count&aspectTimes == 0 {
		n.Mtime, n.Ctime = unix.Timespec{}, unix.Timespec{}
	}
	if count&aspectDirLinks == 0 && n.Mode&unix.S_IFMT == unix.S_IFDIR {
		n.Nlink = 0
	}
	return n
}

// wantSameTree fails the test if two trees differ.
func wantSameTree(t testing.TB, what string, want, got tree, count aspects) {
	t.Helper()
	diffs := differences(want, got, count)
	if len(diffs) == 0 {
		return
	}
	shown := min(len(diffs), 8)
	t.Errorf("%s: %d of %d paths differ:\n%s", what, len(diffs), len(want), strings.Join(diffs[:shown], "\n"))
}

// makeTree makes a tree that has something of everything, the same each time but for the times of making.
func makeTree(t testing.TB, root string) {
	t.Helper()
	dir := func(path string, mode uint32) {
		need(t, unix.Mkdir(filepath.Join(root, path), 0o755))
		need(t, unix.Chmod(filepath.Join(root, path), mode))
	}
	at := func(path string) string { return filepath.Join(root, path) }
	dir("", 0o755)
	dir("empty", 0o2750)
	dir("sticky", 0o1777)
	dir("sticky/deep", 0o700)
	writeFile(t, at("small"), "small\n")
	writeFile(t, at("none"), "")
	writeFile(t, at("sticky/deep/big"), strings.Repeat("a line of a bigger file\n", 50_000))
	writeFile(t, at("name with \xff byte and \n newline"), "odd")
	writeFile(t, at(strings.Repeat("n", 255)), "long name")
	makeSparse(t, at("sparse"))
	need(t, os.Link(at("small"), at("sticky/hard")))
	need(t, os.Link(at("small"), at("hard")))
	need(t, os.Symlink("../nowhere/"+strings.Repeat("x", 300), at("sticky/link")))
	need(t, os.Symlink("small", at("link")))
	need(t, unix.Mkfifo(at("fifo"), 0o640))
	need(t, unix.Mknod(at("socket"), unix.S_IFSOCK|0o600, 0))
	for _, x := range []struct{ path, name, value string }{
		{"small", "user.short", "v"},
		{"small", "user.empty", ""},
		{"small", "user.long", strings.Repeat("\x00\xff", 1500)},
		{"sticky", "user.dir", "on a directory"},
	} {
		need(t, unix.Lsetxattr(at(x.path), x.name, []byte(x.value), 0))
	}
	need(t, unix.Chmod(at("none"), 0o4751))
	if os.Geteuid() == 0 {
		makeRootsNodes(t, root)
	}
	setTimes(t, at("small"), unix.Timespec{Sec: -5, Nsec: 123456789}, unix.Timespec{Sec: 1 << 33, Nsec: 999999999})
	setTimes(t, at("link"), unix.Timespec{Sec: 1, Nsec: 1}, unix.Timespec{Sec: 2, Nsec: 2})
	setTimes(t, at("empty"), unix.Timespec{Sec: 3}, unix.Timespec{Sec: 4, Nsec: 5})
}

// makeRootsNodes adds to a tree what takes a root to make.
func makeRootsNodes(t testing.TB, root string) {
	t.Helper()
	at := func(path string) string { return filepath.Join(root, path) }
	need(t, unix.Mknod(at("device"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	need(t, unix.Mknod(at("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 300))))
	need(t, unix.Lchown(at("link"), 1234, 5678))
	need(t, unix.Lchown(at("sparse"), 4_000_000_000, 65534))
	need(t, unix.Lsetxattr(at("sticky/deep"), "trusted.secret", []byte("root only"), 0))
}

// makeSparse makes a file of 3 MiB with data around a hole, and a hole at the end.
func makeSparse(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	need(t, err)
	defer f.Close()
	for _, off := range []int64{0, 1<<20 + 77, 2 << 20} {
		_, err := f.WriteAt([]byte(strings.Repeat("data", 1500)), off)
		need(t, err)
	}
	need(t, f.Truncate(3<<20))
}

func setTimes(t testing.TB, path string, atime, mtime unix.Timespec) {
	t.Helper()
	need(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW))
}

// TestDifferences checks the check: each aspect of a tree makes a difference.
func TestDifferences(t *testing.T) {
	root := filepath.Join(t.TempDir(), "tree")
	makeTree(t, root)
	before := readTree(t, root)
	if diffs := differences(before, readTree(t, root), everything&^aspectAtime); len(diffs) > 0 {
		t.Fatalf("an unchanged tree differs: %s", diffs)
	}
	at := func(path string) string { return filepath.Join(root, path) }
	for _, c := range []struct {
		name   string
		change func() error
	}{
		{"content", func() error { return os.WriteFile(at("sticky/deep/big"), []byte("x"), 0) }},
		{"one byte", func() error { return os.WriteFile(at("small"), []byte("Small\n"), 0) }},
		{"mode", func() error { return os.Chmod(at("empty"), 0o700) }},
		{"xattr", func() error { return unix.Setxattr(at("small"), "user.short", []byte("w"), 0) }},
		{"no xattr", func() error { return unix.Removexattr(at("small"), "user.empty") }},
		{"name", func() error { return os.Rename(at("none"), at("none2")) }},
		{"new", func() error { return os.Mkdir(at("new"), 0o755) }},
		{"target", func() error {
			return unix.Unlinkat(unix.AT_FDCWD, at("link"), 0)
		}},
		{"links", func() error { return os.Remove(at("hard")) }},
	} {
		need(t, c.change())
		after := readTree(t, root)
		if len(differences(before, after, portable)) == 0 {
			t.Errorf("change of %s makes no difference", c.name)
		}
		before = after
	}
	need(t, syscall.Utimes(at("sticky/hard"), []syscall.Timeval{{Sec: 7}, {Sec: 8}}))
	after := readTree(t, root)
	if len(differences(before, after, portable)) != 0 || len(differences(before, after, aspectTimes)) == 0 {
		t.Error("times count when they should not, or the other way round")
	}
}

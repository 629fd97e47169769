package snapfs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// scribe plays one script in a directory of ext4 and in one of snapfs; what it notes must be the same.
type scribe struct {
	testing.TB
	dir    string
	notes  []string
	settle func() // waits for what a call leaves to do; nil if there is nothing
}

// asExt4 runs a script on both and compares the notes. ext4 is made in an image, which takes root and a loop device.
func asExt4(t *testing.T, live string, script func(*scribe)) {
	t.Helper()
	native, ours := &scribe{TB: t, dir: ext4Dir(t)}, &scribe{TB: t, dir: live}
	script(native)
	script(ours)
	for i, want := range native.notes {
		if i >= len(ours.notes) {
			t.Fatalf("only %d notes of %d", i, len(native.notes))
		}
		if got := ours.notes[i]; got != want {
			t.Errorf("note %d\n got %s\next4 %s", i, got, want)
		}
	}
}

// ext4Dir mounts a new ext4 until the end of the test.
func ext4Dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	need(t, os.Chmod(filepath.Dir(dir), 0o755))
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "ext4")
	need(t, os.Mkdir(point, 0o755))
	writeFile(t, image, "")
	need(t, os.Truncate(image, 64<<20))
	run(t, dir, "mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image)
	if out, err := exec.Command("mount", "-o", "loop", image, point).CombinedOutput(); err != nil {
		t.Skipf("no loop mounts here: %v: %s", err, out)
	}
	t.Cleanup(func() { need(t, unix.Unmount(point, 0)) })
	return point
}

func (w *scribe) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// did notes the outcome of a call.
func (w *scribe) did(what string, err error) {
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		w.Fatal(err)
	}
	w.notes = append(w.notes, fmt.Sprintf("%s: %d %v", what, errno, err != nil))
}

// shows notes mode, owner and access control lists of a file.
func (w *scribe) shows(name string) {
	w.Helper()
	var st unix.Stat_t
	need(w, unix.Lstat(w.path(name), &st))
	list := make([]byte, 1000)
	n, err := unix.Llistxattr(w.path(name), list)
	need(w, err)
	names := strings.Split(string(list[:n]), "\x00")
	slices.Sort(names)
	w.notes = append(w.notes, fmt.Sprintf("%s: %o %d:%d access %s default %s; lists %q", name, st.Mode, st.Uid, st.Gid,
		aclOf(w.path(name), accessACL), aclOf(w.path(name), defaultACL), names))
}

var aclTags = []string{1: "u", 2: "U", 4: "g", 8: "G", 16: "m", 32: "o"}

// aclOf returns a list in the form that aclBytes reads, or the errno of asking for it.
func aclOf(path, name string) string {
	b := make([]byte, 1000)
	n, err := unix.Lgetxattr(path, name, b)
	if err != nil {
		return err.Error()
	}
	var words []string
	for b = b[4:n]; len(b) > 0; b = b[8:] {
		word := aclTags[binary.LittleEndian.Uint16(b)] + strconv.Itoa(int(binary.LittleEndian.Uint16(b[2:])))
		if id := binary.LittleEndian.Uint32(b[4:]); id != 1<<32-1 {
			word += ":" + strconv.Itoa(int(id))
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// aclBytes makes the value of a list: "u7 U4:1000 g5 G6:77 m7 o0" names the owner, a user, the group, a group, the mask
// and the others.
func aclBytes(text string) []byte {
	b := []byte{2, 0, 0, 0}
	for _, word := range strings.Fields(text) {
		perm, id, named := strings.Cut(word[1:], ":")
		who := 1<<32 - 1
		if named {
			who, _ = strconv.Atoi(id)
		}
		rights, _ := strconv.Atoi(perm)
		b = binary.LittleEndian.AppendUint16(b, uint16(slices.Index(aclTags, word[:1])))
		b = binary.LittleEndian.AppendUint16(b, uint16(rights))
		b = binary.LittleEndian.AppendUint32(b, uint32(who))
	}
	return b
}

func setACL(path, name, text string) error { return unix.Lsetxattr(path, name, aclBytes(text), 0) }

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// TestACLs goes through everything that changes a list or a mode, as ext4 does.
func TestACLs(t *testing.T) {
	needRoot(t)
	m := newMount(t)
	asExt4(t, m.mnt, func(w *scribe) {
		need(w, os.Chmod(w.dir, 0o777))
		writeFile(w, w.path("f"), "x")
		for _, text := range []string{"u6 g4 o0", "u6 U7:1000 g4 m6 o0", "u7 U7:1000 U1:1001 g0 G5:77 m5 o1", "u7 g5 m2 o0"} {
			w.did("set "+text, setACL(w.path("f"), accessACL, text))
			w.shows("f")
		}
		for _, text := range []string{"u6 g4", "u6 U7:1000 g4 o0", "u6 g4 o0 m7", "u6 g4 m7 m7 o0", "u6 g8 o0", "o0 g4 u6", ""} {
			w.did("set "+text, setACL(w.path("f"), accessACL, text))
			w.shows("f")
		}
		w.did("version", unix.Setxattr(w.path("f"), accessACL, append([]byte{3}, aclBytes("u6 g4 o0")[1:]...), 0))
		w.did("short", unix.Setxattr(w.path("f"), accessACL, []byte{2, 0, 0, 0, 1, 0}, 0))
		need(w, setACL(w.path("f"), accessACL, "u6 U7:1000 g4 m6 o0"))
		for _, mode := range []uint32{0o640, 0o777, 0o4701, 0} {
			w.did(fmt.Sprintf("chmod %o", mode), unix.Chmod(w.path("f"), mode))
			w.shows("f")
		}
		w.did("create flag", unix.Setxattr(w.path("f"), accessACL, aclBytes("u6 g4 m1 o0"), unix.XATTR_CREATE))
		w.shows("f")
		w.did("chown", os.Chown(w.path("f"), 1000, 77))
		w.shows("f")
		w.did("remove", unix.Removexattr(w.path("f"), accessACL))
		w.shows("f")
		w.did("remove again", unix.Removexattr(w.path("f"), accessACL))
		w.did("default of a file", setACL(w.path("f"), defaultACL, "u7 g7 o7"))
		w.did("remove default of a file", unix.Removexattr(w.path("f"), defaultACL))
		w.did("stranger", asUser(1001, func() error { return setACL(w.path("f"), accessACL, "u7 g7 o7") }))
		need(w, os.Symlink("f", w.path("link")))
		w.did("symlink", setACL(w.path("link"), accessACL, "u7 g7 o7"))
		w.shows("link")
		w.did("another name", unix.Setxattr(w.path("f"), "system.other", nil, 0))
	})
}

// TestDefaultACLs makes inodes of every type, with every kind of default list.
func TestDefaultACLs(t *testing.T) {
	needRoot(t)
	m := newMount(t)
	asExt4(t, m.mnt, func(w *scribe) {
		for i, text := range []string{"", "u7 g5 o0", "u7 U7:1000 g5 m7 o0", "u5 U7:1000 g7 G7:77 m5 o5", "u0 g0 m0 o0"} {
			dir := fmt.Sprintf("d%d", i)
			need(w, os.Mkdir(w.path(dir), 0o777))
			need(w, unix.Chmod(w.path(dir), 0o2777))
			need(w, os.Chown(w.path(dir), 0, 77))
			if text != "" {
				w.did("set "+text, setACL(w.path(dir), defaultACL, text))
			}
			w.shows(dir)
			for _, mode := range []uint32{0o666, 0o777, 0o6711, 0} {
				for _, what := range slices.Sorted(maps.Keys(makers)) {
					name := filepath.Join(dir, fmt.Sprintf("%s%o", what, mode))
					err := underMask(0o027, func() error { return makers[what](w.path(name), mode) })
					if err != nil {
						w.did(name, err)
					}
				}
			}
			entries, err := os.ReadDir(w.path(dir))
			need(w, err)
			for _, e := range entries {
				w.shows(filepath.Join(dir, e.Name()))
			}
			w.did("remove", unix.Removexattr(w.path(dir), defaultACL))
			w.shows(dir)
			writeFile(w, w.path(dir, "plain"), "")
			w.shows(filepath.Join(dir, "plain"))
		}
	})
}

// makers make an inode of each type at a path.
var makers = map[string]func(path string, mode uint32) error{
	"file": func(path string, mode uint32) error {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, mode)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	},
	"dir":    unix.Mkdir,
	"fifo":   func(path string, mode uint32) error { return unix.Mknod(path, unix.S_IFIFO|mode, 0) },
	"device": func(path string, mode uint32) error { return unix.Mknod(path, unix.S_IFCHR|mode, 0x103) },
	"link":   func(path string, _ uint32) error { return unix.Symlink("target", path) },
}

// underMask runs do on a thread with a umask of its own.
func underMask(mask int, do func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		unix.Umask(mask)
		return do()
	})
}

// TestACLsAreObeyed: by the kernel, in the live tree, after a change, in snapshots and after a remount.
func TestACLsAreObeyed(t *testing.T) {
	needRoot(t)
	m := newMount(t)
	need(t, os.Chmod(m.mnt, 0o755))
	writeFile(t, m.live("f"), "secret")
	need(t, os.Chmod(m.live("f"), 0o600))
	need(t, os.Mkdir(m.live("d"), 0o700))
	writeFile(t, m.live("d/in"), "inside")
	reads := func(uid int, path, text string) {
		t.Helper()
		err := asUser(uid, func() error {
			got, err := os.ReadFile(path)
			if err == nil && string(got) != text {
				t.Errorf("%s holds %q", path, got)
			}
			return err
		})
		if text == "" {
			wantErrno(t, "read of "+path, err, unix.EACCES)
		} else if err != nil {
			t.Errorf("user %d: %v", uid, err)
		}
	}
	m.snapshot("closed")
	reads(1000, m.live("f"), "")
	need(t, setACL(m.live("f"), accessACL, "u6 U4:1000 g0 m4 o0"))
	need(t, setACL(m.live("d"), accessACL, "u7 U5:1000 g0 m5 o0"))
	check := func() {
		t.Helper()
		reads(1000, m.live("f"), "secret")
		reads(1001, m.live("f"), "")
		reads(1000, m.live("d/in"), "inside")
		reads(1001, m.live("d/in"), "")
		reads(1000, m.frozen("closed", "f"), "")
		reads(1000, m.frozen("closed", "d/in"), "")
	}
	check()
	m.snapshot("open")
	m.remount()
	check()
	reads(1000, m.frozen("open", "f"), "secret")
	need(t, os.Chmod(m.live("f"), 0o600)) // the mask becomes 0
	need(t, unix.Removexattr(m.live("d"), accessACL))
	need(t, os.Chmod(m.live("d"), 0o700))
	reads(1000, m.live("f"), "")
	reads(1000, m.live("d/in"), "")
	reads(1000, m.frozen("open", "f"), "secret")
	reads(1000, m.frozen("open", "d/in"), "inside")
	reads(1001, m.frozen("open", "d/in"), "")
	if got := aclOf(m.frozen("open", "f"), accessACL); got != "u6 U4:1000 g0 m4 o0" {
		t.Errorf("the list in the snapshot is %s", got)
	}
	wantErrno(t, "set in a snapshot", setACL(m.frozen("open", "f"), accessACL, "u7 g7 o7"), unix.EROFS)
	wantErrno(t, "remove in a snapshot", unix.Removexattr(m.frozen("open", "f"), accessACL), unix.EROFS)
	need(t, asUser(1000, func() error { _, err := os.ReadDir(m.frozen("")); return err })) // rights without a list
}

// TestACLClearsSetgid: who is not in the file's group and has no right to keep the bit loses it, as with chmod(2).
func TestACLClearsSetgid(t *testing.T) {
	needRoot(t)
	m := newMount(t)
	asExt4(t, m.mnt, func(w *scribe) {
		need(w, os.Chmod(w.dir, 0o777))
		for i, text := range []string{"u7 g7 o0", "u7 U7:1001 g7 m7 o0"} {
			name := fmt.Sprintf("f%d", i)
			writeFile(w, w.path(name), "")
			need(w, os.Chown(w.path(name), 1000, 77))
			need(w, unix.Chmod(w.path(name), 0o6770))
			w.did("by root", setACL(w.path(name), accessACL, text))
			w.shows(name)
			w.did("by its owner", asUser(1000, func() error { return setACL(w.path(name), accessACL, text) }))
			w.shows(name)
		}
	})
}

// TestNoACL: without lists nothing is kept that nobody would obey.
func TestNoACL(t *testing.T) {
	needRoot(t)
	m := newMount(t, func(m *mounted) { m.opt.NoACL = true })
	writeFile(t, m.live("f"), "")
	wantErrno(t, "set", setACL(m.live("f"), accessACL, "u6 U4:1000 g0 m4 o0"), unix.EOPNOTSUPP)
	_, err := unix.Getxattr(m.live("f"), accessACL, nil)
	wantErrno(t, "get", err, unix.EOPNOTSUPP)
	need(t, underMask(0o027, func() error { return unix.Mkdir(m.live("d"), 0o777) }))
	var st unix.Stat_t
	need(t, unix.Stat(m.live("d"), &st))
	if st.Mode&0o777 != 0o750 {
		t.Errorf("a new directory has mode %o", st.Mode)
	}
}

package snapfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// person is somebody who uses root's mount.
type person struct {
	name     string
	uid, gid int
	groups   []uint32
}

var people = []person{{"alice", alice, alice, nil}, {"bob", bob, bob, []uint32{team}}, {"carol", 1003, 1003, nil}}

// does runs do as the person.
func (w person) does(t testing.TB, do func() error) {
	t.Helper()
	err := onThread(func() error {
		if err := become(w.uid, w.gid, w.groups...); err != nil {
			return err
		}
		return do()
	})
	if err != nil {
		t.Errorf("%s: %v", w.name, err)
	}
}

// rights tells what the calling thread may do with a path: errnos of reading, writing and searching or executing.
func rights(path string) (errs [3]error) {
	for i, mode := range [...]uint32{unix.R_OK, unix.W_OK, unix.X_OK} {
		errs[i] = faccessat2(unix.AT_FDCWD, path, mode, unix.AT_EACCESS)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Close(fd)
	}
	if (err == nil) != (errs[0] == nil) {
		errs[0] = fmt.Errorf("access says %v, open %v", errs[0], err)
	}
	return errs
}

// rightsTree makes files and directories of several owners with all modes that matter, and returns their paths below root.
func rightsTree(t testing.TB, root string) (paths []string) {
	for i, owner := range [][2]int{{0, 0}, {alice, alice}, {alice, team}, {bob, alice}} {
		for _, mode := range []uint32{0o755, 0o750, 0o700, 0o711, 0o744, 0o705, 0o007, 0o070, 0o000, 0o4755} {
			dir := fmt.Sprintf("d%d-%o", i, mode)
			file := filepath.Join(dir, "file")
			need(t, os.Mkdir(filepath.Join(root, dir), 0o755))
			writeFile(t, filepath.Join(root, file), "text")
			for _, path := range []string{file, dir} {
				need(t, os.Chown(filepath.Join(root, path), owner[0], owner[1]))
				need(t, unix.Chmod(filepath.Join(root, path), mode))
			}
			paths = append(paths, dir, file)
		}
	}
	return paths
}

// TestRightsInSnapshots: in a snapshot everybody has the rights that he had when it was taken, but for writing: no more when files were
// opened up afterwards, and no others when they, or directories above, were closed.
func TestRightsInSnapshots(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	m := newMount(t)
	paths := rightsTree(t, m.mnt)
	type key struct{ who, path string }
	had := make(map[key][3]error)
	each := func(do func(k key, path string)) {
		for _, w := range people {
			w.does(t, func() error {
				for _, path := range paths {
					do(key{w.name, path}, path)
				}
				return nil
			})
		}
	}
	each(func(k key, path string) { had[k] = rights(m.live(path)) })
	m.snapshot("s")
	check := func(when string) {
		t.Helper()
		each(func(k key, path string) {
			// access(2) goes by the mode alone; a right to write has no effect, see docs/posix.md.
			if want, got := had[k], rights(m.frozen("s", path)); got != want {
				t.Errorf("%s: %s has %v on frozen %s, had %v", when, k.who, got, path, want)
			}
			fd, err := unix.Open(m.frozen("s", path), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
				t.Errorf("%s: %s opens frozen %s for writing", when, k.who, path)
			}
		})
	}
	check("at once")
	for _, path := range paths {
		need(t, unix.Chmod(m.live(path), 0o777))
	}
	check("opened up")
	for _, path := range paths {
		need(t, os.Chown(m.live(path), 0, 0))
		need(t, unix.Chmod(m.live(path), 0o700))
	}
	check("closed")
	m.remount()
	check("mounted again")
	need(t, os.RemoveAll(m.live("d0-755")))
	need(t, unix.Chmod(m.mnt, 0o700)) // now nobody gets to .snapshots
	each(func(k key, path string) {
		for _, path := range []string{m.frozen("s", path), m.frozen("s"), m.live(".snapshots")} {
			wantErrno(t, k.who+" below a closed root", faccessat2(unix.AT_FDCWD, path, unix.F_OK, 0), unix.EACCES)
		}
	})
	m.snapshot("closed")
	need(t, unix.Chmod(m.mnt, 0o755))
	people[0].does(t, func() error {
		_, err := os.ReadDir(m.frozen("closed"))
		wantErrno(t, "a root that was closed", err, unix.EACCES)
		_, err = os.ReadDir(m.frozen("s"))
		return err
	})
}

// TestStrangersAndSnapshots: who is not the owner of the mount looks at .snapshots, and changes nothing there or in the store.
func TestStrangersAndSnapshots(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	m := newMount(t)
	need(t, unix.Chmod(m.mnt, 0o777))
	writeFile(t, m.live("file"), "text")
	need(t, unix.Chmod(m.live("file"), 0o666))
	m.snapshot("s")
	people[1].does(t, func() error {
		if _, err := os.ReadDir(m.live(".snapshots")); err != nil {
			return err
		}
		for what, err := range map[string]error{
			"take a snapshot": os.Mkdir(m.frozen("mine"), 0o755), "delete one": os.Remove(m.frozen("s")), "rename one": os.Rename(m.frozen("s"), m.frozen("t")),
			"make a file": os.WriteFile(m.frozen("f"), nil, 0o644), "make a link": os.Symlink("s", m.frozen("l")),
		} {
			wantErrno(t, what, err, unix.EACCES)
		}
		wantErrno(t, "chmod", unix.Chmod(m.live(".snapshots"), 0o777), unix.EPERM)
		wantErrno(t, "move .snapshots", os.Rename(m.live(".snapshots"), m.live("x")), unix.EBUSY)
		wantErrno(t, "write to a frozen file", os.WriteFile(m.frozen("s", "file"), nil, 0), unix.EROFS)
		wantErrno(t, "remove a frozen file", os.Remove(m.frozen("s", "file")), unix.EROFS)
		_, err := os.ReadDir(m.storeDir)
		wantErrno(t, "list the store", err, unix.EACCES)
		return nil
	})
	m.stop()
	need(t, os.Chmod(m.storeDir, 0o755))
	m.start()
	info, err := os.Stat(m.storeDir)
	need(t, err)
	if info.Mode().Perm() != 0o700 { // what is in it relies on that
		t.Errorf("the store has mode %v", info.Mode())
	}
}

// TestStrangersKeepBits: chown(2) to nobody else, by somebody who is not the owner, does not clear setuid and setgid bits.
func TestStrangersKeepBits(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	m := newMount(t)
	writeFile(t, m.live("file"), "text")
	need(t, os.Chown(m.live("file"), alice, alice))
	need(t, unix.Chmod(m.live("file"), 0o6755))
	people[1].does(t, func() error {
		wantErrno(t, "chown of a foreign file", unix.Chown(m.live("file"), -1, -1), unix.EPERM)
		return nil
	})
	var st unix.Stat_t
	need(t, unix.Stat(m.live("file"), &st))
	if st.Mode&0o7777 != 0o6755 {
		t.Errorf("the mode is %o", st.Mode)
	}
	people[0].does(t, func() error { return unix.Chown(m.live("file"), -1, -1) })
	need(t, unix.Stat(m.live("file"), &st))
	if st.Mode&0o7777 != 0o755 {
		t.Errorf("after a chown of the owner the mode is %o", st.Mode)
	}
}

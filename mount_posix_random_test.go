package snapfs_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// step is one call on the names of a small tree.
type step struct {
	name string
	call func(root, a, b string, n int) error
}

var steps = []step{
	{"mkdir", func(root, a, _ string, n int) error { return unix.Mkdir(root+a, uint32(0o700+n)) }},
	{"mkfile", func(root, a, _ string, n int) error { return unix.Mknod(root+a, unix.S_IFREG|uint32(0o600+n), 0) }},
	{"mkfifo", func(root, a, _ string, _ int) error { return unix.Mkfifo(root+a, 0o600) }},
	{"symlink", func(root, a, b string, _ int) error { return unix.Symlink(filepath.Base(b), root+a) }},
	{"link", func(root, a, b string, _ int) error { return unix.Link(root+a, root+b) }},
	{"unlink", func(root, a, _ string, _ int) error { return unix.Unlink(root + a) }},
	{"rmdir", func(root, a, _ string, _ int) error { return unix.Rmdir(root + a) }},
	{"rename", func(root, a, b string, _ int) error { return rename(root+a, root+b, 0) }},
	{"rename", func(root, a, b string, _ int) error { return rename(root+a, root+b, 0) }},
	{"renamenew", func(root, a, b string, _ int) error { return rename(root+a, root+b, unix.RENAME_NOREPLACE) }},
	{"exchange", func(root, a, b string, _ int) error { return rename(root+a, root+b, unix.RENAME_EXCHANGE) }},
	{"chmod", func(root, a, _ string, n int) error { return unix.Chmod(root+a, uint32(n)) }},
	{"truncate", func(root, a, _ string, n int) error { return unix.Truncate(root+a, int64(n)) }},
	{"append", func(root, a, _ string, n int) error {
		return changeIfFile(root+a, func(fd int) error { _, err := unix.Pwrite(fd, []byte("data"), int64(n)*100); return err })
	}},
	{"setxattr", func(root, a, _ string, n int) error { return unix.Setxattr(root+a, "user.x", []byte(fmt.Sprint(n)), 0) }},
	{"removexattr", func(root, a, _ string, _ int) error { return unix.Removexattr(root+a, "user.x") }},
	{"readlink", func(root, a, _ string, _ int) error { _, err := unix.Readlink(root+a, make([]byte, 100)); return err }},
}

// changeIfFile is changeFile for what may be a fifo.
func changeIfFile(path string, call func(fd int) error) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return call(fd)
}

// TestRandomLikeExt4 makes the same random changes of names in a directory of ext4 and in one of snapfs, with snapshots in between. Every
// call has to end alike, and so have the trees; a snapshot stays what ext4 was at its moment.
func TestRandomLikeExt4(t *testing.T) {
	ext4, m := newExt4(t), newMount(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		name := fmt.Sprint("run", run)
		a, b := filepath.Join(ext4, name), m.live(name)
		need(t, unix.Mkdir(a, 0o755))
		need(t, unix.Mkdir(b, 0o755))
		frozen := make(map[string]tree4)
		var held [2][]int // open on both
		n := rapid.IntRange(1, 60).Draw(rt, "steps")
		for range n {
			randomStep(rt, a, b, &held)
			if rapid.IntRange(0, 25).Draw(rt, "snapshot") == 0 {
				s := fmt.Sprint(name, "-", len(frozen))
				m.snapshot(s)
				frozen[s] = look(t, a)
			}
		}
		sameLook(rt, "the live tree", look(t, a), look(t, b))
		for i := range held[0] {
			if want, got := statOf(held[0][i]), statOf(held[1][i]); want != got {
				rt.Fatalf("what is held open is %s on ext4, %s on snapfs", want, got)
			}
			unix.Close(held[0][i])
			unix.Close(held[1][i])
		}
		for s, want := range frozen {
			sameLook(rt, "snapshot "+s, want, look(t, m.frozen(s, name)))
			need(t, unix.Rmdir(m.frozen(s)))
		}
	})
}

// randomStep makes one call on both trees.
func randomStep(rt *rapid.T, a, b string, held *[2][]int) {
	names := rapid.SampledFrom([]string{"a", "b", "c"})
	path := rapid.Custom(func(rt *rapid.T) (p string) {
		for range rapid.IntRange(1, 3).Draw(rt, "depth") {
			p += "/" + names.Draw(rt, "name")
		}
		return p
	})
	x, y := path.Draw(rt, "x"), path.Draw(rt, "y")
	mode := rapid.IntRange(0, 0o177).Draw(rt, "n")
	if rapid.IntRange(0, 9).Draw(rt, "hold") == 0 {
		for i, root := range []string{a, b} {
			if fd, err := unix.Open(root+x, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
				held[i] = append(held[i], fd)
			}
		}
		if len(held[0]) != len(held[1]) {
			rt.Fatalf("%s exists on one of them only", x)
		}
		return
	}
	s := rapid.SampledFrom(steps).Draw(rt, "step")
	want, got := s.call(a, x, y, mode), s.call(b, x, y, mode)
	if want != got {
		rt.Fatalf("%s %s %s %d: ext4 says %v, snapfs %v", s.name, x, y, mode, want, got)
	}
}

func statOf(fd int) string {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return err.Error()
	}
	return statText(&st)
}

// sameLook compares all but times and inode numbers; those have to show the same hard links.
func sameLook(rt *rapid.T, what string, want, got tree4) {
	if w, g := slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)); !slices.Equal(w, g) {
		rt.Fatalf("%s: ext4 has %q, snapfs %q", what, w, g)
	}
	same := make(map[uint64]uint64)
	for path, w := range want {
		g := got[path]
		if w.text != g.text {
			rt.Fatalf("%s: %s is %s on ext4, %s on snapfs", what, path, w.text, g.text)
		}
		if ino, ok := same[w.ino]; ok && ino != g.ino {
			rt.Fatalf("%s: %s is a hard link on ext4 only", what, path)
		}
		same[w.ino] = g.ino
	}
}

package snapfs_test

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// place is a directory of some file system in which a script of system calls runs. It writes down what every call returned
// and what it changed, so that the records of two file systems can be compared line by line.
type place struct {
	t     *testing.T
	dir   string // absolute; the working directory of the script's thread
	lines []line
	seen  tree4 // after the last call
	blind bool  // do not look at the tree after each call
	rough bool  // do not look at times
	fine  bool  // the file system stamps with a clock so fine that no two calls get the same time
}

// line is the record of one call.
type line struct{ call, result, changes string }

func (l line) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s = %s; %s", l.call, l.result, l.changes), "; ")
}

// play runs a script in dir, which it makes, on a thread with a working directory and a umask of its own.
func play(t *testing.T, dir string, fine bool, script func(*place)) []line {
	t.Helper()
	need(t, os.MkdirAll(dir, 0o755))
	p := &place{t: t, dir: dir, fine: fine}
	p.thread(func() error {
		p.look()
		p.tick()
		script(p)
		return nil
	})
	return p.lines
}

// thread runs do on a thread of its own in the place.
func (p *place) thread(do func() error) {
	p.t.Helper()
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		unix.Umask(0o022)
		if err := unix.Chdir(p.dir); err != nil {
			return err
		}
		defer unix.Chdir("/") // what is somebody's working directory cannot be unmounted
		return do()
	})
	need(p.t, err)
}

// as runs a part of a script as somebody else: only his thread changes.
func (p *place) as(uid, gid int, do func()) {
	p.t.Helper()
	p.thread(func() error {
		if err := become(uid, gid); err != nil {
			return err
		}
		do()
		return nil
	})
}

// become makes the calling thread somebody else for good, without the capabilities of root. Package syscall would
// change every thread of the process.
func become(uid, gid int, groups ...uint32) error {
	list := make([]uint32, 0, 1)
	list = append(list, groups...)
	if err := setGroups(list); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return fmt.Errorf("setresgid: %w", errno)
	}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return fmt.Errorf("setresuid: %w", errno)
	}
	return nil
}

// did records a call: what it was, how it ended, and what it changed.
func (p *place) did(call string, err error, results ...any) {
	p.t.Helper()
	l := line{call: call, result: "ok"}
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		l.result = unix.ErrnoName(errno)
	case err != nil:
		l.result = err.Error()
	default:
		if text := strings.TrimSpace(fmt.Sprintln(results...)); text != "" {
			l.result = text
		}
	}
	if !p.blind {
		before := p.seen
		p.look()
		l.changes = before.changes(p.seen, !p.rough)
	}
	p.lines = append(p.lines, l)
	if !p.blind && !p.rough && !p.fine {
		p.tick()
	}
}

// look remembers what is to be seen now. It is root who looks, whoever the calling thread is.
func (p *place) look() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.seen = look(p.t, p.dir)
	}()
	<-done
}

// clear removes a tree without a record.
func (p *place) clear(path string) {
	p.t.Helper()
	need(p.t, os.RemoveAll(path))
	p.look()
}

// tick waits until the clock that file systems stamp with has moved on, so that each call has a time of its own.
func (p *place) tick() {
	var from, now unix.Timespec
	need(p.t, unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &from))
	for now = from; now == from; {
		time.Sleep(500 * time.Microsecond)
		need(p.t, unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now))
	}
}

// tree4 is what can be seen of a tree with the four times of every inode.
type tree4 map[string]sight

// sight is what can be seen of one entry.
type sight struct {
	text  string // all but the times
	ino   uint64
	times [4]unix.StatxTimestamp
}

// timeLetters name the times of a sight. atime is not followed: mount_times_test.go has its rules.
const timeLetters = "amcb"

// look reads the tree below dir; "." is dir.
func look(t *testing.T, dir string) tree4 {
	t.Helper()
	seen := make(tree4)
	var walk func(rel string, kind byte)
	walk = func(rel string, kind byte) {
		s, mode := glance(t, filepath.Join(dir, rel), false)
		seen[rel] = s
		if kind != 0 && uint32(kind)<<12 != mode&unix.S_IFMT {
			t.Errorf("%s is listed with type %d and has mode %o", rel, kind, mode)
		}
		if mode&unix.S_IFMT != unix.S_IFDIR {
			return
		}
		for _, e := range listing(t, filepath.Join(dir, rel)) {
			walk(filepath.Join(rel, e.name), e.kind)
		}
	}
	walk(".", 0)
	return seen
}

// glance reads one entry; its link count, type, size and so on as text.
func glance(t *testing.T, path string, follow bool) (sight, uint32) {
	t.Helper()
	flags := unix.AT_SYMLINK_NOFOLLOW
	if follow {
		flags = 0
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		t.Fatalf("statx %.100s: %v", path, err)
	}
	text := statText(&st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if text += " " + contentText(t, path, st.Size); st.Mask&unix.STATX_BTIME == 0 {
			t.Errorf("%s has no time of birth", path)
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		need(t, err)
		text += fmt.Sprintf(" -> %.60q", target)
	}
	xattrs, err := readXattrs(path)
	need(t, err)
	s := sight{text: strings.TrimSpace(text + " " + xattrs), ino: st.Ino}
	s.times = [4]unix.StatxTimestamp{st.Atime, st.Mtime, st.Ctime, st.Btime}
	return s, uint32(st.Mode)
}

func statText(st *unix.Statx_t) string {
	text := fmt.Sprintf("%o links=%d %d:%d", st.Mode, st.Nlink, st.Uid, st.Gid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFLNK:
		text += fmt.Sprintf(" size=%d", st.Size)
	case unix.S_IFCHR, unix.S_IFBLK:
		text += fmt.Sprintf(" dev=%d,%d", st.Rdev_major, st.Rdev_minor)
	}
	return text
}

// contentText shows what is in a file, if that is short.
func contentText(t *testing.T, path string, size uint64) string {
	t.Helper()
	if size == 0 || size > 1<<20 {
		return ""
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	need(t, err)
	defer unix.Close(fd)
	buf := make([]byte, size)
	n, err := unix.Pread(fd, buf, 0)
	need(t, err)
	if n > 40 {
		return fmt.Sprintf("%q...%x", buf[:20], crc(buf[:n]))
	}
	return fmt.Sprintf("%q", buf[:n])
}

// changes tells two looks apart.
func (before tree4) changes(after tree4, times bool) string {
	var all []string
	was := make(map[uint64]string) // the first path of every inode before
	for path, s := range before {
		if first, ok := was[s.ino]; !ok || path < first {
			was[s.ino] = path
		}
		if _, ok := after[path]; !ok {
			all = append(all, "-"+path)
		}
	}
	for path, now := range after {
		old, ok := before[path]
		switch first, known := was[now.ino]; {
		case ok && old.ino == now.ino:
			if old.text != now.text {
				all = append(all, fmt.Sprintf("%s: %s => %s", path, old.text, now.text))
			}
		case known:
			all = append(all, fmt.Sprintf("+%s was %s: %s", path, first, now.text))
			old, ok = before[first], true
		default:
			all = append(all, fmt.Sprintf("+%s: %s", path, now.text))
		}
		if moved := old.moved(now); times && ok && old.ino == now.ino && moved != "" {
			all = append(all, path+" ~"+moved)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// moved names the times that differ.
func (s sight) moved(now sight) (letters string) {
	for i, letter := range timeLetters {
		if i != 0 && cmp.Compare(fmt.Sprint(s.times[i]), fmt.Sprint(now.times[i])) != 0 {
			letters += string(letter)
		}
	}
	return letters
}

// dirEntry is an entry as getdents64(2) gives it.
type dirEntry struct {
	name string
	ino  uint64
	off  int64
	kind byte // DT_*
}

// listing returns the entries of a directory but for "." and "..", which have to be there, sorted by name.
func listing(t *testing.T, path string) []dirEntry {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	need(t, err)
	defer unix.Close(fd)
	buf := make([]byte, 32<<10)
	var all []dirEntry
	dots := 0
	for {
		ents, err := getdents(fd, buf)
		need(t, err)
		if len(ents) == 0 {
			break
		}
		for _, e := range ents {
			if e.name == "." || e.name == ".." {
				dots++
				continue
			}
			all = append(all, e)
		}
	}
	if dots != 2 {
		t.Errorf("%s lists %d of . and ..", path, dots)
	}
	slices.SortFunc(all, func(a, b dirEntry) int { return cmp.Compare(a.name, b.name) })
	return all
}

package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// TestNothingIsLeftOfAnEpoch: what comes and goes within one epoch leaves no key behind.
func TestNothingIsLeftOfAnEpoch(t *testing.T) {
	s := newSpace(t)
	defer s.close(t)
	a, err := s.live.Create(Root, "f", Spec{Mode: syscall.S_IFREG | 0o600})
	if err != nil {
		t.Fatal(err)
	}
	agree(t, "setxattr", s.live.SetXattr(a.Ino, "user.x", []byte("x"), 0), nil)
	agree(t, "unlink", s.live.Unlink(Root, "f"), nil)
	if _, err := s.live.Stat(a.Ino); err != nil {
		t.Errorf("unlinked, but known to the kernel: %v", err)
	}
	s.live.Forget(a.Ino)
	if _, err := s.live.Stat(a.Ino); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("forgotten: %v", err)
	}
	for _, k := range []meta.Key{meta.InodeKeyOf(a.Ino), meta.XattrKeyOf(a.Ino, "user.x"), s.db.DirentKeyOf(Root, "f")} {
		if vs, err := s.db.Versions(k); err != nil || len(vs) != 0 {
			t.Errorf("key %q has versions %v, %v", k, vs, err)
		}
	}
	var touched []meta.Key
	if err := s.db.Touched(0, 9, func(_ cow.Epoch, k meta.Key) bool { touched = append(touched, k); return true }); err != nil {
		t.Fatal(err)
	}
	if want := []meta.Key{meta.InodeKeyOf(Root)}; !slices.Equal(touched, want) {
		t.Errorf("touched %q, want the root only", touched)
	}
}

func TestBadRequests(t *testing.T) {
	s := newSpace(t)
	defer s.close(t)
	l := s.live
	long := string(make([]byte, 256))
	file := Spec{Mode: syscall.S_IFREG | 0o600}
	a, err := l.Create(Root, "f", file)
	agree(t, "create", err, nil)
	_, err = l.Create(a.Ino, "x", file)
	agree(t, "create in a file", err, syscall.ENOTDIR)
	_, err = l.Create(99, "x", file)
	agree(t, "create in nothing", err, syscall.ENOENT)
	_, err = l.Create(Root, fmt.Sprintf("%0256d", 1), file)
	agree(t, "create a long name", err, syscall.ENAMETOOLONG)
	for _, name := range []string{"", ".", "..", "a/b", "a\x00"} {
		_, err = l.Create(Root, name, file)
		agree(t, "create "+name, err, syscall.EINVAL)
	}
	_, err = l.Create(Root, "l", Spec{Mode: syscall.S_IFLNK, Target: fmt.Sprintf("%04096d", 1)})
	agree(t, "create a long link", err, syscall.ENAMETOOLONG)
	_, err = l.Create(Root, "u", Spec{Mode: 0o600})
	agree(t, "create no type", err, syscall.EINVAL)
	_, err = l.Lookup(a.Ino, "x")
	agree(t, "lookup in a file", err, syscall.ENOTDIR)
	_, err = l.Readlink(a.Ino)
	agree(t, "readlink of a file", err, syscall.EINVAL)
	_, err = l.OpenFile(Root)
	agree(t, "open a directory", err, syscall.EISDIR)
	_, err = l.SetAttr(Root, Change{Set: SetSize})
	agree(t, "truncate a directory", err, syscall.EISDIR)
	_, err = l.SetAttr(a.Ino, Change{Set: SetSize, Size: -1})
	agree(t, "truncate below zero", err, syscall.EINVAL)
	agree(t, "xattr name", l.SetXattr(a.Ino, "user."+long, nil, 0), syscall.ERANGE)
	agree(t, "xattr value", l.SetXattr(a.Ino, "user.x", make([]byte, maxXattr+1), 0), syscall.E2BIG)
	agree(t, "xattr acl", l.SetXattr(a.Ino, accessACL, nil, 0), syscall.EINVAL)
	agree(t, "xattr system", l.SetXattr(a.Ino, "system.other", nil, 0), syscall.EOPNOTSUPP)
	_, err = l.Xattr(a.Ino, "user.x")
	agree(t, "no xattr", err, syscall.ENODATA)
	agree(t, "rename flags", failure(l.Rename(Root, "f", Root, "g", unix.RENAME_WHITEOUT)), syscall.EINVAL)
}

// TestRemovedDirectoryTakesNoEntries: somebody may still be in it.
func TestRemovedDirectoryTakesNoEntries(t *testing.T) {
	s := newSpace(t)
	defer s.close(t)
	d, err := s.live.Create(Root, "d", Spec{Mode: syscall.S_IFDIR | 0o700})
	agree(t, "mkdir", err, nil)
	f, err := s.live.Create(Root, "f", Spec{Mode: syscall.S_IFREG | 0o700})
	agree(t, "create", err, nil)
	agree(t, "rmdir", s.live.Rmdir(Root, "d"), nil)
	_, err = s.live.Create(d.Ino, "x", Spec{Mode: syscall.S_IFREG | 0o700})
	agree(t, "create", err, syscall.ENOENT)
	_, err = s.live.Link(f.Ino, d.Ino, "x")
	agree(t, "link", err, syscall.ENOENT)
	agree(t, "rename", failure(s.live.Rename(Root, "f", d.Ino, "x", 0)), syscall.ENOENT)
	if a, err := s.live.Stat(d.Ino); err != nil || a.Nlink != 0 {
		t.Errorf("removed directory has nlink %d, %v", a.Nlink, err)
	}
}

// TestSyncSurvivesPowerLoss: what was there at Sync is there after a crash, in every frozen tree too (I5).
func TestSyncSurvivesPowerLoss(t *testing.T) {
	s := newSpace(t)
	_, err := s.live.Create(Root, "d", Spec{Mode: syscall.S_IFDIR | 0o700})
	agree(t, "mkdir", err, nil)
	e := s.freeze(t)
	_, err = s.live.Create(Root, "f", Spec{Mode: syscall.S_IFREG | 0o700})
	agree(t, "create", err, nil)
	agree(t, "sync", s.live.Sync(), nil)
	want, err := dumpView(s.live, true)
	agree(t, "dump", err, nil)
	wantFrozen, err := dumpView(s.frozen(e), true)
	agree(t, "dump", err, nil)
	_, err = s.live.Create(Root, "lost", Spec{Mode: syscall.S_IFREG | 0o700})
	agree(t, "create", err, nil)

	s.fs = s.fs.CrashClone(vfsCrash)
	defer s.close(t)
	s.open(t)
	if got, err := dumpView(s.live, true); err != nil || got != want {
		t.Errorf("after the crash\n%s%v, want\n%s", got, err, want)
	}
	if got, err := dumpView(s.frozen(e), true); err != nil || got != wantFrozen {
		t.Errorf("frozen after the crash\n%s%v, want\n%s", got, err, wantFrozen)
	}
}

// TestConcurrentChanges runs operations that cross each other's locks, while epochs pass.
func TestConcurrentChanges(t *testing.T) {
	s := newSpace(t)
	defer s.close(t)
	var dirs [3]Ino
	for i := range dirs {
		a, err := s.live.Create(Root, fmt.Sprint("d", i), Spec{Mode: syscall.S_IFDIR | 0o700})
		agree(t, "mkdir", err, nil)
		dirs[i] = a.Ino
	}
	s.live.nodes.limit = 2
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := range 150 {
				from, to, name := dirs[(w+i)%3], dirs[(w*i)%3], fmt.Sprint("n", (w+i)%5)
				a, err := s.live.Create(from, name, Spec{Mode: syscall.S_IFREG | 0o600})
				if err == nil {
					_, _ = s.live.Rename(from, name, to, fmt.Sprint("n", i%5), uint(i%3)) // may lose to another one
				}
				_, _ = s.live.Lookup(to, name)
				_ = s.live.Unlink(to, fmt.Sprint("n", (w*i)%5))
				if err == nil {
					s.live.Forget(a.Ino)
				}
				if i%20 == 0 {
					_ = s.live.flushAttrs()
				}
			}
		})
	}
	var frozens [5]string
	for i := range frozens {
		e := s.freeze(t)
		var err error
		frozens[i], err = dumpView(s.frozen(e), true)
		agree(t, "dump", err, nil)
	}
	wg.Wait()
	for i, want := range frozens {
		if got, err := dumpView(s.frozen(cow.Epoch(i+1)), true); err != nil || got != want {
			t.Errorf("epoch %d changed from\n%s to\n%s%v", i+1, want, got, err)
		}
	}
	if n := len(s.live.nodes.byIno); n > s.live.nodes.limit+countOrphans(t, s) {
		t.Errorf("%d nodes are kept in memory with nothing in use", n)
	}
}

func countOrphans(t *testing.T, s *space) (n int) {
	agree(t, "orphans", s.db.Orphans(func(Ino) bool { n++; return true }), nil)
	return n
}

func BenchmarkCreate(b *testing.B) {
	s := newSpace(b)
	for i := 0; b.Loop(); i++ {
		if _, err := s.live.Create(Root, fmt.Sprint("f", i), Spec{Mode: syscall.S_IFREG | 0o600}); err != nil {
			b.Fatal(err)
		}
	}
	s.close(b)
}

func BenchmarkLookup(b *testing.B) {
	s := newSpace(b)
	const files = 100_000
	for i := range files {
		if _, err := s.live.Create(Root, fmt.Sprint("f", i), Spec{Mode: syscall.S_IFREG | 0o600}); err != nil {
			b.Fatal(err)
		}
	}
	for name, format := range map[string]string{"found": "f%d", "missing": "g%d"} {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				_, err := s.live.Lookup(Root, fmt.Sprintf(format, i*7919%files))
				if name == "found" && err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	s.close(b)
}

// TestFreezeWithinFlushOfTimes freezes while times that are in memory only are about to be written: the frozen tree has them.
func TestFreezeWithinFlushOfTimes(t *testing.T) {
	w := newStoreWorld(t, Options{})
	l := w.s.Live()
	a, err := l.Create(Root, "file", Spec{Mode: syscall.S_IFREG | 0o644})
	w.ok("create", err)
	h, err := l.OpenFile(a.Ino)
	w.ok("open", err)
	w.handles[a.Ino] = h
	for range 2 { // the second changes nothing but times
		_, err = h.WriteAt([]byte("data"), 0, false)
		w.ok("write", err)
	}
	flushed := 0
	w.ok("flush", l.flushDirty(func(ns []*node) *change {
		flushed += len(ns)
		w.ok("snapshot", w.snapshot("within", true))
		return l.enter(ns...)
	}))
	if flushed == 0 {
		t.Fatal("nothing was to be flushed: the test tests nothing")
	}
	w.verify()
	w.reopen()
}

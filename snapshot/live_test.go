package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// counterGate is a gate without bytes: a freeze is the next epoch.
type counterGate struct {
	mu    sync.RWMutex
	epoch cow.Epoch
}

func (g *counterGate) Enter() cow.Epoch { g.mu.RLock(); return g.epoch }
func (g *counterGate) Leave()           { g.mu.RUnlock() }

// space is a namespace: with a pool where bytes is set, else files stay empty.
type space struct {
	fs      *vfs.MemFS
	db      *meta.DB
	counter *counterGate
	live    *Live
	newest  cow.Epoch

	bytes   bool
	dir     string
	pool    *cow.Pool
	snaps   []cow.Epoch
	writing sync.WaitGroup  // snapshots whose bytes are not written yet
	last    <-chan struct{} // closed when the newest of them is
	failed  atomic.Pointer[error]
}

type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
	Cleanup(func())
}

func newSpace(t tester) *space {
	s := &space{fs: vfs.NewCrashableMem(), counter: &counterGate{epoch: 1}}
	s.open(t)
	return s
}

// newByteSpace returns a space whose files have bytes, below dir.
func newByteSpace(t tester, dir string) *space {
	s := &space{fs: vfs.NewCrashableMem(), bytes: true, dir: dir}
	s.open(t)
	return s
}

func (s *space) open(t tester) {
	t.Helper()
	report := func(err error) { t.Errorf("reported: %v", err) }
	db, err := meta.Open("meta", meta.Options{FS: s.fs, Report: report})
	if err != nil {
		t.Fatal(err)
	}
	if err := initRoot(db, 1, 0, 0, 0o755); err != nil {
		t.Fatal(err)
	}
	s.db = db
	if s.bytes {
		s.pool, err = cow.OpenPool(s.dir, s.snaps, s.newest+1, cow.Options{Index: db, FlushInterval: -1, Report: report})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.live = newLive(db, s.pool, report)
	if !s.bytes {
		s.live.gate = s.counter
	}
	s.live.newest = func() cow.Epoch { return s.newest }
	if err := s.live.sweepOrphans(); err != nil {
		t.Fatal(err)
	}
}

func (s *space) close(t tester) {
	t.Helper()
	s.finish(t)
	if err := s.live.flushAttrs(); err != nil {
		t.Fatal(err)
	}
	if s.bytes {
		agree(t, "close the pool", s.pool.Close(), nil)
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
}

// freeze closes the epoch and returns its number.
func (s *space) freeze(t tester) cow.Epoch {
	t.Helper()
	if s.bytes {
		return s.freezeBytes(t)
	}
	s.counter.mu.Lock()
	defer s.counter.mu.Unlock()
	if err := s.live.flushAttrsLocked(s.counter.epoch); err != nil {
		t.Fatal(err)
	}
	s.newest = s.counter.epoch
	s.counter.epoch++
	return s.newest
}

func (s *space) freezeBytes(t tester) cow.Epoch {
	fz, err := s.pool.Freeze(func(e cow.Epoch) error {
		s.newest = e
		return s.live.flushAttrsLocked(e)
	})
	agree(t, "freeze", err, nil)
	s.snaps = append(s.snaps, fz.Epoch)
	before, done := s.last, make(chan struct{})
	s.last = done
	s.writing.Go(func() {
		defer close(done)
		if before != nil {
			<-before
		}
		time.Sleep(time.Millisecond) // so that the test goes on meanwhile
		if err := commitBytes(fz); err != nil {
			s.failed.Store(&err)
		}
	})
	return fz.Epoch
}

// commitBytes makes the bytes of a snapshot durable.
func commitBytes(fz *cow.Freeze) error {
	defer fz.Finish()
	for _, step := range []func() error{fz.Save, func() error { return fz.Write(nil) }, fz.Sync} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// finish waits until the bytes of all snapshots are written.
func (s *space) finish(t tester) {
	s.writing.Wait()
	if err := s.failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

func (s *space) frozen(e cow.Epoch) *Frozen { return newFrozen(s.db, s.pool, e, func() {}) }

// machine runs random operations on a space and on the model.
type machine struct {
	*space
	model   *model
	handles map[*Handle]Ino
	frozens map[cow.Epoch][2]string // what each frozen tree has to be: in the words of the model, and with times
}

func newMachine(s *space) *machine {
	return &machine{space: s, model: newModel(), handles: map[*Handle]Ino{}, frozens: map[cow.Epoch][2]string{}}
}

var names = rapid.SampledFrom([]string{"a", "b", "c", "dd"})

func (m *machine) dir(t *rapid.T) Ino {
	inos := m.model.alive(syscall.S_IFDIR)
	return inos[rapid.IntRange(0, len(inos)-1).Draw(t, "dir")]
}

func (m *machine) any(t *rapid.T) Ino {
	inos := m.model.alive(0)
	return inos[rapid.IntRange(0, len(inos)-1).Draw(t, "ino")]
}

// agree fails unless the file system answered what the model says.
func agree(t tester, what string, got, want error) {
	t.Helper()
	if want == nil && got != nil || !errors.Is(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func (m *machine) create(t *rapid.T) {
	parent, name := m.dir(t), names.Draw(t, "name")
	spec := Spec{Mode: rapid.SampledFrom([]uint32{0o644, 0o2755, 0o4711}).Draw(t, "mode"), UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid")}
	switch typ := rapid.SampledFrom([]uint32{syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFDIR, syscall.S_IFLNK, syscall.S_IFCHR}).Draw(t, "type"); typ {
	case syscall.S_IFLNK:
		spec.Mode, spec.Target = typ|0o777, "to "+name
	case syscall.S_IFCHR:
		spec.Mode, spec.Rdev = typ|spec.Mode, 0x103
	default:
		spec.Mode |= typ
	}
	a, err := m.live.Create(parent, name, spec)
	want := m.model.create(parent, name)
	agree(t, "create", err, want)
	if want == nil {
		m.model.made(parent, name, a.Ino, spec)
	}
}

func (m *machine) link(t *rapid.T) {
	ino, parent, name := m.any(t), m.dir(t), names.Draw(t, "name")
	_, err := m.live.Link(ino, parent, name)
	agree(t, "link", err, m.model.link(ino, parent, name))
}

func (m *machine) unlink(t *rapid.T) {
	parent, name := m.dir(t), names.Draw(t, "name")
	agree(t, "unlink", m.live.Unlink(parent, name), m.model.unlink(parent, name))
}

func (m *machine) rmdir(t *rapid.T) {
	parent, name := m.dir(t), names.Draw(t, "name")
	agree(t, "rmdir", m.live.Rmdir(parent, name), m.model.rmdir(parent, name))
}

func (m *machine) rename(t *rapid.T) {
	op, on, np, nn := m.dir(t), names.Draw(t, "old"), m.dir(t), names.Draw(t, "new")
	flags := rapid.SampledFrom([]uint{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(t, "flags")
	agree(t, "rename", m.live.Rename(op, on, np, nn, flags), m.model.rename(op, on, np, nn, flags))
}

func (m *machine) setAttr(t *rapid.T) {
	ino := m.any(t)
	c := Change{Set: ChangeSet(rapid.IntRange(0, 255).Draw(t, "set")) &^ SetSize, Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
		UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"), Mtime: Time{Sec: -5, Nsec: 7}, KillPriv: rapid.Bool().Draw(t, "kill")}
	a, err := m.live.SetAttr(ino, c)
	if err != nil {
		t.Fatal(err)
	}
	i := m.model.inodes[ino]
	if c.KillPriv && !isDir(i.mode) {
		i.mode &^= syscall.S_ISUID
		if i.mode&0o010 != 0 {
			i.mode &^= syscall.S_ISGID
		}
	}
	if c.Set&SetMode != 0 {
		i.mode = i.mode&syscall.S_IFMT | c.Mode
	}
	if c.Set&SetUID != 0 {
		i.uid = c.UID
	}
	if c.Set&SetGID != 0 {
		i.gid = c.GID
	}
	if c.Set&(SetMtime|SetMtimeNow) == SetMtime && a.Mtime != c.Mtime {
		t.Fatalf("mtime %v, want %v", a.Mtime, c.Mtime)
	}
}

func (m *machine) xattr(t *rapid.T) {
	ino, name, value := m.any(t), "user."+names.Draw(t, "xattr"), rapid.SampledFrom([]string{"", "v", "vv"}).Draw(t, "value")
	if rapid.Bool().Draw(t, "remove") {
		agree(t, "removexattr", m.live.RemoveXattr(ino, name), m.model.removeXattr(ino, name))
		return
	}
	flags := rapid.SampledFrom([]uint{0, unix.XATTR_CREATE, unix.XATTR_REPLACE}).Draw(t, "flags")
	agree(t, "setxattr", m.live.SetXattr(ino, name, []byte(value), flags), m.model.setXattr(ino, name, value, flags))
}

func (m *machine) openFile(t *rapid.T) {
	files := m.model.alive(syscall.S_IFREG)
	if len(files) == 0 {
		t.Skip("no file")
	}
	ino := rapid.SampledFrom(files).Draw(t, "file")
	h, err := m.live.OpenFile(ino)
	if err != nil {
		t.Fatal(err)
	}
	m.handles[h] = ino
	m.model.inodes[ino].opens++
}

func (m *machine) closeFile(t *rapid.T) {
	if len(m.handles) == 0 {
		t.Skip("no handle")
	}
	h, i := m.drawHandle(t)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	delete(m.handles, h)
	i.opens--
	m.model.sweep(false)
}

// forget is the kernel's: of an inode that has a name it changes nothing.
func (m *machine) forget(t *rapid.T) {
	for ino, i := range m.model.inodes {
		m.live.Forget(ino)
		i.forgotten = i.nlink == 0
	}
	m.model.sweep(false)
}

func (m *machine) freezeNow(t *rapid.T) {
	with, err := dumpView(m.live, true)
	if err != nil {
		t.Fatal(err)
	}
	m.frozens[m.freeze(t)] = [2]string{m.model.dump(), with}
}

func (m *machine) reopen(t *rapid.T) {
	for h := range m.handles {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	clear(m.handles)
	m.close(t)
	m.open(t)
	for _, i := range m.model.inodes {
		i.opens = 0
	}
	m.model.sweep(true)
}

// check compares the live tree with the model.
func (m *machine) check(t *rapid.T) {
	got, err := dumpView(m.live, false)
	if want := m.model.dump(); err != nil || got != want {
		t.Fatalf("live tree is\n%s%v, want\n%s", got, err, want)
	}
}

// checkAll compares the frozen trees too, and what is left of inodes without a name.
func (m *machine) checkAll(t *rapid.T) {
	m.check(t)
	for e, want := range m.frozens {
		for i, times := range []bool{false, true} {
			if got, err := dumpView(m.frozen(e), times); err != nil || got != want[i] {
				t.Fatalf("epoch %d is\n%s%v, want\n%s", e, got, err, want[i])
			}
		}
	}
	touched := map[cow.Epoch]map[meta.Key]bool{}
	err := m.db.Touched(0, meta.Latest-1, func(e cow.Epoch, k meta.Key) bool {
		if touched[e] == nil {
			touched[e] = map[meta.Key]bool{}
		}
		touched[e][k] = true
		return true
	})
	agree(t, "touched", err, nil)
	kept := map[Ino]bool{}
	err = m.db.Inodes(func(ino Ino, e cow.Epoch, rec *meta.Inode) bool {
		if _, seen := kept[ino]; !seen {
			kept[ino] = rec != nil
		}
		if !touched[e][meta.InodeKeyOf(ino)] {
			t.Fatalf("inode %d has a version of epoch %d, which is not marked as touched", ino, e)
		}
		return true
	})
	agree(t, "inodes", err, nil)
	for ino, there := range kept {
		if _, want := m.model.inodes[ino]; there != want {
			t.Fatalf("inode %d is there: %v, want %v", ino, there, want)
		}
	}
}

func TestNamespaceLikeAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(newSpace(t))
		m.live.nodes.limit = 4 // so that nodes come and go
		t.Repeat(map[string]func(*rapid.T){
			"create": m.create, "create2": m.create, "link": m.link, "unlink": m.unlink, "rmdir": m.rmdir, "rename": m.rename,
			"setattr": m.setAttr, "xattr": m.xattr, "open": m.openFile, "close": m.closeFile, "forget": m.forget,
			"freeze": m.freezeNow, "reopen": m.reopen, "all": m.checkAll, "": m.check,
		})
		m.checkAll(t)
		m.reopen(t)
		m.checkAll(t)
		m.close(t)
	})
}

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
	agree(t, "xattr acl", l.SetXattr(a.Ino, "system.posix_acl_access", nil, 0), syscall.EOPNOTSUPP)
	_, err = l.Xattr(a.Ino, "user.x")
	agree(t, "no xattr", err, syscall.ENODATA)
	agree(t, "rename flags", l.Rename(Root, "f", Root, "g", unix.RENAME_WHITEOUT), syscall.EINVAL)
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
	agree(t, "rename", s.live.Rename(Root, "f", d.Ino, "x", 0), syscall.ENOENT)
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
					_ = s.live.Rename(from, name, to, fmt.Sprint("n", i%5), uint(i%3)) // may lose to another one
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

// vfsCrash is a power loss that keeps nothing but what was synced.
var vfsCrash = vfs.CrashCloneCfg{}

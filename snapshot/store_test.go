package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/snapfs/snapfs/cow"
)

// dump describes everything that a view shows, byte for byte: what a snapshot must go on showing.
func dump(t tester, v View) string {
	t.Helper()
	var out strings.Builder
	var walk func(ino Ino, path string)
	walk = func(ino Ino, path string) {
		a, err := v.Stat(ino)
		if err != nil {
			t.Fatalf("stat %s: %v", path, err)
		}
		fmt.Fprintf(&out, "%s ino=%d mode=%o nlink=%d owner=%d:%d rdev=%d size=%d mtime=%v ctime=%v", path, a.Ino, a.Mode, a.Nlink, a.UID, a.GID, a.Rdev, a.Size, a.Mtime, a.Ctime)
		xs, err := v.Xattrs(ino)
		if err != nil {
			t.Fatalf("xattrs of %s: %v", path, err)
		}
		slices.Sort(xs)
		for _, x := range xs {
			value, err := v.Xattr(ino, x)
			if err != nil {
				t.Fatalf("xattr %s of %s: %v", x, path, err)
			}
			fmt.Fprintf(&out, " %s=%x", x, value)
		}
		switch a.Mode & syscall.S_IFMT {
		case syscall.S_IFLNK:
			target, err := v.Readlink(ino)
			fmt.Fprintf(&out, " -> %s %v", target, err)
		case syscall.S_IFREG:
			fmt.Fprintf(&out, " %x", contentOf(t, v, ino, path, a.Size))
		}
		out.WriteByte('\n')
		if !isDir(a.Mode) {
			return
		}
		var ents []Dirent
		if err := v.ReadDir(ino, 0, func(e Dirent) bool { ents = append(ents, e); return true }); err != nil {
			t.Fatalf("list %s: %v", path, err)
		}
		slices.SortFunc(ents, func(a, b Dirent) int { return strings.Compare(a.Name, b.Name) })
		for _, e := range ents {
			walk(e.Ino, path+"/"+e.Name)
		}
	}
	walk(Root, "")
	return out.String()
}

func contentOf(t tester, v View, ino Ino, path string, size int64) []byte {
	t.Helper()
	c, err := v.Open(ino)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	defer c.Close()
	b := make([]byte, size+1)
	n, err := c.ReadAt(b, 0)
	if int64(n) != size || !errors.Is(err, io.EOF) {
		t.Fatalf("read %s: %d bytes, %v; want %d", path, n, err, size)
	}
	sum := sha256.Sum256(b[:n])
	return sum[:8]
}

// storeWorld is a store with what its snapshots have to show.
type storeWorld struct {
	t   tester
	dir string
	opt Options
	s   *Store

	mu      sync.Mutex
	want    map[string]string // of every snapshot that was acknowledged and not deleted
	maybe   map[string]string // of those whose command is under way, or was when the store went down
	handles map[Ino]*Handle
}

func newStoreWorld(t tester, opt Options) *storeWorld {
	w := &storeWorld{t: t, dir: scratch(t), opt: opt, want: map[string]string{}, maybe: map[string]string{}, handles: map[Ino]*Handle{}}
	w.opt.Create, w.opt.quiet = true, true
	w.open()
	return w
}

func (w *storeWorld) open() {
	w.t.Helper()
	var err error
	if w.s, err = Open(w.dir, w.opt); err != nil {
		w.t.Fatalf("open: %v", err)
	}
	s := w.s
	w.t.Cleanup(func() { s.Close() }) // before its directory goes, which was made before
}

func (w *storeWorld) ok(what string, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

// snapshot takes one; without wait its commit goes on beside what follows.
func (w *storeWorld) snapshot(name string, wait bool) error {
	want := dump(w.t, w.s.Live())
	w.mu.Lock()
	w.maybe[name] = want
	w.mu.Unlock()
	_, err := w.s.Snapshot(Request{Name: name, NoWait: !wait})
	if err == nil && wait {
		w.mu.Lock()
		delete(w.maybe, name)
		w.want[name] = want
		w.mu.Unlock()
	}
	return err
}

// settle waits for every commit under way.
func (w *storeWorld) settle() {
	turn := w.s.turns.ticket()
	turn.wait()
	turn.done()
	for name, want := range w.maybe {
		if i, err := w.s.Find(name); err == nil && i.State == Durable {
			w.want[name] = want
		}
	}
	clear(w.maybe)
}

// verify compares every snapshot with what it was.
func (w *storeWorld) verify() {
	w.t.Helper()
	infos, err := w.s.List()
	w.ok("list", err)
	seen := map[string]bool{}
	for _, i := range infos {
		want, ok := w.want[i.Name]
		if !ok {
			want, ok = w.maybe[i.Name]
		}
		if !ok {
			w.t.Fatalf("snapshot %q is there again", i.Name)
		}
		seen[i.Name] = true
		v, err := w.s.View(i.Epoch)
		w.ok("view of "+i.Name, err)
		if got := dump(w.t, v); got != want {
			w.t.Fatalf("snapshot %q shows\n%s\nand not\n%s", i.Name, got, want)
		}
		v.Release()
	}
	for name := range w.want {
		if !seen[name] {
			w.t.Fatalf("snapshot %q is lost", name)
		}
	}
}

func (w *storeWorld) check() Report {
	w.t.Helper()
	r, err := w.s.Check()
	w.ok("check", err)
	for _, p := range r.Problems {
		w.t.Errorf("check: %s: %s", p.Path, p.What)
	}
	return r
}

func (w *storeWorld) closeHandles() {
	for ino, h := range w.handles {
		w.ok("close", h.Close())
		w.s.Live().Forget(ino)
	}
	clear(w.handles)
}

// reopen closes the store in order and opens it again: the live tree is the same.
func (w *storeWorld) reopen() {
	w.t.Helper()
	w.settle()
	before := dump(w.t, w.s.Live())
	w.closeHandles()
	w.ok("close store", w.s.Close())
	w.open()
	if after := dump(w.t, w.s.Live()); after != before {
		w.t.Fatalf("reopened live tree shows\n%s\nand not\n%s", after, before)
	}
	w.noneUnread()
}

// crash goes on with a copy of the store's directory, as it is at this moment: what a killed daemon leaves.
func (w *storeWorld) crash() {
	w.t.Helper()
	image := copyStore(w.t, w.dir)
	w.closeHandles()
	w.settleQuietly()
	w.ok("close store", w.s.Close())
	w.dir = image
	w.open()
	w.adoptMaybe()
	w.verify()
}

// settleQuietly waits for commits whose outcome is nobody's business any more.
func (w *storeWorld) settleQuietly() {
	turn := w.s.turns.ticket()
	turn.wait()
	turn.done()
}

// adoptMaybe looks which of the snapshots under way at a crash are there: any of them may, none must.
func (w *storeWorld) adoptMaybe() {
	for name, want := range w.maybe {
		if _, err := w.s.Find(name); err == nil {
			w.want[name] = want
		}
	}
	clear(w.maybe)
}

func copyStore(t tester, dir string) string {
	t.Helper()
	image := scratch(t)
	for try := 0; ; try++ {
		out, err := exec.Command("cp", "-a", "--sparse=always", dir+"/.", image).CombinedOutput()
		if err == nil {
			return image
		}
		if try > 5 { // the metadata store removes files of its own in the background
			t.Fatalf("copy store: %v: %s", err, out)
		}
		os.RemoveAll(image)
		_ = os.Mkdir(image, 0o700)
	}
}

// act does one random thing to the store.
func (w *storeWorld) act(t *rapid.T) {
	l := w.s.Live()
	file := func() Ino { // a regular file, made if there is none of this name
		name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
		a, err := l.Lookup(Root, name)
		if err != nil {
			a, err = l.Create(Root, name, Spec{Mode: syscall.S_IFREG | 0o644})
			w.ok("create", err)
		}
		if !isRegular(a.Mode) {
			return 0
		}
		return a.Ino
	}
	open := func(ino Ino) *Handle {
		if h := w.handles[ino]; h != nil {
			return h
		}
		h, err := l.OpenFile(ino)
		w.ok("open", err)
		w.handles[ino] = h
		return h
	}
	names := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	switch op := rapid.SampledFrom([]string{"write", "write", "write", "truncate", "sync", "names", "names", "xattr", "snapshot", "snapshot",
		"nowait", "delete", "rename snapshot", "close", "tidy"}).Draw(t, "op"); op {
	case "write":
		if ino := file(); ino != 0 {
			data := []byte(strings.Repeat(string(rune('a'+rapid.IntRange(0, 25).Draw(t, "byte"))), rapid.SampledFrom([]int{10, cow.PageSize, 9000}).Draw(t, "n")))
			_, err := open(ino).WriteAt(data, offsets.Draw(t, "off"), false)
			w.ok("write", err)
		}
	case "truncate":
		if ino := file(); ino != 0 {
			_, err := l.SetAttr(ino, Change{Set: SetSize, Size: rapid.OneOf(rapid.Just(int64(0)), offsets).Draw(t, "size")})
			w.ok("truncate", err)
		}
	case "sync":
		if ino := file(); ino != 0 {
			w.ok("sync", open(ino).Sync(rapid.Bool().Draw(t, "data only")))
		}
	case "names":
		old, new := names.Draw(t, "old"), names.Draw(t, "new")
		switch rapid.IntRange(0, 4).Draw(t, "how") {
		case 0:
			_, _ = l.Rename(Root, old, Root, new, 0)
		case 1:
			_ = l.Unlink(Root, old)
		case 2:
			if a, err := l.Lookup(Root, old); err == nil {
				_, _ = l.Link(a.Ino, Root, new)
			}
		case 3:
			_, _ = l.Create(Root, "d", Spec{Mode: syscall.S_IFDIR | 0o755})
		case 4:
			_ = l.Rmdir(Root, "d")
		}
	case "xattr":
		if ino := file(); ino != 0 {
			w.ok("setxattr", l.SetXattr(ino, "user.x", []byte(names.Draw(t, "value")), 0))
		}
	case "snapshot", "nowait":
		name := fmt.Sprint("s", rapid.IntRange(0, 5).Draw(t, "n"))
		w.settle()
		_, taken := w.want[name]
		if err := w.snapshotUnless(taken, name, op == "snapshot"); taken != errors.Is(err, ErrExists) || !taken && err != nil {
			w.t.Fatalf("snapshot %s: %v", name, err)
		}
	case "delete":
		w.settle()
		for name := range w.want {
			w.maybe[name] = w.want[name]
			delete(w.want, name)
			_, err := w.s.Delete([]string{name}, false, nil)
			w.ok("delete", err)
			delete(w.maybe, name)
			break
		}
	case "rename snapshot":
		w.settle()
		if _, there := w.want["s0"]; there {
			_, taken := w.want["s9"]
			if err := w.s.Rename("s0", "s9"); errors.Is(err, ErrExists) != taken || !taken && err != nil {
				w.t.Fatalf("rename: %v", err)
			}
			if !taken {
				w.want["s9"] = w.want["s0"]
				delete(w.want, "s0")
			}
		}
	case "close":
		w.closeHandles()
	case "tidy":
		w.ok("tidy", errors.Join(w.s.live.flushAttrs(), w.s.pool.Flush(), w.s.tidy()))
	}
}

func (w *storeWorld) snapshotUnless(taken bool, name string, wait bool) error {
	if taken {
		_, err := w.s.Snapshot(Request{Name: name})
		return err
	}
	return w.snapshot(name, wait)
}

// TestStoreLikeAModel lets random histories run through snapshots, deletions, reopenings and crashes: every snapshot shows
// what the live tree was, for ever, and nothing is left behind when all are gone.
func TestStoreLikeAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newStoreWorld(t, Options{noFork: rapid.IntRange(0, 3).Draw(t, "in process") == 0})
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 24).Draw(t, "what") {
			case 0:
				w.reopen()
			case 1:
				w.crash()
			default:
				w.act(t)
			}
		}
		w.settle()
		w.verify()
		w.check()
		w.reopen()
		for name := range w.want {
			delete(w.want, name)
			_, err := w.s.Delete([]string{name}, false, nil)
			w.ok("delete", err)
			w.verify()
		}
		w.reopen()
		if r := w.check(); r.Snapshots != 0 || r.Pages != 0 {
			t.Fatalf("with all snapshots gone: %+v", r)
		}
		logs, err := filepath.Glob(w.dir + "/undo/*")
		w.ok("glob", err)
		if len(logs) != 0 {
			t.Fatalf("undo logs are left: %v", logs)
		}
	})
}

// TestCrashAtEveryOperation takes an image of the store before every disk operation of a history with snapshots, deletions and
// overwrites, and opens each: what was acknowledged by then is there, unchanged.
func TestCrashAtEveryOperation(t *testing.T) {
	for _, noFork := range []bool{false, true} {
		t.Run(fmt.Sprintf("in process %v", noFork), func(t *testing.T) {
			type image struct {
				dir         string
				op          cow.Op
				want, maybe map[string]string
			}
			var images []image
			var w *storeWorld
			w = newStoreWorld(t, Options{noFork: noFork, hook: func(op cow.Op) error {
				if w != nil && op.Kind != cow.OpSynced {
					w.mu.Lock()
					defer w.mu.Unlock()
					images = append(images, image{copyStore(t, w.dir), op, copyMap(w.want), copyMap(w.maybe)})
				}
				return nil
			}})
			crashScript(w)
			w.settle()
			w.verify()
			if len(images) < 25 {
				t.Fatalf("only %d disk operations", len(images))
			}
			for i, im := range images {
				x := &storeWorld{t: t, dir: im.dir, opt: Options{quiet: true}, want: im.want, maybe: im.maybe, handles: map[Ino]*Handle{}}
				x.open()
				x.adoptMaybe()
				x.verify()
				x.check()
				if t.Failed() {
					t.Fatalf("crash before operation %d: %+v", i, im.op)
				}
				crashScript(x) // it goes on as if nothing had happened
				x.verify()
				x.closeHandles()
				x.ok("close", x.s.Close())
				os.RemoveAll(im.dir)
			}
		})
	}
}

func copyMap(m map[string]string) map[string]string {
	c := map[string]string{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

// rounds returns a number that no earlier round of the script has used.
func (w *storeWorld) rounds() int {
	for n := 0; ; n++ {
		_, err1 := w.s.Live().Lookup(Root, fmt.Sprint("file", n))
		_, err2 := w.s.Find(fmt.Sprint("snap", n, ".", 0))
		_, err3 := w.s.Find(fmt.Sprint("snap", n, ".", 2))
		if err1 != nil && err2 != nil && err3 != nil {
			return n
		}
	}
}

// crashScript is a history that passes through everything that orders disk operations.
func crashScript(w *storeWorld) {
	l := w.s.Live()
	n := w.rounds()
	file := fmt.Sprint("file", n)
	a, err := l.Create(Root, file, Spec{Mode: syscall.S_IFREG | 0o644})
	w.ok("create", err)
	h, err := l.OpenFile(a.Ino)
	w.ok("open", err)
	defer h.Close()
	write := func(pages, n int, b byte) {
		_, err := h.WriteAt([]byte(strings.Repeat(string(rune(b)), n*cow.PageSize)), int64(pages*cow.PageSize), false)
		w.ok("write", err)
	}
	name := func(i int) string { return fmt.Sprint("snap", n, ".", i) }
	write(0, 6, 'a')
	w.ok("snapshot", w.snapshot(name(0), true))
	write(1, 2, 'b')
	w.ok("snapshot", w.snapshot(name(1), true))
	write(1, 3, 'c')
	w.ok("fsync", h.Sync(false))
	write(0, 2, 'd')
	_, err = l.SetAttr(a.Ino, Change{Set: SetSize, Size: 2*cow.PageSize + 10})
	w.ok("truncate", err)
	w.ok("snapshot", w.snapshot(name(2), true))
	write(4, 1, 'e')
	w.mu.Lock()
	w.maybe[name(1)] = w.want[name(1)]
	delete(w.want, name(1))
	w.mu.Unlock()
	_, err = w.s.Delete([]string{name(1)}, false, nil)
	w.ok("delete", err)
	w.mu.Lock()
	delete(w.maybe, name(1))
	w.mu.Unlock()
	w.ok("unlink", l.Unlink(Root, file))
	l.Forget(a.Ino)
	w.ok("tidy", w.s.tidy())
}

package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/powercut"
)

// powerCuts returns how many rounds per file system the tests make; scripts/powercut.sh sets more.
func powerCuts() int {
	if n, err := strconv.Atoi(os.Getenv("SNAPFS_POWERCUTS")); err == nil {
		return n
	}
	return 3
}

// chosenKinds returns the file systems to try: all, or the one that scripts/powercut.sh was asked for.
func chosenKinds() (out []powercut.Kind) {
	want := os.Getenv("SNAPFS_POWERCUT_FS")
	for _, k := range powercut.Kinds() {
		if want == "" || want == "all" || strings.HasPrefix(k.Name, want) {
			out = append(out, k)
		}
	}
	return out
}

// The processes of these tests are this test program again, with these in their environment.
const (
	cutStore   = "SNAPFS_POWERCUT_STORE"
	cutJournal = "SNAPFS_POWERCUT_JOURNAL"
	cutRole    = "SNAPFS_POWERCUT_ROLE" // load, slow load or open
	cutFirst   = "SNAPFS_POWERCUT_FIRST"
	cutKillAt  = "SNAPFS_POWERCUT_KILL_AT" // the process kills itself when it is about to touch the disk for the n-th time
)

// cutWorld is a store on a disk whose power is cut, and what it must hold.
type cutWorld struct {
	t       *testing.T
	disk    *powercut.Disk
	store   string
	journal string
	ledger  *powercut.Ledger
	round   int
}

func newCutWorld(t *testing.T, kind powercut.Kind, copies bool) (w *cutWorld) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount images")
	}
	dir := scratch(t)
	disk, err := powercut.NewDisk(dir, kind, copies)
	if err != nil && strings.Contains(err.Error(), "unknown filesystem type") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	w = &cutWorld{t: t, disk: disk, store: filepath.Join(disk.Point, "store"), journal: filepath.Join(dir, "journal"), ledger: powercut.NewLedger()}
	t.Cleanup(func() { w.need(disk.Close()) })
	return w
}

func (w *cutWorld) need(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%s, round %d: %v (journal: %s)", w.disk.Name, w.round, err, w.keepJournal())
	}
}

// keepJournal keeps the journal of a round that failed, and returns where.
func (w *cutWorld) keepJournal() string {
	text, err := os.ReadFile(w.journal)
	if err != nil {
		return err.Error()
	}
	f, err := os.CreateTemp("", "snapfs-powercut-")
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err.Error()
	}
	return f.Name()
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// start starts a process that works on the store.
func (w *cutWorld) start(role string) *powercut.Process {
	w.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$")
	cmd.Env = append(os.Environ(), cutStore+"="+w.store, cutJournal+"="+w.journal, cutRole+"="+role, fmt.Sprintf("%s=%d", cutFirst, w.round*1_000_000))
	p, err := powercut.Start(cmd, w.journal)
	w.need(err)
	return p
}

// cut cuts the power while p is at work, and switches it on again.
func (w *cutWorld) cut(p *powercut.Process) {
	w.t.Helper()
	mark, err := p.Mark()
	w.need(err)
	w.need(w.disk.Cut())
	p.Kill()
	w.need(p.Tell(w.ledger, mark))
	w.powerOn()
}

func (w *cutWorld) powerOn() {
	w.t.Helper()
	w.need(w.disk.Unmount())
	w.need(w.disk.Mount())
}

// verify opens the store and compares it with the ledger.
func (w *cutWorld) verify() {
	w.t.Helper()
	s, err := openWhenFree(w.store, Options{})
	w.need(err)
	defer s.Close()
	w.need(w.ledger.Verify(&storeTree{s: s}))
	r, err := s.Check()
	w.need(err)
	for _, p := range r.Problems {
		w.t.Errorf("%s, round %d: check: %s: %s", w.disk.Name, w.round, p.Path, p.What)
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// TestPowerCut cuts the power of a store at work again and again, on real file systems: at random moments, at the steps of a snapshot's
// commit, and while the store is brought to order after a cut (I10). What was acknowledged before the cut is there
// afterwards: synced files to the byte (I5), snapshots to the byte (I4), names in their order.
func TestPowerCut(t *testing.T) {
	if os.Getenv(cutStore) != "" {
		cutProcess()
	}
	for _, kind := range chosenKinds() {
		if !kind.Shutdown {
			continue
		}
		t.Run(kind.Name, func(t *testing.T) {
			w := newCutWorld(t, kind, false)
			for w.round = range powerCuts() {
				if w.round%2 == 0 {
					w.cutAtRandom()
				} else {
					w.cutAtStep("slow load", 40)
				}
				for range rand.IntN(3) {
					w.cutAtStep("open", 25)
				}
				w.verify()
			}
		})
	}
}

// cutAtRandom lets a load work for a while.
func (w *cutWorld) cutAtRandom() {
	w.t.Helper()
	p := w.start("load")
	w.need(p.Until(func(j string) bool { return strings.Contains(j, "ready\n") }))
	for end := time.Now().Add(time.Duration(rand.IntN(700)) * time.Millisecond); time.Now().Before(end); {
		w.need(p.Until(func(string) bool { return true }))
		time.Sleep(10 * time.Millisecond)
	}
	w.cut(p)
}

// cutAtStep lets a process work until it has touched the disk a number of times, below most, and not much longer. Where that is a load, it is
// counted from the beginning of a snapshot.
func (w *cutWorld) cutAtStep(role string, most int) {
	w.t.Helper()
	p := w.start(role)
	n := rand.IntN(most)
	w.need(p.Until(func(j string) bool {
		if role == "open" {
			return strings.Count(j, "\nat ") >= n || strings.Contains(j, "ready\n")
		}
		_, since, begun := strings.Cut(j, "\nsnap ")
		return begun && strings.Count(since, "\nat ") >= n
	}))
	w.cut(p)
}

// TestKillAtSteps kills the process that has a store open, at the n-th time that it touches the disk: under a load, and while the store is
// brought to order. Its writers finish what they hold, or end (I8); the next process waits for them (I9).
func TestKillAtSteps(t *testing.T) {
	dir := scratch(t)
	w := &cutWorld{t: t, disk: &powercut.Disk{}, store: filepath.Join(dir, "store"), journal: filepath.Join(dir, "journal"), ledger: powercut.NewLedger()}
	for w.round = range 2 * powerCuts() {
		w.killAt("load", 1+rand.IntN(150))
		for range rand.IntN(3) {
			w.killAt("open", 1+rand.IntN(10))
		}
		w.verify()
	}
}

// killAt has a process kill itself when it touches the disk for the n-th time, or when it is ready.
func (w *cutWorld) killAt(role string, n int) {
	w.t.Helper()
	w.t.Setenv(cutKillAt, strconv.Itoa(n))
	p := w.start(role)
	if err := p.Until(func(j string) bool { return role == "open" && strings.Contains(j, "ready\n") }); err != nil && !p.Killed() {
		w.need(err)
	}
	p.Kill()
	mark, err := p.Mark()
	w.need(err)
	w.need(p.Tell(w.ledger, mark))
}

// TestPowerCutImages takes images of a disk at work, each at one instant, and opens every one of them.
func TestPowerCutImages(t *testing.T) {
	for _, kind := range chosenKinds() {
		t.Run(kind.Name, func(t *testing.T) {
			w := newCutWorld(t, kind, true)
			for w.round = range (powerCuts() + imagesPerRound - 1) / imagesPerRound {
				w.takeImages()
			}
		})
	}
}

const imagesPerRound = 6

// takeImages lets a load work, takes images meanwhile, and goes on with the last of them.
func (w *cutWorld) takeImages() {
	w.t.Helper()
	p := w.start("load")
	w.need(p.Until(func(j string) bool { return strings.Contains(j, "ready\n") }))
	var ledgers []*powercut.Ledger
	for i := range imagesPerRound {
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		w.need(p.Until(func(string) bool { return true }))
		mark, err := p.Mark()
		w.need(err)
		w.need(w.disk.Copy(i + 1))
		l := w.ledger.Clone()
		w.need(p.Tell(l, mark))
		ledgers = append(ledgers, l)
	}
	p.Kill()
	w.need(w.disk.Unmount())
	for i, l := range ledgers {
		w.ledger = l
		w.need(w.disk.Become(i + 1))
		w.need(w.disk.Mount())
		w.verify()
		if i < len(ledgers)-1 {
			w.need(w.disk.Unmount())
		}
	}
}

// cutProcess is what the processes of these tests do. It does not return.
func cutProcess() {
	j, err := powercut.OpenJournal(os.Getenv(cutJournal))
	if err != nil {
		panic(err)
	}
	opt := Options{Create: true, FlushInterval: 30 * time.Millisecond, hook: cutHook(j)}
	s, err := openWhenFree(os.Getenv(cutStore), opt)
	if err != nil {
		j.End(err)
	}
	if os.Getenv(cutRole) == "open" {
		j.Say("ready")
		time.Sleep(time.Hour)
	}
	first, err := strconv.ParseInt(os.Getenv(cutFirst), 10, 64)
	if err == nil {
		err = powercut.Run(&storeTree{s: s}, j, first)
	}
	j.End(err)
}

// openWhenFree opens a store when the writers of its last life have ended.
func openWhenFree(dir string, opt Options) (*Store, error) {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		s, err := Open(dir, opt)
		if !errors.Is(err, ErrHeld) || time.Since(start) > 20*time.Second {
			return s, err
		}
	}
}

// cutHook returns what a process does when it is about to touch the disk.
func cutHook(j *powercut.Journal) func(cow.Op) error {
	var n atomic.Int64
	at, _ := strconv.ParseInt(os.Getenv(cutKillAt), 10, 64)
	quick := os.Getenv(cutRole) == "load"
	return func(op cow.Op) error {
		if n.Add(1) == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		if !quick {
			j.Say("at %s", op.Kind)
			time.Sleep(time.Duration(rand.IntN(1500)) * time.Microsecond)
		}
		return nil
	}
}

// storeTree is a store as a tree of the power cut tests.
type storeTree struct{ s *Store }

// open returns a handle of a file, which it makes if make is set and it is missing.
func (t *storeTree) open(name string, make bool) (*Handle, error) {
	l := t.s.Live()
	a, err := l.Lookup(Root, name)
	if make && errors.Is(err, syscall.ENOENT) {
		a, err = l.Create(Root, name, Spec{Mode: syscall.S_IFREG | 0o644})
	}
	if err != nil {
		return nil, err
	}
	return l.OpenFile(a.Ino)
}

// with does something to an open file.
func (t *storeTree) with(name string, make bool, do func(h *Handle) error) error {
	h, err := t.open(name, make)
	if err != nil {
		return err
	}
	return errors.Join(do(h), h.Close())
}

func (t *storeTree) Write(name string, data []byte, off int64) error {
	return t.with(name, true, func(h *Handle) error {
		_, err := h.WriteAt(data, off, false)
		return err
	})
}

func (t *storeTree) Truncate(name string, size int64) error {
	return t.with(name, true, func(h *Handle) error {
		_, err := t.s.Live().SetAttr(h.Ino(), Change{Set: SetSize, Size: size})
		return err
	})
}

func (t *storeTree) Sync(name string, dataOnly bool) error {
	return t.with(name, false, func(h *Handle) error { return h.Sync(dataOnly) })
}

func (t *storeTree) Link(name, target string) error {
	_, err := t.s.Live().Create(Root, name, Spec{Mode: syscall.S_IFLNK | 0o777, Target: target})
	return err
}

func (t *storeTree) Rename(old, new string) error {
	return failure(t.s.Live().Rename(Root, old, Root, new, 0))
}
func (t *storeTree) Unlink(name string) error { return t.s.Live().Unlink(Root, name) }
func (t *storeTree) SyncNames() error         { return t.s.Live().Sync() }

func (t *storeTree) Snapshot(name string, frozen func()) error {
	_, err := t.s.Snapshot(Request{Name: name, Frozen: func(Taken) { frozen() }})
	return err
}

func (t *storeTree) Delete(name string) error {
	_, err := t.s.Delete([]string{name}, false, nil)
	return err
}

func (t *storeTree) Read(name string) ([]byte, error) {
	h, err := t.open(name, false)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	b := make([]byte, h.Size())
	n, err := h.ReadAt(b, 0)
	return b[:n], err
}

func (t *storeTree) Links() (map[string]string, error) {
	links, l := map[string]string{}, t.s.Live()
	var inos = map[string]Ino{}
	err := l.ReadDir(Root, 0, func(e Dirent) bool {
		if strings.HasPrefix(e.Name, "link") {
			inos[e.Name] = e.Ino
		}
		return true
	})
	for name, ino := range inos {
		target, e := l.Readlink(ino)
		links[name] = string(target)
		err = errors.Join(err, e)
	}
	return links, err
}

func (t *storeTree) Snapshots() (names []string, err error) {
	infos, err := t.s.List()
	for _, i := range infos {
		names = append(names, i.Name)
	}
	return names, err
}

func (t *storeTree) Hash(snapshot string) (hash string, err error) {
	defer func() { // the helpers of tests have no other way out
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	var v View = t.s.Live()
	if snapshot != "" {
		i, err := t.s.Find(snapshot)
		if err != nil {
			return "", err
		}
		frozen, err := t.s.View(i.Epoch)
		if err != nil {
			return "", err
		}
		defer frozen.Release()
		v = frozen
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(dump(panicTB{}, v))))[:16], nil
}

// panicTB lets what is no test use the helpers of one.
type panicTB struct{}

func (panicTB) Helper()                   {}
func (panicTB) Cleanup(func())            {}
func (panicTB) Fatal(a ...any)            { panic(fmt.Sprint(a...)) }
func (panicTB) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (panicTB) Errorf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

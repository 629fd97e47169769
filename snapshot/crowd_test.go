package snapshot

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// crowd is a store in which everybody is at work at once: names in a few places, snapshots that are taken, looked at, renamed and deleted,
// that fail, and what the background does.
type crowd struct {
	t       *testing.T
	w       *storeWorld
	seed    uint64
	patches []*patch

	stop  atomic.Bool
	kills atomic.Bool   // a writer was killed: snapshots may fail
	all   sync.RWMutex  // held shared by every step, exclusively by who wants the live tree to stand still
	taken atomic.Uint64 // how many snapshots were taken
	gone  atomic.Uint64 // and deleted

	mu   sync.Mutex
	kept map[string]string // what snapshots show. GUARDED_BY mu
}

const (
	crowdPatches = 4
	crowdPlaces  = 3 // of a patch, in each directory
)

// crowdFor returns how long the crowd works: a moment, or what scripts/soak.sh sets.
func crowdFor() time.Duration {
	if n, err := strconv.Atoi(os.Getenv("SNAPFS_STRESS_SECONDS")); err == nil {
		return time.Duration(n) * time.Second
	}
	return 2 * time.Second
}

// TestCrowd lets a crowd loose on a store, several times with a restart or a crash in between: the live tree is what its last changes made of
// it, every snapshot shows what it showed at first, and when all snapshots are gone nothing of them is left.
func TestCrowd(t *testing.T) {
	c := &crowd{t: t, w: newStoreWorld(t, Options{}), seed: uint64(time.Now().UnixNano()), kept: map[string]string{}}
	t.Logf("seed %d", c.seed)
	sub, err := c.w.s.Live().Create(Root, "sub", Spec{Mode: syscall.S_IFDIR | 0o755})
	c.w.ok("mkdir", err)
	for i := range crowdPatches + 1 { // the last one is for flicker
		p := &patch{index: i, things: map[place]*thing{}}
		for k := range crowdPlaces {
			p.places = append(p.places, place{Root, fmt.Sprintf("%d.%d", i, k)})
			if i < crowdPatches {
				p.places = append(p.places, place{sub.Ino, fmt.Sprintf("sub.%d.%d", i, k)})
			}
		}
		c.patches = append(c.patches, p)
	}
	for end, round := time.Now().Add(crowdFor()), uint64(0); time.Now().Before(end) && !t.Failed(); round++ {
		c.round(round)
	}
	if t.Failed() {
		return
	}
	t.Logf("%d snapshots were taken, %d deleted", c.taken.Load(), c.gone.Load())
	c.clearAway()
}

// round has everybody work for a moment, and then looks.
func (c *crowd) round(n uint64) {
	c.w.s.live.nodes.limit = 4 // so that nodes come and go
	c.stop.Store(false)
	var wg sync.WaitGroup
	loop := func(what string, k uint64, step func(r *rand.Rand) error) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(c.seed+n, k))
			for !c.stop.Load() {
				if err := step(r); err != nil {
					c.t.Errorf("%s: %v", what, err)
					c.stop.Store(true)
				}
			}
		})
	}
	for i := range crowdPatches {
		loop("names", uint64(i), c.changeNames)
	}
	loop("flicker", 9, c.flicker)
	loop("snapshots", 10, c.takeSnapshot)
	loop("snapshots", 11, c.takeSnapshot)
	loop("deletions", 12, c.deleteSnapshots)
	loop("deletions", 13, c.deleteSnapshots)
	loop("background", 14, c.background)
	for range 25 {
		if c.stop.Load() {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.stop.Store(true)
	wg.Wait()
	c.w.settleQuietly()
	if c.t.Failed() {
		return
	}
	c.look()
	c.restart(n%2 == 1)
	c.look()
}

// flicker has two names come and go all the time: they have versions, or tombstones, in every epoch.
func (c *crowd) flicker(r *rand.Rand) error {
	c.all.RLock()
	defer c.all.RUnlock()
	p := c.patches[crowdPatches]
	p.mu.Lock()
	defer p.mu.Unlock()
	return (&worker{c.w.s.Live(), r}).flicker(p)
}

func (c *crowd) changeNames(r *rand.Rand) error {
	w := &worker{c.w.s.Live(), r}
	c.all.RLock()
	defer c.all.RUnlock()
	p, q := c.patches[r.IntN(crowdPatches)], c.patches[r.IntN(crowdPatches)]
	for _, x := range c.patches { // in their order
		if x == p || x == q {
			x.mu.Lock()
			defer x.mu.Unlock()
		}
	}
	for range 1 + r.IntN(4) {
		if err := w.step(p, q); err != nil {
			return err
		}
	}
	return nil
}

// takeSnapshot takes one, of a tree that stands still or not; sometimes its writer is killed.
func (c *crowd) takeSnapshot(r *rand.Rand) error {
	name := fmt.Sprintf("s%d", c.taken.Add(1))
	still, kill := r.IntN(4) == 0, r.IntN(8) == 0
	live := ""
	var err error
	if still {
		c.all.Lock()
		for _, p := range c.patches {
			err = errors.Join(err, p.differs(c.w.s.Live()))
		}
		if err == nil {
			live, err = dumpView(c.w.s.Live(), true)
		}
		if err != nil {
			c.all.Unlock()
			return err
		}
	}
	unlock := sync.OnceFunc(func() {
		if still {
			c.all.Unlock()
		}
	})
	defer unlock()
	var seen string
	var failed error
	var looking sync.WaitGroup
	frozen := func(taken Taken) {
		unlock()
		v, err := c.w.s.View(taken.Epoch)
		if err != nil {
			failed = err
			return
		}
		looking.Go(func() { // beside the commit: where the writer was killed reading waits for the end of that
			defer v.Release()
			if seen, failed = dumpView(v, true); failed == nil && still && seen != live {
				failed = fmt.Errorf("it is not what the live tree was: %s", difference(seen, live))
			}
		})
		if kill {
			c.kills.Store(true)
			killWriters()
		}
	}
	_, err = c.w.s.Snapshot(Request{Name: name, Frozen: frozen, NoWait: r.IntN(2) == 0})
	looking.Wait()
	if c.kills.Load() && (err != nil && strings.Contains(err.Error(), "failed and is removed") || errors.Is(failed, unix.ESTALE)) {
		return nil
	}
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("snapshot %s: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[name] = seen
	return nil
}

// show returns what the snapshot of an epoch shows.
func (c *crowd) show(e cow.Epoch) (string, error) {
	v, err := c.w.s.View(e)
	if err != nil {
		return "", err
	}
	defer v.Release()
	return dumpView(v, true)
}

// deleteSnapshots deletes some, which may be looked at meanwhile.
func (c *crowd) deleteSnapshots(r *rand.Rand) error {
	time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
	names, want := c.choose(1 + r.IntN(3))
	var views []*Frozen
	for _, name := range names {
		info, err := c.w.s.Find(name)
		if err == nil && r.IntN(3) == 0 {
			var v *Frozen
			if v, err = c.w.s.View(info.Epoch); err == nil {
				views = append(views, v)
				defer v.Release()
			}
		}
		if errors.Is(err, ErrUnknown) && c.kills.Load() {
			return nil // it failed, and so did the choice
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(names) == 0 {
		return nil
	}
	if r.IntN(4) == 0 {
		renamed := names[0] + "x"
		if err := c.w.s.Rename(names[0], renamed); err != nil && !(c.kills.Load() && errors.Is(err, ErrUnknown)) {
			return err
		} else if err == nil {
			want[renamed], names[0] = want[names[0]], renamed
		}
	}
	epochs := map[cow.Epoch]string{}
	_, err := c.w.s.Delete(names, false, func(i Info) { epochs[i.Epoch] = i.Name })
	if err != nil && !(c.kills.Load() && errors.Is(err, ErrUnknown)) {
		return err
	}
	c.gone.Add(uint64(len(epochs)))
	time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
	for _, v := range views {
		name := epochs[v.Epoch()]
		if got, err := dumpView(v, true); name != "" && (err != nil || got != want[name]) {
			return fmt.Errorf("%s, which is deleted and in use, has changed: %s%w", name, difference(got, want[name]), err)
		}
	}
	return nil
}

// choose takes up to n snapshots out of those that are kept; some stay for longer.
func (c *crowd) choose(n int) (names []string, want map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	want = map[string]string{}
	for name, shows := range c.kept {
		if len(names) == n || len(c.kept) < 6 {
			break
		}
		names, want[name] = append(names, name), shows
		delete(c.kept, name)
	}
	return names, want
}

func (c *crowd) background(r *rand.Rand) error {
	time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
	s := c.w.s
	switch r.IntN(4) {
	case 0:
		return s.live.flushAttrs()
	case 1:
		return s.tidy()
	case 2:
		return s.pool.Flush()
	default:
		_, err := s.List()
		return err
	}
}

// look compares everything, now that nobody is at work.
func (c *crowd) look() {
	t := c.t
	t.Helper()
	for _, p := range c.patches {
		if err := p.differs(c.w.s.Live()); err != nil {
			t.Errorf("the live tree: %v", err)
		}
	}
	there := map[string]bool{}
	for _, info := range c.w.s.Visible() {
		there[info.Name] = true
		got, err := c.show(info.Epoch)
		if want, kept := c.kept[info.Name]; kept && (err != nil || got != want) {
			t.Errorf("snapshot %s has changed: %s%v", info.Name, difference(got, want), err)
		} else if !kept && !c.kills.Load() {
			t.Errorf("snapshot %s is there again", info.Name)
		}
	}
	for name := range c.kept {
		if !there[name] {
			delete(c.kept, name)
			if !c.kills.Load() {
				t.Errorf("snapshot %s is lost", name)
			}
		}
	}
}

// restart closes the store and opens it again, or goes on with an image of it as it is now.
func (c *crowd) restart(crash bool) {
	w := c.w
	image := ""
	if crash {
		w.ok("sync", w.s.Live().Sync()) // and so what is written out: the image is that of a killed daemon
		w.ok("flush", w.s.pool.Flush())
		image = copyStore(w.t, w.dir)
	}
	for _, p := range c.patches {
		for _, t := range p.things {
			if t.open != nil {
				w.ok("close", t.open.Close())
				t.open = nil
			}
		}
	}
	w.ok("close", w.s.Close())
	if crash {
		w.dir = image
	}
	w.open()
	if r, err := w.s.check(true); err != nil || len(r.Problems) > 0 {
		c.t.Errorf("check: %+v, %v", r.Problems, err)
	}
}

// clearAway deletes all snapshots, and looks for what they have left.
func (c *crowd) clearAway() {
	w, t := c.w, c.t
	var names []string
	for _, i := range w.s.Visible() {
		names = append(names, i.Name)
	}
	_, err := w.s.Delete(names, false, nil)
	w.ok("delete", err)
	_, err = w.s.Snapshot(Request{Name: "last"}) // its removal takes with it what hides nothing any more
	w.ok("snapshot", err)
	_, err = w.s.Delete([]string{"last"}, false, nil)
	w.ok("delete", err)
	w.ok("tidy", w.s.tidy())
	err = w.s.db.Touched(0, meta.Latest-1, func(e cow.Epoch, k meta.Key) bool {
		vs, err := w.s.db.Versions(k)
		if err != nil || len(vs) > 1 || len(vs) == 1 && vs[0].Tombstone {
			t.Errorf("of %q is left: %+v, %v", k, vs, err)
		}
		return true
	})
	w.ok("list what was touched", err)
	inodes := map[Ino]bool{}
	w.ok("list inodes", w.s.db.Inodes(func(ino Ino, _ cow.Epoch, _ *meta.Inode) bool {
		if inodes[ino] {
			t.Errorf("inode %d has more than one version", ino)
		}
		inodes[ino] = true
		return true
	}))
	want := map[Ino]bool{}
	for _, p := range c.patches {
		for _, x := range p.things {
			want[x.ino] = true
		}
	}
	if len(inodes) != len(want)+2 { // the root and "sub"
		t.Errorf("%d inodes are left, there should be %d", len(inodes), len(want)+2)
	}
	if r := w.check(); r.Unused > 0 || r.Pages > 0 {
		t.Errorf("%d base files and %d saved pages are left", r.Unused, r.Pages)
	}
	if logs, err := filepath.Glob(w.dir + "/undo/*"); err != nil || len(logs) > 0 {
		t.Errorf("undo logs are left: %v, %v", logs, err)
	}
}

// difference returns the first lines in which two dumps differ.
func difference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("%q and not %q ", a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines and not %d ", len(a), len(b))
}

// killWriters kills the writers of this process.
func killWriters() {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, path := range lists {
		list, _ := os.ReadFile(path) // of a thread that is gone
		for _, field := range strings.Fields(string(list)) {
			if pid, err := strconv.Atoi(field); err == nil {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/snapfs/snapfs/cow"
)

// churn is a store in which several writers change files of their own while snapshots are taken, read, copied from and deleted, and writers
// of snapshots are killed. Every file has a model, every snapshot an image.
type churn struct {
	t    *testing.T
	s    *Store
	stop chan struct{}

	moment sync.RWMutex // held shared by every change and exclusively by a freeze whose image is that of the models
	owners []*owner

	mu     sync.Mutex
	images map[string]*image // GUARDED_BY mu
	taken  int               // GUARDED_BY mu

	killed atomic.Int64
	counts [3]atomic.Int64 // snapshots, deletions, verified images
}

// image is what a snapshot has to show.
type image struct {
	epoch cow.Epoch
	exact bool // it is of one moment between changes
	files map[string][]byte
}

func churnTime() time.Duration {
	if n, err := strconv.Atoi(os.Getenv("SNAPFS_STRESS_SECONDS")); err == nil {
		return time.Duration(n) * time.Second
	}
	return 1500 * time.Millisecond
}

// TestChurn: at the end every file and every snapshot that was kept is what its model is, and when the snapshots are gone so is what they
// took. Memory for private pages is short.
func TestChurn(t *testing.T) {
	for name, noFork := range map[string]bool{"forked": false, "in process": true} {
		t.Run(name, func(t *testing.T) {
			opt := Options{Create: true, FlushInterval: 3 * time.Millisecond, DirtyLimit: 4 << 20, noFork: noFork, Report: func(err error) {
				if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "writer") {
					t.Error("in the background:", err)
				}
			}}
			dir := scratch(t)
			s, err := Open(dir, opt)
			agree(t, "open", err, nil)
			c := &churn{t: t, s: s, stop: make(chan struct{}), images: map[string]*image{}}
			c.run(churnTime())
			c.verify()
			agree(t, "close", s.Close(), nil)
			c.s, err = Open(dir, opt)
			agree(t, "open again", err, nil)
			c.verify()
			c.deleteAll()
			agree(t, "close again", c.s.Close(), nil)
		})
	}
}

// run lets everybody work for a while.
func (c *churn) run(d time.Duration) {
	seed := rand.Uint64()
	c.t.Log("seed", seed)
	var changes, others sync.WaitGroup
	for i := range 4 {
		o := &owner{c: c, r: rand.New(rand.NewPCG(seed, uint64(i))), files: map[string]*owned{}}
		c.owners = append(c.owners, o)
		changes.Go(func() { c.repeat(func() { o.change(fmt.Sprint(i, "-", o.r.IntN(3))) }) })
	}
	for i, role := range []func(*rand.Rand){c.snapshot, c.snapshot, c.delete, c.read, c.read, c.kill} {
		r := rand.New(rand.NewPCG(seed, uint64(100+i)))
		others.Go(func() { c.repeat(func() { role(r) }) })
	}
	time.Sleep(d)
	close(c.stop)
	changes.Wait()
	others.Wait()
	c.t.Logf("%d snapshots, %d writers killed, %d deletions, %d images read", c.counts[0].Load(), c.killed.Load(), c.counts[1].Load(), c.counts[2].Load())
}

func (c *churn) repeat(do func()) {
	for {
		select {
		case <-c.stop:
			return
		default:
			do()
		}
		if c.t.Failed() {
			return
		}
	}
}

func (c *churn) same(what string, got, want []byte) {
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			c.t.Errorf("%s: byte %d (page %d, byte %d of it) of %d is %#x, want %#x", what, i, i/cow.PageSize, i%cow.PageSize, len(want), got[i], want[i])
			return
		}
	}
	c.t.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
}

// snapshot takes a snapshot: of one moment of all models, or in the middle of changes, of which the snapshot itself says how far they were.
func (c *churn) snapshot(r *rand.Rand) {
	time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
	c.mu.Lock()
	c.taken++
	name, full := fmt.Sprint("s", c.taken), len(c.images) > 8
	c.mu.Unlock()
	if full {
		return
	}
	exact := r.IntN(2) == 0
	img := &image{exact: exact, files: map[string][]byte{}}
	unlock := func() {}
	if exact {
		c.moment.Lock()
		unlock = sync.OnceFunc(c.moment.Unlock)
		for _, o := range c.owners {
			for name, f := range o.files {
				img.files[name] = bytes.Clone(f.model)
			}
		}
	}
	defer unlock()
	var reading sync.WaitGroup
	_, err := c.s.Snapshot(Request{Name: name, Frozen: func(taken Taken) {
		unlock()
		img.epoch = taken.Epoch
		reading.Go(func() { // beside the commit: where the writer was killed a read waits for its end
			if exact || c.readInto(img) {
				c.mu.Lock()
				c.images[name] = img
				c.mu.Unlock()
			}
		})
	}})
	reading.Wait()
	c.counts[0].Add(1)
	if err != nil {
		c.mu.Lock()
		delete(c.images, name)
		c.mu.Unlock()
		if !c.mayFail(err) {
			c.t.Errorf("snapshot: %v", err)
		}
	}
}

// mayFail reports whether an error is one of a snapshot whose writer was killed.
func (c *churn) mayFail(err error) bool {
	return c.killed.Load() > 0 && (errors.Is(err, syscall.EIO) && strings.Contains(err.Error(), "writer") || errors.Is(err, syscall.ESTALE))
}

// readInto makes the image of what a snapshot shows now.
func (c *churn) readInto(img *image) bool {
	v, err := c.s.View(img.epoch)
	if err != nil {
		return false // its writer was killed just now
	}
	defer v.Release()
	var names []string
	agree(c.t, "list", v.ReadDir(Root, 0, func(e Dirent) bool { names = append(names, e.Name); return true }), nil)
	for _, name := range names {
		b, ok := c.readFrozen(v, name)
		if !ok {
			return false
		}
		img.files[name] = b
	}
	return true
}

func (c *churn) open(v *Frozen, name string) Content {
	a, err := v.Lookup(Root, name)
	agree(c.t, "look up "+name, err, nil)
	f, err := v.Open(a.Ino)
	agree(c.t, "open "+name, err, nil)
	return f
}

// readFrozen returns the bytes of a file in a snapshot; not ok if the snapshot failed.
func (c *churn) readFrozen(v *Frozen, name string) (b []byte, ok bool) {
	f := c.open(v, name)
	defer f.Close()
	b = make([]byte, f.Size())
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		if !c.mayFail(err) {
			c.t.Errorf("read %s in snapshot %d: %v", name, v.Epoch(), err)
		}
		return nil, false
	}
	return b[:n], true
}

// pick returns a snapshot, nil if there is none.
func (c *churn) pick(r *rand.Rand) (string, *image) {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := slices.Sorted(maps.Keys(c.images))
	if len(names) == 0 {
		return "", nil
	}
	name := names[r.IntN(len(names))]
	return name, c.images[name]
}

func (c *churn) read(r *rand.Rand) {
	if name, img := c.pick(r); img != nil {
		c.verifyImage(name, img)
	}
	time.Sleep(time.Millisecond)
}

// verifyImage compares a snapshot with its image, as long as it is there.
func (c *churn) verifyImage(name string, img *image) (there bool) {
	v, err := c.s.View(img.epoch)
	if err != nil {
		return false
	}
	defer v.Release()
	for file, want := range img.files {
		if got, ok := c.readFrozen(v, file); ok {
			c.same(fmt.Sprintf("%s (epoch %d, exact: %v) %s", name, img.epoch, img.exact, file), got, want)
		}
	}
	c.counts[2].Add(1)
	return true
}

func (c *churn) delete(r *rand.Rand) {
	time.Sleep(time.Duration(r.IntN(8)) * time.Millisecond)
	name, img := c.pick(r)
	if img == nil {
		return
	}
	c.mu.Lock()
	delete(c.images, name)
	c.mu.Unlock()
	_, err := c.s.Delete([]string{name}, false, nil)
	if err != nil && !errors.Is(err, ErrUnknown) {
		c.t.Errorf("delete: %v", err)
	}
	c.counts[1].Add(1)
}

// kill kills the writer of a snapshot now and then.
func (c *churn) kill(r *rand.Rand) {
	time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
	for _, pid := range childrenOf(c.t) {
		c.killed.Add(1)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// childrenOf returns the processes that this one has forked: the writers, as the tests of this package run one after the other.
func childrenOf(t *testing.T) (pids []int) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Error(err)
	}
	for _, task := range tasks {
		b, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		for _, field := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// verify compares everything with its model. Nothing goes on any more.
func (c *churn) verify() {
	for _, o := range c.owners {
		for name, f := range o.files {
			a, err := c.s.live.Lookup(Root, name)
			agree(c.t, "look up "+name, err, nil)
			f.h, err = c.s.live.OpenFile(a.Ino)
			agree(c.t, "open "+name, err, nil)
			o.compare(name, f)
			agree(c.t, "close", f.h.Close(), nil)
		}
	}
	for name, img := range c.images {
		if !c.verifyImage(name, img) {
			c.t.Errorf("snapshot %s is gone", name)
		}
	}
	report, err := c.s.Check()
	if err != nil || len(report.Problems) > 0 {
		c.t.Errorf("check: %+v, %v", report.Problems, err)
	}
}

// deleteAll deletes the snapshots one by one, and looks at the others each time.
func (c *churn) deleteAll() {
	for _, name := range slices.Sorted(maps.Keys(c.images)) {
		delete(c.images, name)
		_, err := c.s.Delete([]string{name}, false, nil)
		agree(c.t, "delete", err, nil)
		for name, img := range c.images {
			c.verifyImage(name, img)
		}
	}
	if logs := c.s.pool.Logs(); len(logs) > 0 {
		c.t.Errorf("undo logs %v are left after the last snapshot", logs)
	}
}

package cow

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busy keeps 64 goroutines allocating, and the garbage collector running, until the returned function is called: what a
// fork meets in a daemon at work.
func busy() (stop func()) {
	var wg sync.WaitGroup
	var done atomic.Bool
	for range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var keep [16][]byte
			for i := 0; !done.Load(); i++ {
				keep[i%len(keep)] = make([]byte, 1+rand.IntN(64<<10))
				if i%64 == 0 {
					runtime.Gosched()
				}
			}
		}()
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		for !done.Load() {
			runtime.GC()
		}
	}()
	return func() { done.Store(true); wg.Wait() }
}

// TestWriterAmongGoroutines forks while everything in the daemon moves: no child hangs or dies, no snapshot differs.
func TestWriterAmongGoroutines(t *testing.T) {
	defer busy()()
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 64*PageSize)))
	for i := range 40 {
		s, err := w.freeze()
		must(t, err)
		must(t, w.write(id, int64(rand.IntN(60))*PageSize, fill(byte(i), 4*PageSize)))
		must(t, w.commit(s))
		if i%8 == 7 {
			w.verify()
			for len(w.snaps) > 4 {
				must(t, w.remove(w.snaps[rand.IntN(len(w.snaps))]))
			}
		}
	}
	w.verify()
	w.check()
}

// TestFrozenReadsWhileWriting reads snapshots in parallel with live writers, flushes and the writers of several snapshots.
func TestFrozenReadsWhileWriting(t *testing.T) {
	w := newWorld(t, Options{FlushInterval: 5 * time.Millisecond})
	const pages = 256
	id := w.create()
	stamp := func(n uint64) []byte { // every page of a generation holds its number, all over
		return bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(n >> 16), 1}, PageSize/4)
	}
	var mu sync.RWMutex // what the test knows of generations
	f := w.file(id)
	for p := range pages {
		_, err := f.WriteAt(stamp(0), int64(p)*PageSize, w.record(id))
		must(t, err)
	}
	type snap struct {
		epoch Epoch
		want  [pages]uint64
	}
	var live [pages]uint64
	var snaps []*snap
	var stop atomic.Bool
	var wg sync.WaitGroup
	fail := func(format string, args ...any) { t.Errorf(format, args...); stop.Store(true) }
	wg.Add(1)
	go func() { // the writer of the live content; nobody else knows what a freeze finds
		defer wg.Done()
		for n := uint64(1); !stop.Load(); n++ {
			p := rand.IntN(pages)
			mu.RLock()
			_, err := f.WriteAt(stamp(n), int64(p)*PageSize, w.record(id))
			live[p] = n
			mu.RUnlock()
			if err != nil {
				fail("write: %v", err)
			}
		}
	}()
	for range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			b := make([]byte, PageSize)
			for !stop.Load() {
				mu.RLock()
				if len(snaps) == 0 {
					mu.RUnlock()
					continue
				}
				s := snaps[rand.IntN(len(snaps))]
				mu.RUnlock()
				p := rand.IntN(pages)
				fr, _ := w.pool.OpenFrozen(id, s.epoch, pages*PageSize)
				_, err := fr.ReadAt(b, int64(p)*PageSize)
				fr.Close()
				if err != nil || !bytes.Equal(b, stamp(s.want[p])) {
					fail("snapshot %d page %d: %v, holds %d, want %d", s.epoch, p, err, uint64(b[0])|uint64(b[1])<<8|uint64(b[2])<<16, s.want[p])
				}
			}
		}()
	}
	var commits sync.WaitGroup
	for i := 0; i < 60 && !stop.Load(); i++ {
		mu.Lock() // the writer stands still, so that we know what is frozen
		s := &snap{want: live}
		fz, err := w.pool.Freeze(func(e Epoch) error { s.epoch = e; return nil })
		must(t, err)
		snaps = append(snaps, s)
		mu.Unlock()
		commits.Add(1)
		go func() {
			defer commits.Done()
			for _, step := range []func() error{fz.Save, func() error { return fz.Write(nil) }, fz.Sync} {
				if err := step(); err != nil {
					fail("commit: %v", err)
				}
			}
			fz.Finish()
		}()
		time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
	}
	commits.Wait()
	stop.Store(true)
	wg.Wait()
	w.check()
}

// TestKilledWriters kills writers at random moments: their snapshots fail, nothing else is lost (I7).
func TestKilledWriters(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 512*PageSize)))
	first, err := w.freeze()
	must(t, err)
	must(t, w.commit(first))
	killed := 0
	for i := range 30 {
		must(t, w.write(id, int64(rand.IntN(200))*PageSize, fill(byte(i), 300*PageSize)))
		s, err := w.freeze()
		must(t, err)
		must(t, w.write(id, int64(rand.IntN(500))*PageSize, fill(byte(i+100), 10*PageSize)))
		pid := s.fz.WriterPID()
		if pid != 0 { // else all pages were saved for the first snapshot, and the others failed
			go func() {
				time.Sleep(time.Duration(rand.IntN(1500)) * time.Microsecond)
				_ = unix.Kill(pid, unix.SIGKILL)
			}()
		}
		if err := w.commit(s); err != nil {
			killed++
			if !errors.Is(err, unix.EIO) {
				t.Fatal(err)
			}
		}
		w.verify()
		if i%5 == 4 {
			must(t, w.sync(id))
		}
	}
	t.Logf("%d of 30 writers were killed in time", killed)
	if killed == 0 {
		t.Error("no writer was killed in time: the test tests nothing")
	}
	w.reopen()
	w.verify()
	w.check()
}

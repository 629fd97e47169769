package snapfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sealed returns bytes that say of themselves whether they are whole.
func sealed(r *rand.Rand) []byte {
	body := bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(40_000))
	return append(fmt.Appendf(nil, "%08x %d\n", crc32.ChecksumIEEE(body), len(body)), body...)
}

func checkSealed(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var sum uint32
	var n int
	head, body, _ := bytes.Cut(data, []byte("\n"))
	if _, err := fmt.Sscanf(string(head), "%x %d", &sum, &n); err != nil {
		return fmt.Errorf("%s of %d bytes has no head: %w", path, len(data), err)
	}
	if len(body) != n || crc32.ChecksumIEEE(body) != sum {
		return fmt.Errorf("%s is not whole: %d of %d bytes", path, len(body), n)
	}
	return nil
}

// TestStress has everybody at work at once: files that are replaced whole, so that every snapshot holds whole ones;
// files that are overwritten in place; names that move; snapshots by both ways, read while they are written, and deleted.
func TestStress(t *testing.T) {
	m := newMount(t, func(m *mounted) { m.storeOpt.DirtyLimit = 4 << 20 }) // so that the limit is met, too
	for _, dir := range []string{"whole", "inplace", "moving", "moving/a", "moving/b"} {
		need(t, os.Mkdir(m.live(dir), 0o755))
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	worker := func(name string, step func(r *rand.Rand, i int) error) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(len(name))))
			for i := 0; !stop.Load(); i++ {
				if err := step(r, i); err != nil {
					t.Errorf("%s, step %d: %v", name, i, err)
					return
				}
			}
		})
	}
	worker("replace", func(r *rand.Rand, _ int) error {
		path := m.live("whole", fmt.Sprint(r.IntN(20)))
		return errors.Join(os.WriteFile(path+"~", sealed(r), 0o644), os.Rename(path+"~", path))
	})
	for i := range 2 {
		worker(strings.Repeat("overwrite", i+1), func(r *rand.Rand, _ int) error {
			return overwriteAnywhere(m.live("inplace", fmt.Sprint(i)), r)
		})
	}
	worker("move", func(_ *rand.Rand, i int) error {
		from, to := m.live("moving/a", fmt.Sprint(i%7)), m.live("moving/b", fmt.Sprint(i%5))
		return errors.Join(os.WriteFile(from, []byte("moved"), 0o644), rename(from, to, 0))
	})
	worker("snapshots", func(r *rand.Rand, i int) error { return m.stressSnapshot(fmt.Sprint("s", i), r.IntN(2) == 0) })
	time.Sleep(stressFor())
	stop.Store(true)
	wg.Wait()
	before := readTree(t, m.mnt)
	m.remount()
	wantSameTree(t, "after a remount", before, readTree(t, m.mnt), everything)
}

// overwriteAnywhere writes, punches and cuts within 1 MiB.
func overwriteAnywhere(path string, r *rand.Rand) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	off, n := r.Int64N(1<<20), r.Int64N(100_000)+1
	switch r.IntN(8) {
	case 0:
		err = f.Truncate(off)
	case 1:
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	case 2:
		err = f.Sync()
	default:
		_, err = f.WriteAt(bytes.Repeat([]byte{byte(n)}, int(n)), off)
	}
	return errors.Join(err, f.Close())
}

// stressSnapshot takes a snapshot, reads it twice, and deletes it. What is in it is whole and does not change.
func (m *mounted) stressSnapshot(name string, mkdir bool) error {
	if mkdir {
		if err := os.Mkdir(m.frozen(name), 0o755); err != nil {
			return err
		}
	} else {
		m.snapshot(name)
	}
	entries, err := os.ReadDir(m.frozen(name, "whole"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "~") {
			continue
		}
		if err := checkSealed(m.frozen(name, "whole", e.Name())); err != nil {
			return err
		}
	}
	first := readTree(m.t, m.frozen(name))
	for path, n := range first {
		if n.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if err := forgetPages(m.frozen(name, path)); err != nil {
			return err
		}
	}
	if diffs := differences(first, readTree(m.t, m.frozen(name)), everything); len(diffs) > 0 {
		return fmt.Errorf("snapshot %s changed: %s", name, diffs)
	}
	return os.Remove(m.frozen(name))
}

// forgetPages makes the kernel forget what it has cached of a file.
func forgetPages(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
}

// TestManySnapshots takes and deletes a lot of snapshots: nothing of them stays, neither memory nor descriptors.
func TestManySnapshots(t *testing.T) {
	m := newMount(t)
	writeFile(t, m.live("f"), strings.Repeat("x", 50_000))
	const kept = 50
	round := func(first, n int) {
		for i := first; i < first+n; i++ {
			f, err := os.OpenFile(m.live("f"), os.O_RDWR, 0)
			need(t, err)
			_, err = f.WriteAt(fmt.Appendf(nil, "%08d", i), int64(i%10)*4096)
			need(t, errors.Join(err, f.Close()))
			m.snapshot(fmt.Sprint(i))
			if i >= kept {
				need(t, os.Remove(m.frozen(fmt.Sprint(i-kept))))
			}
		}
	}
	const rounds = 150
	round(0, rounds)
	before := footprint(t)
	round(rounds, rounds)
	after := footprint(t)
	if after.heap > before.heap+4<<20 || after.fds > before.fds+10 || after.goroutines > before.goroutines+10 {
		t.Errorf("%d snapshots made %+v of %+v", rounds, after, before)
	}
	for i := 2*rounds - kept; i < 2*rounds; i++ {
		got, err := os.ReadFile(m.frozen(fmt.Sprint(i), "f"))
		need(t, err)
		if want := fmt.Sprintf("%08d", i); string(got[i%10*4096:i%10*4096+8]) != want {
			t.Errorf("snapshot %d holds %q", i, got[i%10*4096:i%10*4096+8])
		}
	}
}

// usage is what the process holds.
type usage struct {
	heap            uint64
	fds, goroutines int
}

func footprint(t *testing.T) usage {
	t.Helper()
	runtime.GC()
	runtime.GC() // what finalizers held
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	fds, err := os.ReadDir("/proc/self/fd")
	need(t, err)
	return usage{mem.HeapAlloc, len(fds), runtime.NumGoroutine()}
}

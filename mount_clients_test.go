package snapfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// stressFor returns how long the tests that put a mount under load go on: a few seconds, or what scripts/soak.sh sets.
func stressFor() time.Duration {
	if n, err := strconv.Atoi(os.Getenv("SNAPFS_STRESS_SECONDS")); err == nil {
		return time.Duration(n) * time.Second
	}
	return 3 * time.Second
}

// TestManyClients: 64 clients write, read and sync, each a file of its own, while snapshots are taken as fast as it goes, by two, and deleted
// while they are being read. A file that was opened in a snapshot is readable until it is closed, and what it shows is of one moment
// and stays. In the end the mount goes while a snapshot is being written.
func TestManyClients(t *testing.T) {
	m := newMount(t, func(m *mounted) { m.storeOpt.DirtyLimit = 8 << 20 })
	const clients, filePages = 64, 32
	for i := range clients {
		writeFile(t, m.live(fmt.Sprint(i)), string(clientPages(0, filePages)))
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	work := func(what string, step func(r *rand.Rand, n int) error) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(len(what))))
			for n := 1; !stop.Load(); n++ {
				if err := step(r, n); err != nil {
					t.Errorf("%s, step %d: %v", what, n, err)
					stop.Store(true)
				}
			}
		})
	}
	for i := range clients {
		work(fmt.Sprint("client ", i), func(r *rand.Rand, n int) error { return clientStep(m.live(fmt.Sprint(i)), r, n, filePages) })
	}
	var taken, read atomic.Int64
	for i := range 2 {
		work(fmt.Sprint("snapshots ", i), func(r *rand.Rand, n int) error {
			name := fmt.Sprint(i, ".", n)
			// One of them reads snapshots that are still being written.
			if _, err := m.mount.Snapshot(snapshot.Request{Name: name, NoWait: i == 0}); err != nil {
				return err
			}
			taken.Add(1)
			return readWhileDeleted(m.frozen(name), fmt.Sprint(r.IntN(clients)), filePages, &read)
		})
	}
	time.Sleep(stressFor())
	stop.Store(true)
	wg.Wait()
	t.Logf("%d snapshots taken and deleted, %d files read meanwhile", taken.Load(), read.Load())
	writeFile(t, m.live("0"), string(clientPages(1<<40, filePages)))
	_, err := m.mount.Snapshot(snapshot.Request{Name: "last", NoWait: true})
	need(t, err)
	m.remount()
	wantFile(t, m.frozen("last", "0"), string(clientPages(1<<40, filePages)))
}

// clientPages returns a file whose pages hold a number.
func clientPages(n uint64, pages int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%015d\n", n), pages*4096/16)
}

// clientStep overwrites the whole file with one write, reads it back, and now and then syncs it.
func clientStep(path string, r *rand.Rand, n, pages int) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	want := clientPages(uint64(n), pages)
	if _, err := f.WriteAt(want, 0); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("read back %.16q, %v; want %.16q", got, err, want)
	}
	if r.IntN(20) == 0 {
		return f.Sync()
	}
	return nil
}

// readWhileDeleted opens a file of a snapshot, deletes the snapshot, and reads: before, after, and after.
func readWhileDeleted(tree, name string, pages int, read *atomic.Int64) error {
	f, err := os.Open(tree + "/" + name)
	if err != nil {
		return err
	}
	defer f.Close()
	first, err := io.ReadAll(f)
	if err != nil || len(first) != pages*4096 {
		return fmt.Errorf("read %d bytes of %s: %w", len(first), f.Name(), err)
	}
	deleted := make(chan error, 1)
	go func() { deleted <- os.Remove(tree) }()
	for range 3 {
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
		again := make([]byte, len(first))
		if _, err := f.ReadAt(again, 0); err != nil || !bytes.Equal(again, first) {
			return errors.Join(err, <-deleted, fmt.Errorf("%s held %.16q and now holds %.16q", f.Name(), first, again))
		}
		read.Add(1)
	}
	if err := <-deleted; err != nil {
		return err
	}
	again := make([]byte, len(first))
	if _, err := f.ReadAt(again, 0); err != nil || !bytes.Equal(again, first) {
		return fmt.Errorf("%s, whose snapshot is deleted, held %.16q and now holds %.16q, %v", f.Name(), first, again, err)
	}
	if _, err := os.Open(tree + "/" + name); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open %s, which is deleted: %v", name, err)
	}
	return nil
}

package snapfs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The chain: files that get record i one after the other, the next one only when the one before has it. A snapshot of one
// moment holds record i in file k+1 only if it holds it in file k, and file 0 is at most one record ahead of the last.
const chainLength = 5

// chain writes records in order until it is told to stop.
type chain struct {
	dir     string
	sync    bool // fsync each record before the next file gets it
	records atomic.Int64
	write   func(f *os.File, record int64) error
	read    func(path string) (whole, begun int64, err error) // the last record that is there, and that has any byte there
}

func (c *chain) run(stop *atomic.Bool) error {
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return err
	}
	files := make([]*os.File, chainLength)
	for k := range files {
		f, err := os.Create(filepath.Join(c.dir, fmt.Sprint(k)))
		if err != nil {
			return err
		}
		defer f.Close()
		files[k] = f
	}
	for record := int64(1); !stop.Load(); record++ {
		for _, f := range files {
			if err := c.write(f, record); err != nil {
				return err
			}
			if !c.sync {
				continue
			}
			if err := f.Sync(); err != nil {
				return err
			}
		}
		c.records.Store(record)
	}
	return nil
}

// check looks at the chain in a snapshot that was commanded after atLeast records were complete.
func (c *chain) check(dir string, atLeast int64) error {
	var previous int64
	for k := range chainLength {
		whole, begun, err := c.read(filepath.Join(dir, fmt.Sprint(k)))
		if err != nil {
			return err
		}
		if k > 0 && begun > previous {
			return fmt.Errorf("file %d of %s has something of record %d, the one before only %d records", k, dir, begun, previous)
		}
		if whole < atLeast || k > 0 && whole < previous-1 {
			return fmt.Errorf("file %d of %s has %d records, the one before %d, %d were complete before", k, dir, whole, previous, atLeast)
		}
		previous = whole
	}
	return nil
}

// appendRecord makes the file grow by 8 bytes.
func appendRecord(f *os.File, record int64) error {
	_, err := f.Write(binary.BigEndian.AppendUint64(nil, uint64(record)))
	return err
}

func readAppended(path string) (whole, begun int64, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	for i := 0; i+8 <= len(data); i += 8 {
		if got := binary.BigEndian.Uint64(data[i:]); got != uint64(i/8+1) {
			return 0, 0, fmt.Errorf("record %d of %s is %d", i/8+1, path, got)
		}
	}
	if len(data)%8 != 0 {
		return 0, 0, fmt.Errorf("%s ends in the middle of a record", path)
	}
	whole = int64(len(data) / 8)
	return whole, whole, nil
}

// Overwriting keeps the same number at the start of several pages, the first one first.
const overwrittenPages = 6

func overwriteRecord(f *os.File, record int64) error {
	for page := range int64(overwrittenPages) {
		if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(record)), page*3*4096+100); err != nil {
			return err
		}
	}
	return nil
}

// readOverwritten also checks that the pages were written in order.
func readOverwritten(path string) (whole, begun int64, err error) {
	pages, err := overwritten(path)
	if err != nil {
		return 0, 0, err
	}
	for i, n := range pages[1:] {
		if n > pages[i] {
			return 0, 0, fmt.Errorf("the pages of %s are at records %v: not in order", path, pages)
		}
	}
	return slices.Min(pages), slices.Max(pages), nil
}

// readUnordered is readOverwritten where the order of the pages is the kernel's.
func readUnordered(path string) (whole, begun int64, err error) {
	pages, err := overwritten(path)
	if err != nil {
		return 0, 0, err
	}
	return slices.Min(pages), slices.Max(pages), nil
}

// overwritten returns the records that the pages are at: at most one apart.
func overwritten(path string) (pages []int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for page := range int64(overwrittenPages) {
		var b [8]byte
		if _, err := f.ReadAt(b[:], page*3*4096+100); err != nil {
			return nil, fmt.Errorf("page %d of %s: %w", page, path, err)
		}
		pages = append(pages, int64(binary.BigEndian.Uint64(b[:])))
	}
	if slices.Max(pages) > slices.Min(pages)+1 {
		return nil, fmt.Errorf("the pages of %s are at records %v", path, pages)
	}
	return pages, nil
}

func TestSnapshotIsOneMoment(t *testing.T) {
	m := newMount(t)
	chains := []*chain{
		{dir: "append", write: appendRecord, read: readAppended},
		{dir: "append-sync", sync: true, write: appendRecord, read: readAppended},
		{dir: "overwrite", write: overwriteRecord, read: readOverwritten},
		{dir: "overwrite-sync", sync: true, write: overwriteRecord, read: readOverwritten},
	}
	testChains(t, m, chains)
}

// TestSnapshotIsOneMomentWriteback: what was written before an fsync is never missing where something after it is there.
func TestSnapshotIsOneMomentWriteback(t *testing.T) {
	m := newMount(t, writeback)
	testChains(t, m, []*chain{
		{dir: "append", sync: true, write: appendRecord, read: readAppended},
		{dir: "overwrite", sync: true, write: overwriteRecord, read: readUnordered},
	})
}

// testChains takes snapshots while all chains are written, then checks each in each, also after a remount.
func testChains(t *testing.T, m *mounted, chains []*chain) {
	const snapshots = 12
	var stop atomic.Bool
	var wg sync.WaitGroup
	names := make([]string, len(chains))
	for i, c := range chains {
		names[i] = c.dir
		c.dir = m.live(c.dir)
		wg.Go(func() {
			if err := c.run(&stop); err != nil {
				t.Error(err)
				stop.Store(true)
			}
		})
	}
	var atLeast [snapshots][]int64
	for s := range snapshots {
		waitForRecords(t, chains, &stop)
		for _, c := range chains {
			atLeast[s] = append(atLeast[s], c.records.Load())
		}
		m.snapshot(fmt.Sprint(s))
	}
	stop.Store(true)
	wg.Wait()
	for range 2 {
		for s := range snapshots {
			for i, c := range chains {
				if err := c.check(m.frozen(fmt.Sprint(s), names[i]), atLeast[s][i]); err != nil {
					t.Errorf("snapshot %d: %v", s, err)
				}
			}
		}
		m.remount()
	}
}

// waitForRecords returns when every chain has got a little further.
func waitForRecords(t *testing.T, chains []*chain, stop *atomic.Bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for _, c := range chains {
		for start := c.records.Load(); c.records.Load() < start+2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) || stop.Load() {
				t.Fatalf("the writer of %s is stuck at record %d", c.dir, c.records.Load())
			}
		}
	}
}

// TestNamesAreOneMoment: files are created in order, each renamed into its place; a snapshot holds a prefix.
func TestNamesAreOneMoment(t *testing.T) {
	m := newMount(t)
	var stop atomic.Bool
	var made atomic.Int64
	var wg sync.WaitGroup
	dirs := []string{"a", "b", "c"}
	for _, dir := range dirs {
		need(t, os.Mkdir(m.live(dir), 0o755))
	}
	wg.Go(func() {
		for i := int64(1); !stop.Load(); i++ {
			for _, dir := range dirs {
				tmp, final := m.live(dir, "tmp"), m.live(dir, fmt.Sprint(i))
				if err := errors.Join(os.WriteFile(tmp, fmt.Append(nil, i), 0o644), os.Rename(tmp, final)); err != nil {
					t.Error(err)
					return
				}
			}
			made.Store(i)
		}
	})
	for s := range 10 {
		time.Sleep(10 * time.Millisecond)
		atLeast := made.Load()
		m.snapshot(fmt.Sprint(s))
		checkPrefix(t, m, fmt.Sprint(s), dirs, atLeast)
	}
	stop.Store(true)
	wg.Wait()
}

// checkPrefix checks that each directory of a snapshot holds the files from 1 on, none of them in a later directory if
// not in the one before, all of them complete.
func checkPrefix(t *testing.T, m *mounted, name string, dirs []string, atLeast int64) {
	t.Helper()
	previous := int64(-1)
	for _, dir := range dirs {
		entries, err := os.ReadDir(m.frozen(name, dir))
		need(t, err)
		n := int64(0)
		for _, e := range entries {
			if e.Name() == "tmp" {
				continue
			}
			n++
			wantFile(t, m.frozen(name, dir, e.Name()), e.Name())
		}
		if previous < 0 {
			previous = n
		}
		if n < atLeast || n > previous || n < previous-1 {
			t.Errorf("snapshot %s: directory %s has %d files, the one before %d, %d were complete before", name, dir, n, previous, atLeast)
		}
		for i := int64(1); i <= n; i++ {
			if _, err := os.Lstat(m.frozen(name, dir, fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		}
		previous = n
	}
}

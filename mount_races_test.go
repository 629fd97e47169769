package snapfs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// raceTime is how long a test looks for a race.
const raceTime = 2 * time.Second

// during runs do until the test's time is up, while others run as well, again and again.
func during(t *testing.T, limit time.Duration, do func(i int) error, others ...func() error) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, other := range others {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := other(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer wg.Wait()
	defer close(stop) // also where do ends the test
	for i, end := 0, time.Now().Add(limit); time.Now().Before(end); i++ {
		if err := do(i); err != nil {
			t.Errorf("round %d: %v", i, err)
			break
		}
	}
}

// TestEmptiedWhileAppendedTo: a log that is emptied (: > log) while somebody appends to it has whole records without a gap at any time.
func TestEmptiedWhileAppendedTo(t *testing.T) {
	for _, back := range []bool{false, true} {
		t.Run(fmt.Sprint("writeback=", back), func(t *testing.T) {
			m := newMount(t, func(m *mounted) { m.opt.Writeback = back })
			path := m.live("log")
			log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
			need(t, err)
			defer log.Close()
			last := uint64(0)
			during(t, raceTime, func(int) error {
				last++
				_, err := log.Write(binary.BigEndian.AppendUint64(nil, last))
				return err
			}, func() error {
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
				if err != nil {
					return err
				}
				need(t, f.Close())
				time.Sleep(time.Millisecond)
				return readLog(path)
			})
			need(t, readLog(path))
		})
	}
}

// readLog checks that the records of a log are consecutive numbers.
func readLog(path string) error {
	log, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(log)%8 != 0 {
		return fmt.Errorf("the log has %d bytes", len(log))
	}
	for before := uint64(0); len(log) > 0; log = log[8:] {
		record := binary.BigEndian.Uint64(log)
		if record == 0 || before != 0 && record != before+1 {
			return fmt.Errorf("the log has %d after %d", record, before)
		}
		before = record
	}
	return nil
}

// TestTimesWhileLookedAt: the kernel believes what it was told for an hour. What somebody asks at the moment of a change is not that.
func TestTimesWhileLookedAt(t *testing.T) {
	m := newMount(t)
	dir, file := m.live("dir"), m.live("file")
	need(t, os.Mkdir(dir, 0o755))
	for i := range 100 {
		writeFile(t, m.live(fmt.Sprint("other", i)), "")
	}
	f, err := os.Create(file)
	need(t, err)
	defer f.Close()
	need(t, f.Truncate(4096))
	mapped, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	need(t, err)
	defer unix.Munmap(mapped)
	for _, c := range []struct {
		what, path string
		change     func(i int) error
	}{
		{"mkdir", dir, func(i int) error { return os.Mkdir(filepath.Join(dir, fmt.Sprint("d", i)), 0o755) }},
		{"setxattr", file, func(i int) error { return unix.Setxattr(file, "user.x", fmt.Append(nil, i), 0) }},
		{"fallocate", file, func(i int) error {
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		}},
		{"rename", dir, func(i int) error { return errors.Join(os.Rename(dir, dir+"~"), os.Rename(dir+"~", dir)) }},
		{"store to a mapping", file, func(i int) error {
			mapped[0]++
			return unix.Msync(mapped, unix.MS_SYNC)
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			fd, err := unix.Open(c.path, unix.O_PATH|unix.O_CLOEXEC, 0)
			need(t, err)
			defer unix.Close(fd)
			ask := func() error {
				var st unix.Statx_t
				return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
			}
			during(t, raceTime, func(i int) error {
				start := time.Now()
				if err := c.change(i); err != nil {
					return err
				}
				eventually(t, "the kernel knows the ctime after "+c.what, func() bool {
					var st unix.Stat_t
					need(t, unix.Fstat(fd, &st))
					return !time.Unix(st.Ctim.Unix()).Before(start)
				})
				return nil
			}, ask, ask, func() error { _, err := os.ReadDir(m.mnt); return err })
		})
	}
}

// TestParentInListing: the listing of a directory that was moved says where it is now.
func TestParentInListing(t *testing.T) {
	m := newMount(t)
	for _, dir := range []string{"a", "a/d", "b", "b/e"} {
		need(t, os.Mkdir(m.live(dir), 0o755))
	}
	check := func(dir, parent string) {
		t.Helper()
		if got, want := listedIno(t, m.live(dir), ".."), inoOf(t, m.live(parent)); got != want {
			t.Errorf("the listing of %s says that it is in %d, want %d", dir, got, want)
		}
	}
	check("a/d", "a")
	check("b/e", "b")
	need(t, os.Rename(m.live("a/d"), m.live("b/d")))
	check("b/d", "b")
	writeFile(t, m.live("a/f"), "")
	need(t, unix.Renameat2(unix.AT_FDCWD, m.live("b/e"), unix.AT_FDCWD, m.live("a/f"), unix.RENAME_EXCHANGE))
	check("a/f", "a")
	need(t, os.Mkdir(m.live("a/g"), 0o755))
	check("a/g", "a")
	need(t, unix.Renameat2(unix.AT_FDCWD, m.live("b/d"), unix.AT_FDCWD, m.live("a/g"), unix.RENAME_EXCHANGE))
	check("a/g", "a")
	check("b/d", "b")
}

// listedIno returns the inode number that the listing of a directory has for a name.
func listedIno(t testing.TB, dir, name string) uint64 {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	need(t, err)
	defer unix.Close(fd)
	ino := uint64(0)
	for { // to the end: the kernel keeps whole listings
		ents, err := getdents(fd, make([]byte, 4096))
		need(t, err)
		if len(ents) == 0 {
			return ino
		}
		for _, ent := range ents {
			if ent.name == name {
				ino = ent.ino
			}
		}
	}
}

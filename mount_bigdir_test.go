package snapfs_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dirReader reads a directory by getdents64(2), in steps as small as the buffer.
type dirReader struct {
	t   testing.TB
	fd  int
	buf []byte
}

func openDir(t testing.TB, path string, buffer int) *dirReader {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	need(t, err)
	return &dirReader{t, fd, make([]byte, buffer)}
}

func (d *dirReader) close() { unix.Close(d.fd) }

// listAll lists a whole directory.
func listAll(t testing.TB, path string, buffer int) []dirEntry {
	t.Helper()
	d := openDir(t, path, buffer)
	defer d.close()
	return d.rest()
}

// next returns the next entries, none at the end.
func (d *dirReader) next() []dirEntry {
	d.t.Helper()
	ents, err := getdents(d.fd, d.buf)
	need(d.t, err)
	return ents
}

// rest returns all entries from here on.
func (d *dirReader) rest() (all []dirEntry) {
	d.t.Helper()
	for ents := d.next(); len(ents) > 0; ents = d.next() {
		all = append(all, ents...)
	}
	return all
}

func (d *dirReader) seek(off int64) {
	d.t.Helper()
	_, err := unix.Seek(d.fd, off, unix.SEEK_SET)
	need(d.t, err)
}

func namesOf(ents []dirEntry) (names []string) {
	for _, e := range ents {
		names = append(names, e.name)
	}
	return names
}

// fill makes n empty files.
func fill(t testing.TB, dir string, n int) {
	t.Helper()
	need(t, os.MkdirAll(dir, 0o755))
	for i := range n {
		if err := unix.Mknod(fmt.Sprintf("%s/entry%07d", dir, i), unix.S_IFREG|0o644, 0); !errors.Is(err, unix.EEXIST) {
			need(t, err)
		}
	}
}

// TestListingGoesOn: a listing that was begun goes on behind the entry where it stopped, also if that entry is gone by then and others
// have listed the directory meanwhile.
func TestListingGoesOn(t *testing.T) {
	m := newMount(t)
	dir := m.live("d")
	fill(t, dir, 1000)
	all := namesOf(listAll(t, dir, 32<<10))
	for range 6 {
		fill(t, dir, 1000)
		need(t, errors.Join(os.Remove(dir+"/"+all[500]), unix.Mknod(dir+"/"+all[500], unix.S_IFREG|0o644, 0)))
		a := openDir(t, dir, 512)
		var got []string
		for stop := 3 + rand.IntN(40); stop > 0; stop-- {
			got = append(got, namesOf(a.next())...)
		}
		last := got[len(got)-1]
		need(t, os.Remove(dir+"/"+last))
		listAll(t, dir, 32<<10)
		listAll(t, dir, 32<<10)
		got = append(got, namesOf(a.rest())...)
		a.close()
		if !slices.Equal(got, all) {
			t.Fatalf("a listing that stopped behind %s has %d entries, want %d", last, len(got), len(all))
		}
	}
}

// bigDirectory is how many entries the test makes; a soak makes more.
func bigDirectory() int {
	if n, err := strconv.Atoi(os.Getenv("SNAPFS_BIG_DIRECTORY")); err == nil {
		return n
	}
	return 10_000
}

// TestBigDirectory lists a directory of many entries in every way while some come and go: those that stay are listed once.
func TestBigDirectory(t *testing.T) {
	m := newMount(t)
	dir := m.live("d")
	n := bigDirectory()
	rate := func(what string, n int, start time.Time) {
		t.Logf("%s: %.0f a second", what, float64(n)/time.Since(start).Seconds())
	}
	start := time.Now()
	fill(t, dir, n)
	rate("made", n, start)
	start = time.Now()
	all := listAll(t, dir, 32<<10)
	rate("listed", n, start)
	wantListed(t, "at first", all, n)
	m.snapshot("s")

	stop := comeAndGo(t, dir)
	start = time.Now()
	wantListed(t, "while others come and go", listAll(t, dir, 32<<10), n)
	rate("listed while changing", n, start)
	wantListed(t, "in small steps", listAll(t, dir, 600), n)
	seekAround(t, dir, all)
	stop()

	m.remount()
	seekAround(t, dir, all) // cookies outlive the mount
	start = time.Now()
	frozen := listAll(t, m.frozen("s", "d"), 32<<10)
	rate("listed frozen", n, start)
	wantListed(t, "in the snapshot", frozen, n)
	if !slices.Equal(namesOf(frozen), namesOf(all)) {
		t.Error("the snapshot has another order")
	}
	start = time.Now()
	for i := range n {
		need(t, unix.Unlink(fmt.Sprintf("%s/entry%07d", dir, i)))
	}
	rate("removed", n, start)
	need(t, os.Remove(dir))
}

// wantListed checks that each of the n entries of fill is listed once.
func wantListed(t *testing.T, when string, ents []dirEntry, n int) {
	t.Helper()
	seen := make(map[string]int, n)
	for _, e := range ents {
		seen[e.name]++
	}
	bad := 0
	for i := range n {
		if name := fmt.Sprintf("entry%07d", i); seen[name] != 1 {
			if bad++; bad < 5 {
				t.Errorf("%s: %s is listed %d times", when, name, seen[name])
			}
		}
	}
	if seen["."] != 1 || seen[".."] != 1 {
		t.Errorf("%s: . is listed %d times, .. %d times", when, seen["."], seen[".."])
	}
}

// seekAround goes to places of a listing in any order, as telldir and seekdir do, and to the beginning.
func seekAround(t *testing.T, dir string, all []dirEntry) {
	t.Helper()
	d := openDir(t, dir, 4096)
	defer d.close()
	after := func(i int) string { // the next entry of fill behind place i
		for _, e := range all[i+1:] {
			if strings.HasPrefix(e.name, "entry") {
				return e.name
			}
		}
		return ""
	}
	for range 100 {
		i := rand.IntN(len(all))
		d.seek(all[i].off)
		got := ""
		for ents := d.next(); got == "" && len(ents) > 0; ents = d.next() {
			for _, e := range ents {
				if got == "" && strings.HasPrefix(e.name, "entry") {
					got = e.name
				}
			}
		}
		if want := after(i); got != want {
			t.Fatalf("behind %s comes %q, want %q", all[i].name, got, want)
		}
	}
	d.seek(0)
	if first := d.next()[0].name; first != "." {
		t.Errorf("rewound, the first entry is %s", first)
	}
}

// comeAndGo makes, renames and removes other names in a directory until it is stopped.
func comeAndGo(t *testing.T, dir string) (stop func()) {
	var ended atomic.Bool
	var wg sync.WaitGroup
	for worker := range 2 {
		wg.Go(func() {
			for i := 0; !ended.Load(); i++ {
				a, b := fmt.Sprintf("%s/come%d-%d", dir, worker, i%50), fmt.Sprintf("%s/go%d-%d", dir, worker, i%70)
				if err := errors.Join(os.WriteFile(a, nil, 0o644), os.Rename(a, b), os.Remove(b)); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Millisecond) // leave the directory's lock to the listing
			}
		})
	}
	return func() {
		ended.Store(true)
		wg.Wait()
	}
}

// TestManyLinks gives a file more names than ext4 would, if a soak asks for that.
func TestManyLinks(t *testing.T) {
	n := 1000
	if os.Getenv("SNAPFS_BIG_DIRECTORY") != "" {
		n = 70_000
	}
	m := newMount(t)
	need(t, os.Mkdir(m.live("d"), 0o755))
	writeFile(t, m.live("file"), "text")
	for i := range n {
		need(t, os.Link(m.live("file"), m.live("d", fmt.Sprint(i))))
	}
	m.snapshot("s")
	need(t, os.RemoveAll(m.live("d")))
	for path, want := range map[string]uint64{m.live("file"): 1, m.frozen("s", "file"): uint64(n) + 1} {
		var st unix.Stat_t
		need(t, unix.Stat(path, &st))
		if st.Nlink != want {
			t.Errorf("%s has %d names, want %d", path, st.Nlink, want)
		}
	}
}

package snapfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// openData opens a file of the mount by its descriptor, until the end of the test.
func openData(t testing.TB, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	need(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// TestSeekOfUnwrittenData: data that only the kernel has is no hole, or cp(1) would leave it out.
func TestSeekOfUnwrittenData(t *testing.T) {
	m := newMount(t, writeback)
	fd := openData(t, m.live("f"), unix.O_RDWR|unix.O_CREAT)
	const at = 1 << 20
	_, err := unix.Pwrite(fd, []byte("data"), at)
	need(t, err)
	reader := openData(t, m.live("f"), unix.O_RDONLY)
	if got, err := unix.Seek(reader, 0, unix.SEEK_DATA); got != at || err != nil {
		t.Errorf("data is at %d, %v; want %d", got, err, at)
	}
	if got, err := unix.Seek(reader, at, unix.SEEK_HOLE); got != at+4 || err != nil {
		t.Errorf("it ends at %d, %v; want %d", got, err, at+4)
	}
}

// newServed returns the mount of a daemon that is a process of its own, until the end of the test: this one may map its files.
func newServed(t testing.TB) (mnt string) {
	t.Helper()
	dir := t.TempDir()
	mnt = filepath.Join(dir, "mnt")
	need(t, os.Mkdir(mnt, 0o755))
	daemon := startRole(t, "serve", filepath.Join(dir, "store"), mnt, "")
	if got := daemon.hear(); got != "serving" {
		t.Fatalf("the daemon says %q", got)
	}
	t.Cleanup(daemon.end)
	return mnt
}

// The records that several processes append to one file.
const (
	appenders   = 6
	appended    = 300
	recordBytes = 100
)

func appendedRecord(who, i int) []byte {
	b := bytes.Repeat([]byte{'.'}, recordBytes)
	copy(b, fmt.Sprintf("%d %d ", who, i))
	b[recordBytes-1] = '\n'
	return b
}

// appendRecords plays one of the processes.
func appendRecords(path, who string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND, 0)
	if err != nil {
		return err
	}
	var n int
	if _, err := fmt.Sscan(who, &n); err != nil {
		return err
	}
	for i := range appended {
		if k, err := unix.Write(fd, appendedRecord(n, i)); k != recordBytes || err != nil {
			return fmt.Errorf("%d bytes, %w", k, err)
		}
	}
	return unix.Close(fd)
}

// TestAppendersInManyProcesses: no record of O_APPEND writers is lost or torn, and those of each are in its order.
func TestAppendersInManyProcesses(t *testing.T) {
	for _, options := range [][]func(*mounted){nil, {writeback}} {
		m := newMount(t, options...)
		path := m.live("log")
		writeFile(t, path, "")
		var all []*actor
		for who := range appenders {
			all = append(all, startRole(t, "appender", path, fmt.Sprint(who)))
		}
		for _, a := range all {
			a.end()
		}
		got, err := os.ReadFile(path)
		need(t, err)
		if len(got) != appenders*appended*recordBytes {
			t.Fatalf("%d bytes, want %d", len(got), appenders*appended*recordBytes)
		}
		var next [appenders]int
		for ; len(got) > 0; got = got[recordBytes:] {
			var who, i int
			if _, err := fmt.Sscan(string(got[:recordBytes]), &who, &i); err != nil || !bytes.Equal(got[:recordBytes], appendedRecord(who, i)) {
				t.Fatalf("a torn record: %q", got[:recordBytes])
			}
			if i != next[who] {
				t.Fatalf("record %d of process %d comes after %d", i, who, next[who]-1)
			}
			next[who]++
		}
	}
}

// TestPipes: sendfile, splice and tee move the bytes that read and write would.
func TestPipes(t *testing.T) {
	m := newMount(t)
	text := strings.Repeat("what goes through a pipe ", 2000)
	writeFile(t, m.live("in"), text)
	in := openData(t, m.live("in"), unix.O_RDONLY)
	var one, two [2]int
	need(t, unix.Pipe2(one[:], unix.O_CLOEXEC))
	need(t, unix.Pipe2(two[:], unix.O_CLOEXEC))
	spliced := openData(t, m.live("spliced"), unix.O_RDWR|unix.O_CREAT)
	teed := openData(t, m.live("teed"), unix.O_RDWR|unix.O_CREAT)
	drain := func(pipe, to int, n int64) {
		for n > 0 {
			k, err := unix.Splice(pipe, nil, to, nil, int(n), 0)
			need(t, err)
			n -= k
		}
	}
	for off := int64(0); off < int64(len(text)); {
		n, err := unix.Splice(in, &off, one[1], nil, 32768, 0)
		need(t, err)
		k, err := unix.Tee(one[0], two[1], int(n), 0)
		need(t, err)
		if k != n {
			t.Fatalf("tee of %d of %d bytes", k, n)
		}
		drain(one[0], spliced, n)
		drain(two[0], teed, n)
	}
	sent := openData(t, m.live("sent"), unix.O_RDWR|unix.O_CREAT)
	for off := int64(0); off < int64(len(text)); {
		_, err := unix.Sendfile(sent, in, &off, len(text))
		need(t, err)
	}
	for _, name := range []string{"spliced", "teed", "sent"} {
		wantFile(t, m.live(name), text)
	}
	for _, fd := range append(one[:], two[:]...) {
		need(t, unix.Close(fd))
	}
}

// TestWriteFlags: the flags of pwritev2 and preadv2 do what they say, or say that they cannot.
func TestWriteFlags(t *testing.T) {
	m := newMount(t)
	fd := openData(t, m.live("f"), unix.O_RDWR|unix.O_CREAT)
	for _, flags := range []int{0, unix.RWF_DSYNC, unix.RWF_SYNC} {
		n, err := unix.Pwritev2(fd, [][]byte{[]byte("ab"), []byte("cd")}, 0, flags)
		if n != 4 || err != nil {
			t.Errorf("flags %#x: %d, %v", flags, n, err)
		}
	}
	if n, err := unix.Pwritev2(fd, [][]byte{[]byte("e"), []byte("f")}, 0, unix.RWF_APPEND); n != 2 || err != nil {
		t.Errorf("append: %d, %v", n, err)
	}
	wantFile(t, m.live("f"), "abcdef")
	var b [6]byte
	n, err := unix.Preadv2(fd, [][]byte{b[:2], b[2:]}, 0, unix.RWF_NOWAIT)
	switch {
	case err == nil && string(b[:n]) == "abcdef"[:n]:
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EOPNOTSUPP):
	default:
		t.Errorf("read without waiting: %q, %v", b[:n], err)
	}
	if _, err := unix.Pwritev2(fd, [][]byte{[]byte("x")}, 0, 1<<30); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("an unknown flag: %v, want EOPNOTSUPP", err)
	}
}

// faults reports whether do touches memory that is not there.
func faults(do func()) (fault bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = recover() != nil }()
	do()
	return false
}

// TestMappingsAndTruncation: a mapping shows what the file becomes, a private one what is stored in it; behind the end there is a
// fault, and zeros once the file is longer again.
func TestMappingsAndTruncation(t *testing.T) {
	mnt := newServed(t)
	path := filepath.Join(mnt, "f")
	const size = 4 * 4096
	need(t, os.WriteFile(path, bytes.Repeat([]byte("o"), size), 0o644))
	fd := openData(t, path, unix.O_RDWR)
	shared, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	need(t, err)
	defer unix.Munmap(shared)
	private, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	need(t, err)
	defer unix.Munmap(private)
	private[0] = 'p'
	shared[1], shared[5000] = 's', 's'
	need(t, unix.Msync(shared, unix.MS_SYNC))
	_, err = unix.Pwrite(fd, []byte("w"), 9000)
	need(t, err)
	var got [3]byte
	for i, off := range []int64{0, 1, 5000} {
		_, err = unix.Pread(fd, got[i:i+1], off)
		need(t, err)
	}
	if string(got[:]) != "oss" || private[0] != 'p' || shared[9000] != 'w' || private[9000] != 'w' {
		t.Errorf("the file has %q, the mappings %q and %q", got, private[0], []byte{shared[9000], private[9000]})
	}
	need(t, unix.Ftruncate(fd, 4096+10))
	var seen byte
	if faults(func() { seen += shared[4096+9] }) {
		t.Error("a fault before the end")
	}
	for _, at := range []int{2 * 4096, size - 1} {
		if !faults(func() { shared[at] = 1 }) || !faults(func() { seen += private[at] }) {
			t.Errorf("no fault at %d, behind the end", at)
		}
	}
	if seen != 'o' {
		t.Errorf("the last byte is %q", seen)
	}
	need(t, unix.Ftruncate(fd, size))
	for _, at := range []int{4096 + 10, 2 * 4096, size - 1} {
		if shared[at] != 0 {
			t.Errorf("byte %d is %#x after the file became longer again", at, shared[at])
		}
	}
}

// TestAppendBesideReaders appends to a page that is dirty through a mapping, while others open and close the file: their closing writes
// nothing back, or the kernel could zero what is appended.
func TestAppendBesideReaders(t *testing.T) {
	path := filepath.Join(newServed(t), "f")
	fd := openData(t, path, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND)
	need(t, unix.Ftruncate(fd, 1))
	mem, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	need(t, err)
	defer unix.Munmap(mem)
	var stop atomic.Bool
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop.Store(true)
	readers.Go(func() {
		for !stop.Load() {
			if fd, err := unix.Open(path, unix.O_RDONLY, 0); err == nil {
				_ = unix.Close(fd)
			}
		}
	})
	for i, size := 0, int64(1); i < 3000; i++ {
		mem[size-1] = 'm'
		record := bytes.Repeat([]byte{'a' + byte(i%26)}, 40)
		_, err := unix.Write(fd, record)
		need(t, err)
		got := make([]byte, len(record))
		if _, err := unix.Pread(fd, got, size); err != nil || !bytes.Equal(got, record) {
			t.Fatalf("append %d at %d: %q, %v", i, size, got, err)
		}
		size += int64(len(record))
	}
}

// TestThousandsOfOpenFiles keeps more files open than the daemon has descriptors for their base files.
func TestThousandsOfOpenFiles(t *testing.T) {
	m := newMount(t)
	const files = 600
	var fds []int
	for i := range files {
		fds = append(fds, openData(t, m.live(fmt.Sprint("f", i)), unix.O_RDWR|unix.O_CREAT))
	}
	text := func(i, round int) []byte { return fmt.Appendf(nil, "file %d, round %d", i, round) }
	for round := range 2 {
		for i, fd := range fds {
			_, err := unix.Pwrite(fd, text(i, round), 0)
			need(t, err)
		}
		m.snapshot(fmt.Sprint("s", round))
	}
	for i := 0; i < files; i += 97 {
		for round := range 2 {
			wantFile(t, m.frozen(fmt.Sprint("s", round), fmt.Sprint("f", i)), string(text(i, round)))
		}
	}
}

// TestGreatestFile: a file has up to 2^63-1 bytes. What the store's file system cannot hold is EFBIG when it is written.
func TestGreatestFile(t *testing.T) {
	m := newMount(t)
	path := m.live("f")
	fd := openData(t, path, unix.O_RDWR|unix.O_CREAT)
	need(t, unix.Ftruncate(fd, math.MaxInt64))
	m.snapshot("s")
	var b [5]byte
	for _, p := range []string{path, m.frozen("s", "f")} {
		f, err := os.Open(p)
		need(t, err)
		if n, err := f.ReadAt(b[:], math.MaxInt64-5); n != 5 || err != nil {
			t.Errorf("read of the last bytes of %s: %d, %v", p, n, err)
		}
		if _, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); !errors.Is(err, unix.ENXIO) {
			t.Errorf("data in %s: %v, want ENXIO", p, err)
		}
		need(t, f.Close())
	}
	_, err := unix.Pwrite(fd, []byte("x"), math.MaxInt64-1)
	if err != nil && !errors.Is(err, unix.EFBIG) {
		t.Errorf("write of the last byte: %v", err)
	}
	if _, err = unix.Pwrite(fd, []byte("x"), math.MaxInt64); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EFBIG) {
		t.Errorf("write behind the last byte: %v", err) // EINVAL comes before any file system is asked
	}
	wantErrno(t, "allocation behind it", unix.Fallocate(fd, 0, math.MaxInt64-1, 2), unix.EFBIG)
	need(t, unix.Ftruncate(fd, 3))
	out, err := commandIn(m.mnt, "sh", "-c", "trap '' XFSZ; ulimit -f 8; LC_ALL=C dd if=/dev/zero of=limited bs=1000 count=20").CombinedOutput()
	st, failed := os.Stat(m.live("limited"))
	need(t, failed)
	if err == nil || !strings.Contains(string(out), "File too large") || st.Size() != 4096 {
		t.Errorf("beyond the limit of the process: %d bytes, %v: %s", st.Size(), err, out)
	}
}

package snapfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The exerciser does random operations on the bytes of a few files, through many descriptors and mappings, and compares with
// plain arrays in memory. An operation is fitted to the state it meets, so a list of them can be cut anywhere and still be
// run: that is how a failing list is made short.

// fsxOp is one operation, with its arguments as they were drawn.
type fsxOp struct {
	kind    string
	file    int
	via     int // which descriptor or mapping
	off, n  int64
	from    int64 // where a copy is read, and whatever else an operation needs
	pattern uint64
}

func (o fsxOp) String() string {
	return fmt.Sprintf("{%q, %d, %d, %d, %d, %d, %d}", o.kind, o.file, o.via, o.off, o.n, o.from, o.pattern)
}

// The files of a run and the greatest length that they have.
const (
	fsxFiles = 3
	fsxMost  = 100 * 4096
)

// fsxFile is a file and its model.
type fsxFile struct {
	path string
	want []byte
	fds  [len(fsxFlags)]int // descriptors, -1 if not open
	maps [3][]byte          // mappings of fsxMost bytes, nil if there is none; their descriptors are closed
}

// fsxFlags are the ways in which each file is open at the same time.
var fsxFlags = [...]int{unix.O_RDWR, unix.O_RDWR, unix.O_RDWR | unix.O_APPEND, unix.O_RDWR | unix.O_DIRECT, unix.O_RDWR | unix.O_SYNC,
	unix.O_RDWR | unix.O_DSYNC, unix.O_RDONLY}

const (
	fsxAppend   = 2
	fsxReadOnly = len(fsxFlags) - 1
)

// fsxSnapshot is a snapshot and its model.
type fsxSnapshot struct {
	name string
	want [fsxFiles][]byte
}

// fsx is a run of the exerciser against a daemon of its own: what maps files must not serve them, and a daemon that is
// killed must be a process.
type fsx struct {
	t          testing.TB
	store, mnt string
	mode       string // of the serve role
	daemon     *actor
	files      [fsxFiles]*fsxFile
	snaps      []fsxSnapshot
	next       int
}

// runFsx makes the operations on a new store and returns how many were made before one failed, and how.
func runFsx(t testing.TB, mode string, ops []fsxOp) (done int, err error) {
	dir, err := os.MkdirTemp(t.TempDir(), "fsx")
	need(t, err)
	w := &fsx{t: t, store: filepath.Join(dir, "store"), mnt: filepath.Join(dir, "mnt"), mode: mode}
	need(t, os.Mkdir(w.mnt, 0o755))
	w.serve()
	defer w.kill()
	for i := range w.files {
		w.files[i] = &fsxFile{path: filepath.Join(w.mnt, fmt.Sprint("f", i))}
		need(t, os.WriteFile(w.files[i].path, nil, 0o644))
	}
	if err := w.openAll(); err != nil {
		return 0, err
	}
	for i, op := range ops {
		if err := w.do(op); err != nil {
			return i, fmt.Errorf("operation %d, %v: %w", i, op, err)
		}
	}
	if err := w.verify(); err != nil {
		return len(ops), err
	}
	return len(ops), w.end()
}

// end unmounts in good order, and has the store checked.
func (w *fsx) end() error {
	w.closeAll()
	w.daemon.end()
	w.daemon = nil
	m := &mounted{t: w.t, storeDir: w.store}
	m.check()
	return nil
}

func (w *fsx) serve() {
	w.daemon = startRole(w.t, "serve", w.store, w.mnt, w.mode)
	if got := w.daemon.hear(); got != "serving" {
		w.t.Fatalf("the daemon says %q", got)
	}
}

// kill ends the daemon as SIGKILL does.
func (w *fsx) kill() {
	if w.daemon == nil {
		return
	}
	need(w.t, w.daemon.cmd.Process.Kill())
	_ = w.daemon.cmd.Wait()
	w.daemon = nil
	w.closeAll()
	need(w.t, unix.Unmount(w.mnt, unix.MNT_DETACH))
}

func (w *fsx) openAll() error {
	for _, f := range w.files {
		for k, flags := range fsxFlags {
			var err error
			if f.fds[k], err = unix.Open(f.path, flags|unix.O_CLOEXEC, 0); err != nil {
				return fmt.Errorf("open %s with flags %#x: %w", f.path, flags, err)
			}
		}
	}
	return nil
}

func (w *fsx) closeAll() {
	for _, f := range w.files {
		if f == nil {
			continue
		}
		for k, mem := range f.maps {
			if mem != nil {
				_ = unix.Munmap(mem)
				f.maps[k] = nil
			}
		}
		for _, fd := range f.fds {
			_ = unix.Close(fd)
		}
	}
}

// verify compares everything there is.
func (w *fsx) verify() error {
	for _, f := range w.files {
		if err := f.verify(); err != nil {
			return err
		}
	}
	for _, s := range w.snaps {
		for i, f := range w.files {
			path := filepath.Join(w.mnt, ".snapshots", s.name, filepath.Base(f.path))
			got, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := sameBytes("snapshot "+s.name+", "+filepath.Base(f.path), 0, got, s.want[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// verify compares a file as each descriptor sees it.
func (f *fsxFile) verify() error {
	var st unix.Stat_t
	if err := unix.Stat(f.path, &st); err != nil {
		return err
	}
	if st.Size != int64(len(f.want)) {
		return fmt.Errorf("%s is %d bytes long, want %d", f.path, st.Size, len(f.want))
	}
	got := make([]byte, len(f.want)+1)
	n, err := unix.Pread(f.fds[0], got, 0)
	if err != nil {
		return err
	}
	return sameBytes("whole of "+filepath.Base(f.path), 0, got[:n], f.want)
}

// sameBytes says where got, read at off, differs from want.
func sameBytes(what string, off int64, got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	if len(got) != len(want) {
		return fmt.Errorf("%s at %d: got %d bytes, want %d", what, off, len(got), len(want))
	}
	first, last, count := -1, 0, 0
	for i := range got {
		if got[i] != want[i] {
			if first < 0 {
				first = i
			}
			last = i
			count++
		}
	}
	return fmt.Errorf("%s: %d bytes of [%d, %d] differ, the first is %#x and should be %#x (all zero: %v)", what, count,
		off+int64(first), off+int64(last), got[first], want[first], len(bytes.Trim(got[first:last+1], "\x00")) == 0)
}

// drawFsx draws a list of operations.
func drawFsx(seed uint64, n int) []fsxOp {
	r := rand.New(rand.NewPCG(seed, 0))
	var kinds []string
	for _, k := range fsxKinds {
		for range k.weight {
			kinds = append(kinds, k.name)
		}
	}
	place := func() int64 { // around the ends of pages, or anywhere
		if r.IntN(2) == 0 {
			return max(0, int64(r.IntN(fsxMost/4096))*4096+int64(r.IntN(3))-1)
		}
		return int64(r.IntN(fsxMost))
	}
	length := func() int64 { return 1 + int64(r.IntN([]int{16, 4096, 5000, 16384, 150_000}[r.IntN(5)])) }
	ops := make([]fsxOp, n)
	for i := range ops {
		ops[i] = fsxOp{kind: kinds[r.IntN(len(kinds))], file: r.IntN(fsxFiles), via: r.IntN(64), off: place(), n: length(), from: place(),
			pattern: r.Uint64()}
	}
	return ops
}

// shrinkFsx makes a failing list shorter for as long as it is given time. It still fails, maybe otherwise.
func shrinkFsx(t testing.TB, mode string, ops []fsxOp, until time.Time) []fsxOp {
	for step := max(1, len(ops)/2); step > 0; step /= 2 {
		for at := 0; at < len(ops) && time.Now().Before(until); {
			less := append(append([]fsxOp(nil), ops[:at]...), ops[min(at+step, len(ops)):]...)
			if done, err := runFsx(t, mode, less); err != nil {
				ops = less[:min(done+1, len(less))]
			} else {
				at += step
			}
		}
	}
	return ops
}

// fsxNumber reads a number from the environment.
func fsxNumber(t testing.TB, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	need(t, err)
	return n
}

// TestFsx runs the exerciser: SNAPFS_FSX_OPS operations, drawn from SNAPFS_FSX_SEED. It says its seed; a list that fails is
// made short for SNAPFS_FSX_SHRINK seconds, and printed.
func TestFsx(t *testing.T) {
	for _, mode := range []string{"", "writeback"} {
		t.Run(strings.TrimSpace("mount "+mode), func(t *testing.T) {
			seed := fsxNumber(t, "SNAPFS_FSX_SEED", uint64(time.Now().UnixNano()))
			ops := drawFsx(seed, int(fsxNumber(t, "SNAPFS_FSX_OPS", 2000)))
			t.Logf("SNAPFS_FSX_SEED=%d SNAPFS_FSX_OPS=%d", seed, len(ops))
			done, err := runFsx(t, mode, ops)
			if err == nil {
				return
			}
			t.Error(err)
			least := fsxNumber(t, "SNAPFS_FSX_SHRINK", 60)
			ops = shrinkFsx(t, mode, ops[:min(done+1, len(ops))], time.Now().Add(time.Duration(least)*time.Second))
			_, err = runFsx(t, mode, ops)
			lines := make([]string, len(ops))
			for i, op := range ops {
				lines[i] = op.String() + ","
			}
			t.Errorf("%d operations are left of it, which end with: %v\n%s", len(ops), err, strings.Join(lines, "\n"))
		})
	}
}

// retried is a system call that may be interrupted.
func retried(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

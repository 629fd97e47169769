package snapfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fsxKinds are the operations of the exerciser, and how often each is drawn.
var fsxKinds = []struct {
	name   string
	weight int
	do     func(w *fsx, f *fsxFile, op fsxOp) error
}{
	{"read", 12, (*fsx).read},
	{"write", 14, (*fsx).write},
	{"append", 3, (*fsx).append},
	{"map", 1, (*fsx).makeMap},
	{"map read", 6, (*fsx).mapRead},
	{"map write", 10, (*fsx).mapWrite},
	{"msync", 2, (*fsx).msync},
	{"truncate", 5, (*fsx).truncate},
	{"empty", 1, (*fsx).empty},
	{"allocate", 2, (*fsx).fallocate},
	{"punch", 5, (*fsx).fallocate},
	{"zero", 4, (*fsx).fallocate},
	{"copy", 6, (*fsx).copyRange},
	{"copy frozen", 3, (*fsx).copyFrozen},
	{"seek", 4, (*fsx).seek},
	{"sync", 2, (*fsx).sync},
	{"reopen", 1, (*fsx).reopen},
	{"snapshot", 2, (*fsx).snapshot},
	{"delete", 1, (*fsx).remove},
	{"verify", 1, func(w *fsx, _ *fsxFile, _ fsxOp) error { return w.verify() }},
}

// Rarer than any weight could make them.
const (
	fsxRemounts = 400 // one in so many operations is a remount
	fsxKills    = 300 // and one a kill
)

func (w *fsx) do(op fsxOp) error {
	f := w.files[op.file]
	switch {
	case op.pattern%fsxRemounts == 1:
		return w.remount()
	case op.pattern/fsxRemounts%fsxKills == 1:
		return w.crash()
	}
	for _, k := range fsxKinds {
		if k.name == op.kind {
			return k.do(w, f, op)
		}
	}
	return fmt.Errorf("unknown operation %q", op.kind)
}

// fit cuts a range so that the file stays within its bounds.
func (op *fsxOp) fit(limit int64) {
	op.off = min(op.off, limit)
	op.n = min(op.n, limit-op.off)
}

// data returns n bytes that differ from those of other operations.
func (op *fsxOp) data(n int64) []byte {
	b := make([]byte, n)
	r := rand.NewPCG(op.pattern, 1)
	for i := 0; i < len(b); i += 8 {
		v := r.Uint64()
		for k := i; k < min(i+8, len(b)); k++ {
			b[k] = byte(v) | 1 // never zero
			v >>= 8
		}
	}
	return b
}

// put writes into the model.
func (f *fsxFile) put(off int64, b []byte) {
	f.grow(off + int64(len(b)))
	copy(f.want[off:], b)
}

func (f *fsxFile) grow(size int64) {
	if n := size - int64(len(f.want)); n > 0 {
		f.want = append(f.want, make([]byte, n)...)
	}
}

// at returns what a read of n bytes at off should give.
func (f *fsxFile) at(off, n int64) []byte {
	size := int64(len(f.want))
	return f.want[min(off, size):min(off+n, size)]
}

// aligned makes off and n multiples of 512, as O_DIRECT wants on native file systems, for half of the operations.
func (op *fsxOp) aligned() {
	if op.pattern&1 == 0 {
		op.off, op.n = op.off&^511, (op.n+511)&^511
	}
}

func (w *fsx) read(f *fsxFile, op fsxOp) error {
	op.aligned()
	fd := f.fds[op.via%len(f.fds)]
	b := make([]byte, op.n)
	var n int
	err := retried(func() (err error) {
		if op.pattern&2 == 0 {
			n, err = unix.Pread(fd, b, op.off)
			return err
		}
		k := op.from % (op.n + 1)
		n, err = unix.Preadv(fd, [][]byte{b[:k], b[k:]}, op.off)
		return err
	})
	if err != nil {
		return err
	}
	return sameBytes("read", op.off, b[:n], f.at(op.off, op.n))
}

// write writes through any descriptor but those for reading and appending.
func (w *fsx) write(f *fsxFile, op fsxOp) error {
	op.fit(fsxMost)
	op.aligned()
	via := op.via % fsxReadOnly
	if via == fsxAppend {
		via = 0
	}
	return f.written(op, op.off, func(b []byte) (int, error) {
		if op.pattern&2 == 0 || len(b) == 0 {
			return unix.Pwrite(f.fds[via], b, op.off)
		}
		k := op.from % int64(len(b))
		return unix.Pwritev(f.fds[via], [][]byte{b[:k], b[k:]}, op.off)
	})
}

// append writes at the end, wherever it is asked to.
func (w *fsx) append(f *fsxFile, op fsxOp) error {
	op.n = min(op.n, fsxMost-int64(len(f.want)))
	return f.written(op, int64(len(f.want)), func(b []byte) (int, error) { return unix.Write(f.fds[fsxAppend], b) })
}

func (f *fsxFile) written(op fsxOp, off int64, call func(b []byte) (int, error)) error {
	b := op.data(op.n)
	var n int
	if err := retried(func() (err error) { n, err = call(b); return err }); err != nil {
		return err
	}
	if n != len(b) {
		return fmt.Errorf("%d of %d bytes were written", n, len(b))
	}
	if n > 0 {
		f.put(off, b)
	}
	return nil
}

// makeMap maps the file anew, and closes the descriptor: the mapping outlives it.
func (w *fsx) makeMap(f *fsxFile, op fsxOp) error {
	k := op.via % len(f.maps)
	if f.maps[k] != nil {
		if err := unix.Munmap(f.maps[k]); err != nil {
			return err
		}
		f.maps[k] = nil
	}
	fd, err := unix.Open(f.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, fsxMost, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	f.maps[k] = mem
	return unix.Close(fd)
}

// mapping returns one of the file's mappings; nil if there is nothing to touch.
func (w *fsx) mapping(f *fsxFile, op *fsxOp) ([]byte, error) {
	size := int64(len(f.want))
	if size == 0 {
		return nil, nil
	}
	op.off %= size
	op.n = min(op.n, size-op.off)
	k := op.via % len(f.maps)
	if f.maps[k] == nil {
		if err := w.makeMap(f, *op); err != nil {
			return nil, err
		}
	}
	return f.maps[k][op.off:][:op.n], nil
}

func (w *fsx) mapRead(f *fsxFile, op fsxOp) error {
	mem, err := w.mapping(f, &op)
	if err != nil || mem == nil {
		return err
	}
	return sameBytes("mapping", op.off, bytes.Clone(mem), f.at(op.off, op.n))
}

func (w *fsx) mapWrite(f *fsxFile, op fsxOp) error {
	mem, err := w.mapping(f, &op)
	if err != nil || mem == nil {
		return err
	}
	b := op.data(op.n)
	copy(mem, b)
	f.put(op.off, b)
	return nil
}

func (w *fsx) msync(f *fsxFile, op fsxOp) error {
	mem, err := w.mapping(f, &op)
	if err != nil || mem == nil {
		return err
	}
	whole := f.maps[op.via%len(f.maps)]
	flags := []int{unix.MS_SYNC, unix.MS_ASYNC, unix.MS_SYNC | unix.MS_INVALIDATE}[op.pattern%3]
	off := op.off &^ 4095
	return unix.Msync(whole[off:op.off+op.n], flags)
}

func (w *fsx) truncate(f *fsxFile, op fsxOp) error {
	size := op.off
	if op.pattern&1 == 0 {
		size = min(size, int64(len(f.want))) // down, as often as not
	}
	err := retried(func() error {
		if op.pattern&2 == 0 {
			return unix.Truncate(f.path, size)
		}
		return unix.Ftruncate(f.fds[op.via%fsxReadOnly], size)
	})
	if err != nil {
		return err
	}
	f.want = f.want[:min(size, int64(len(f.want)))]
	f.want = append([]byte(nil), f.want...)
	f.grow(size)
	return nil
}

// empty opens the file with O_TRUNC.
func (w *fsx) empty(f *fsxFile, op fsxOp) error {
	if op.pattern&1 == 0 {
		op.off = 0
		op.pattern = 2
		return w.truncate(f, op)
	}
	fd, err := unix.Open(f.path, unix.O_RDWR|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f.want = nil
	return unix.Close(fd)
}

func (w *fsx) fallocate(f *fsxFile, op fsxOp) error {
	op.fit(fsxMost - 1)
	op.n = max(op.n, 1)
	keep := op.pattern&1 == 0
	mode := map[string]uint32{"allocate": 0, "punch": unix.FALLOC_FL_PUNCH_HOLE, "zero": unix.FALLOC_FL_ZERO_RANGE}[op.kind]
	if keep = keep || op.kind == "punch"; keep {
		mode |= unix.FALLOC_FL_KEEP_SIZE
	}
	fd := f.fds[op.via%fsxReadOnly]
	if err := retried(func() error { return unix.Fallocate(fd, mode, op.off, op.n) }); err != nil {
		return err
	}
	if !keep {
		f.grow(op.off + op.n)
	}
	if op.kind != "allocate" {
		clear(f.at(op.off, op.n))
	}
	return nil
}

// copyRange copies between two of the files, or within one.
func (w *fsx) copyRange(f *fsxFile, op fsxOp) error {
	src := w.files[(op.file+int(op.pattern%fsxFiles))%fsxFiles]
	op.fit(min(fsxMost, op.off+max(0, int64(len(src.want))-op.from))) // a copy within a file may make it longer
	overlap := src == f && op.from < op.off+op.n && op.off < op.from+op.n
	err := f.copied(op, src.fds[op.via%len(fsxFlags)], src.want)
	if overlap && op.n > 0 {
		if !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("copy over itself: %w, want EINVAL", err)
		}
		return nil
	}
	return err
}

func (f *fsxFile) copied(op fsxOp, in int, want []byte) error {
	to := f.fds[0]
	for op.n > 0 {
		src, dst := op.from, op.off
		n, err := unix.CopyFileRange(in, &src, to, &dst, int(op.n), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		expect := min(op.n, max(0, int64(len(want))-op.from))
		if n == 0 && expect == 0 {
			return nil
		}
		if n == 0 || int64(n) > expect {
			return fmt.Errorf("%d bytes were copied, there were %d", n, expect)
		}
		f.put(op.off, bytes.Clone(want[op.from:][:n]))
		op.from, op.off, op.n = op.from+int64(n), op.off+int64(n), op.n-int64(n)
	}
	return nil
}

// copyFrozen copies from a snapshot.
func (w *fsx) copyFrozen(f *fsxFile, op fsxOp) error {
	if len(w.snaps) == 0 {
		return nil
	}
	s := w.snaps[op.pattern%uint64(len(w.snaps))]
	k := op.via % fsxFiles
	in, err := unix.Open(filepath.Join(w.mnt, ".snapshots", s.name, filepath.Base(w.files[k].path)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	op.fit(fsxMost)
	return errors.Join(f.copied(op, in, s.want[k]), unix.Close(in))
}

// seek checks that what is said to be a hole is zero.
func (w *fsx) seek(f *fsxFile, op fsxOp) error {
	size := int64(len(f.want))
	fd := f.fds[op.via%len(f.fds)]
	data, err := unix.Seek(fd, op.off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		data = max(size, op.off)
	case err != nil:
		return err
	case data < op.off || data >= size:
		return fmt.Errorf("data at %d, after %d of %d", data, op.off, size)
	}
	if gap := f.at(op.off, data-op.off); len(bytes.Trim(gap, "\x00")) > 0 {
		return fmt.Errorf("from %d to %d is no hole", op.off, data)
	}
	hole, err := unix.Seek(fd, op.off, unix.SEEK_HOLE)
	if op.off >= size {
		if !errors.Is(err, unix.ENXIO) {
			return fmt.Errorf("a hole behind the end: %d, %w", hole, err)
		}
		return nil
	}
	if err != nil || hole < op.off || hole > size || data > op.off && hole != op.off {
		return fmt.Errorf("hole at %d, data at %d, after %d of %d: %w", hole, data, op.off, size, err)
	}
	return nil
}

func (w *fsx) sync(f *fsxFile, op fsxOp) error {
	fd := f.fds[op.via%len(f.fds)]
	if op.pattern&1 == 0 {
		return retried(func() error { return unix.Fsync(fd) })
	}
	return retried(func() error { return unix.Fdatasync(fd) })
}

func (w *fsx) reopen(f *fsxFile, op fsxOp) error {
	k := op.via % len(f.fds)
	if err := unix.Close(f.fds[k]); err != nil {
		return err
	}
	var err error
	f.fds[k], err = unix.Open(f.path, fsxFlags[k]|unix.O_CLOEXEC, 0)
	return err
}

func (w *fsx) snapshot(*fsxFile, fsxOp) error {
	if len(w.snaps) >= 6 {
		return nil
	}
	w.next++
	s := fsxSnapshot{name: fmt.Sprint("s", w.next)}
	for i, f := range w.files {
		s.want[i] = bytes.Clone(f.want)
	}
	if err := os.Mkdir(filepath.Join(w.mnt, ".snapshots", s.name), 0o755); err != nil {
		return err
	}
	w.snaps = append(w.snaps, s)
	return nil
}

func (w *fsx) remove(_ *fsxFile, op fsxOp) error {
	if len(w.snaps) == 0 {
		return nil
	}
	k := int(op.pattern % uint64(len(w.snaps)))
	name := w.snaps[k].name
	w.snaps = append(w.snaps[:k:k], w.snaps[k+1:]...)
	return os.Remove(filepath.Join(w.mnt, ".snapshots", name))
}

// remount ends the daemon in good order and starts another.
func (w *fsx) remount() error {
	w.closeAll()
	w.daemon.end()
	w.serve()
	return errors.Join(w.openAll(), w.verify())
}

// crash kills the daemon when everything is synced.
func (w *fsx) crash() error {
	for _, f := range w.files {
		if err := unix.Fsync(f.fds[0]); err != nil {
			return err
		}
	}
	w.kill()
	w.serve()
	return errors.Join(w.openAll(), w.verify())
}

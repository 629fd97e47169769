package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/snapfs/snapfs/cow"
)

// scratch makes a directory for base files, in memory where there is such a place.
func scratch(t tester) string {
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "snapfs-snapshot-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// most is about how long the files of these tests get.
const most = 5 * cow.PageSize

// offsets lie around the ends of pages more often than elsewhere.
var offsets = rapid.Custom(func(t *rapid.T) int64 {
	page := rapid.Int64Range(0, most/cow.PageSize).Draw(t, "page")
	return max(0, page*cow.PageSize+rapid.SampledFrom([]int64{0, 0, -1, 1, 100, 2048}).Draw(t, "in page"))
})

// drawHandle returns an open handle, with its inode in the model.
func (m *machine) drawHandle(t *rapid.T) (*Handle, *modelInode) {
	if len(m.handles) == 0 {
		m.openFile(t)
	}
	hs := make([]*Handle, 0, len(m.handles))
	for h := range m.handles {
		hs = append(hs, h)
	}
	slices.SortStableFunc(hs, func(a, b *Handle) int { return int(a.Ino()) - int(b.Ino()) })
	h := hs[rapid.IntRange(0, len(hs)-1).Draw(t, "handle")]
	return h, m.model.inodes[m.handles[h]]
}

// reach extends data with zeros to at least n bytes.
func reach(data []byte, n int64) []byte {
	if int64(len(data)) < n {
		data = append(slices.Clone(data), make([]byte, n-int64(len(data)))...)
	}
	return data
}

func (m *machine) write(t *rapid.T) {
	h, i := m.drawHandle(t)
	off := offsets.Draw(t, "off")
	data := bytes.Repeat([]byte{byte(rapid.IntRange(1, 255).Draw(t, "byte"))}, rapid.SampledFrom([]int{1, 10, 4096, 5000, 9000}).Draw(t, "n"))
	n, err := h.WriteAt(data, off, false)
	agree(t, "write", err, nil)
	if n != len(data) {
		t.Fatalf("wrote %d of %d", n, len(data))
	}
	i.data = slices.Clone(reach(i.data, off+int64(n)))
	copy(i.data[off:], data)
}

func (m *machine) truncate(t *rapid.T) {
	files := m.model.alive(syscall.S_IFREG)
	if len(files) == 0 {
		t.Skip("no file")
	}
	ino := rapid.SampledFrom(files).Draw(t, "file")
	size := rapid.OneOf(rapid.Just(int64(0)), offsets).Draw(t, "size")
	a, err := m.live.SetAttr(ino, Change{Set: SetSize, Size: size})
	agree(t, "truncate", err, nil)
	if a.Size != size {
		t.Fatalf("truncate to %d gives size %d", size, a.Size)
	}
	i := m.model.inodes[ino]
	i.data = slices.Clone(reach(i.data, size)[:size])
}

func (m *machine) fallocate(t *rapid.T) {
	h, i := m.drawHandle(t)
	off, n := offsets.Draw(t, "off"), offsets.Draw(t, "n")+1
	mode := rapid.SampledFrom([]uint32{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE}).Draw(t, "mode")
	agree(t, "fallocate", h.Fallocate(mode, off, n, false), nil)
	i.data = slices.Clone(i.data)
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		i.data = reach(i.data, off+n)
	}
	if mode&^unix.FALLOC_FL_KEEP_SIZE != 0 && off < int64(len(i.data)) {
		clear(i.data[off:min(off+n, int64(len(i.data)))])
	}
}

func (m *machine) copyRange(t *rapid.T) {
	src, from := m.drawHandle(t)
	dst, to := m.drawHandle(t)
	srcOff, off, n := offsets.Draw(t, "src off"), offsets.Draw(t, "off"), offsets.Draw(t, "n")
	got, err := dst.CopyFrom(src, srcOff, off, n, nil)
	if from == to && srcOff < off+n && off < srcOff+n {
		agree(t, "copy within", err, syscall.EINVAL)
		return
	}
	agree(t, "copy", err, nil)
	if want := max(0, min(n, int64(len(from.data))-srcOff)); got != want {
		t.Fatalf("copied %d bytes, want %d", got, want)
	}
	if got == 0 {
		return
	}
	part := slices.Clone(from.data[srcOff : srcOff+got])
	to.data = slices.Clone(reach(to.data, off+got))
	copy(to.data[off:], part)
}

func (m *machine) syncFile(t *rapid.T) {
	h, _ := m.drawHandle(t)
	agree(t, "fsync", h.Sync(rapid.Bool().Draw(t, "data only")), nil)
}

// collect removes garbage, as the store does.
func (m *machine) collect(t *rapid.T) {
	agree(t, "sync", m.db.Sync(), nil)
	var ids []cow.ID
	agree(t, "garbage", m.db.Garbage(func(id cow.ID) bool { ids = append(ids, id); return true }), nil)
	b := m.db.NewBatch()
	for _, id := range ids {
		agree(t, "remove", m.pool.Remove(id), nil)
		b.RemoveGarbage(id)
	}
	_, err := b.Commit(false)
	agree(t, "commit", err, nil)
}

func TestTreeWithBytesLikeAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(newByteSpace(t, scratch(t)))
		m.live.nodes.limit = 4
		t.Repeat(map[string]func(*rapid.T){
			"create": m.create, "link": m.link, "unlink": m.unlink, "rename": m.rename, "setattr": m.setAttr,
			"open": m.openFile, "close": m.closeFile, "forget": m.forget, "collect": m.collect,
			"write": m.write, "write2": m.write, "write3": m.write, "truncate": m.truncate, "fallocate": m.fallocate, "copy": m.copyRange, "sync": m.syncFile,
			"freeze": m.freezeNow, "finish": func(t *rapid.T) { m.finish(t) }, "reopen": m.reopen, "all": m.checkAll, "": m.check,
		})
		m.checkAll(t)
		m.reopen(t)
		m.checkAll(t)
		m.close(t)
	})
}

// newFile makes a space with one file and a handle on it.
func newFile(t *testing.T) (*space, *Handle) {
	t.Helper()
	s := newByteSpace(t, scratch(t))
	a, err := s.live.Create(Root, "f", Spec{Mode: syscall.S_IFREG | 0o6755})
	agree(t, "create", err, nil)
	h, err := s.live.OpenFile(a.Ino)
	agree(t, "open", err, nil)
	return s, h
}

func mustWrite(t tester, h *Handle, data string, off int64) {
	t.Helper()
	_, err := h.WriteAt([]byte(data), off, false)
	agree(t, "write", err, nil)
}

// content reads all of an open file.
func content(t tester, c Content) string {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
	agree(t, "read", err, nil)
	return string(b)
}

func frozenContentOf(t tester, s *space, e cow.Epoch, ino Ino) string {
	t.Helper()
	c, err := s.frozen(e).Open(ino)
	agree(t, "open frozen", err, nil)
	defer c.Close()
	return content(t, c)
}

// TestUnlinkedFileLivesUntilClosed: its bytes can be read and written, and are garbage once it is closed and forgotten.
func TestUnlinkedFileLivesUntilClosed(t *testing.T) {
	s, h := newFile(t)
	defer s.close(t)
	mustWrite(t, h, "hello", 0)
	agree(t, "unlink", s.live.Unlink(Root, "f"), nil)
	s.live.Forget(h.Ino())
	mustWrite(t, h, "J", 0)
	if got := content(t, h); got != "Jello" {
		t.Errorf("unlinked file holds %q", got)
	}
	if n := garbage(t, s); n != 0 {
		t.Errorf("%d contents are garbage while open", n)
	}
	agree(t, "close", h.Close(), nil)
	agree(t, "close twice", h.Close(), syscall.EBADF)
	if n := garbage(t, s); n != 1 {
		t.Errorf("%d contents are garbage after close, want 1", n)
	}
	if _, err := s.live.Stat(h.Ino()); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("stat after close: %v", err)
	}
}

func garbage(t *testing.T, s *space) (n int) {
	agree(t, "garbage", s.db.Garbage(func(cow.ID) bool { n++; return true }), nil)
	return n
}

// TestTruncatedContentStaysForItsSnapshots: only what no snapshot sees is garbage.
func TestTruncatedContentStaysForItsSnapshots(t *testing.T) {
	s, h := newFile(t)
	defer s.close(t)
	mustWrite(t, h, "first", 0)
	e := s.freeze(t)
	s.finish(t)
	empty := Change{Set: SetSize}
	_, err := s.live.SetAttr(h.Ino(), empty)
	agree(t, "truncate", err, nil)
	if n := garbage(t, s); n != 0 {
		t.Errorf("a content that a snapshot sees is garbage")
	}
	mustWrite(t, h, "second", 0)
	_, err = s.live.SetAttr(h.Ino(), empty)
	agree(t, "truncate", err, nil)
	if n := garbage(t, s); n != 1 {
		t.Errorf("%d contents are garbage, want the second", n)
	}
	mustWrite(t, h, "third", 0)
	if got := content(t, h); got != "third" {
		t.Errorf("live file holds %q", got)
	}
	if got := frozenContentOf(t, s, e, h.Ino()); got != "first" {
		t.Errorf("frozen file holds %q", got)
	}
	agree(t, "close", h.Close(), nil)
}

// TestReachOutlivesAnAttributeChange: a record written again after a freeze, by an operation that does not know the bytes,
// must still protect what the snapshot reads when the file is opened from it (I1).
func TestReachOutlivesAnAttributeChange(t *testing.T) {
	s, h := newFile(t)
	mustWrite(t, h, "frozen", 0)
	agree(t, "close", h.Close(), nil)
	e := s.freeze(t)
	_, err := s.live.SetAttr(h.Ino(), Change{Set: SetMode, Mode: 0o600})
	agree(t, "chmod", err, nil)
	s.close(t)
	s.open(t)
	defer s.close(t)
	h, err = s.live.OpenFile(h.Ino())
	agree(t, "open", err, nil)
	mustWrite(t, h, "melted", 0)
	agree(t, "sync", h.Sync(false), nil)
	if got := frozenContentOf(t, s, e, h.Ino()); got != "frozen" {
		t.Errorf("frozen file holds %q", got)
	}
	agree(t, "close", h.Close(), nil)
}

func TestWriteClearsPrivileges(t *testing.T) {
	s, h := newFile(t)
	defer s.close(t)
	agree(t, "setxattr", s.live.SetXattr(h.Ino(), capsXattr, []byte("caps"), 0), nil)
	if _, err := h.WriteAt([]byte("x"), 0, true); err != nil {
		t.Fatal(err)
	}
	a, err := s.live.Stat(h.Ino())
	if err != nil || a.Mode&07777 != 0o755 {
		t.Errorf("mode %o after a write, %v", a.Mode, err)
	}
	_, err = s.live.Xattr(h.Ino(), capsXattr)
	agree(t, "capabilities after a write", err, syscall.ENODATA)
	agree(t, "close", h.Close(), nil)
}

// TestFsyncSurvivesPowerLoss: size, content and name are there after a crash that keeps nothing unsynced (I5).
func TestFsyncSurvivesPowerLoss(t *testing.T) {
	for _, dataOnly := range []bool{false, true} {
		s, h := newFile(t)
		mustWrite(t, h, "synced", 0)
		agree(t, "fsync", h.Sync(dataOnly), nil)
		mustWrite(t, h, "SYNCED and more", 0)
		agree(t, "fsync", h.Sync(dataOnly), nil)
		crashed := s.fs.CrashClone(vfsCrash)
		agree(t, "close", h.Close(), nil)
		s.close(t)
		s.fs = crashed
		s.open(t)
		a, err := s.live.Lookup(Root, "f")
		agree(t, "lookup", err, nil)
		h, err = s.live.OpenFile(a.Ino)
		agree(t, "open", err, nil)
		if got := content(t, h); got != "SYNCED and more" {
			t.Errorf("dataOnly %v: the file holds %q", dataOnly, got)
		}
		rec, _, err := s.db.Inode(a.Ino, ^cow.Epoch(0))
		if err != nil || !rec.Stable {
			t.Errorf("dataOnly %v: base file is not known to be durable after fsync, %v", dataOnly, err)
		}
		agree(t, "close", h.Close(), nil)
		s.close(t)
	}
}

// TestOverwriteTimesReachTheSnapshot: an overwrite only changes times, in memory; the freeze has to have them.
func TestOverwriteTimesReachTheSnapshot(t *testing.T) {
	s, h := newFile(t)
	defer s.close(t)
	mustWrite(t, h, "aaaa", 0)
	old := Time{Sec: 1}
	_, err := s.live.SetAttr(h.Ino(), Change{Set: SetMtime, Mtime: old})
	agree(t, "utimes", err, nil)
	mustWrite(t, h, "bbbb", 0)
	live, err := s.live.Stat(h.Ino())
	agree(t, "stat", err, nil)
	e := s.freeze(t)
	frozen, err := s.frozen(e).Stat(h.Ino())
	if err != nil || live.Mtime == old || frozen != live {
		t.Errorf("frozen %+v, %v, live was %+v", frozen, err, live)
	}
	agree(t, "close", h.Close(), nil)
}

// TestConcurrentBytes writes, empties, reads and syncs one file from several sides while epochs pass. Each writer puts whole
// pages of one byte, so that every page, live or frozen, must be all of one.
func TestConcurrentBytes(t *testing.T) {
	s, h := newFile(t)
	defer s.close(t)
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			page := bytes.Repeat([]byte{byte('a' + w)}, cow.PageSize)
			for i := range 60 {
				_, err := h.WriteAt(page, int64(i%7)*cow.PageSize, false)
				agree(t, "write", err, nil)
			}
		})
	}
	wg.Go(func() {
		for i := range 30 {
			var err error
			switch i % 3 {
			case 0:
				_, err = s.live.SetAttr(h.Ino(), Change{Set: SetSize, Size: int64(i%2) * 3 * cow.PageSize})
			case 1:
				err = h.Sync(i%2 == 0)
			case 2:
				_, err = h.ReadAt(make([]byte, most), 0)
				if err == io.EOF {
					err = nil
				}
			}
			if err != nil {
				t.Errorf("step %d: %v", i, err)
			}
		}
	})
	var images []string
	for range 4 {
		e := s.freeze(t)
		images = append(images, frozenContentOf(t, s, e, h.Ino()))
		s.finish(t)
	}
	wg.Wait()
	for i, image := range images {
		if got := frozenContentOf(t, s, s.snaps[i], h.Ino()); got != image {
			t.Errorf("snapshot %d changed", s.snaps[i])
		}
		for p := 0; p < len(image); p += cow.PageSize {
			if page := image[p : p+cow.PageSize]; page != string(bytes.Repeat([]byte{page[0]}, cow.PageSize)) {
				t.Errorf("snapshot %d has a torn page at %d", s.snaps[i], p)
			}
		}
	}
	agree(t, "close", h.Close(), nil)
}

func TestEmptyFiles(t *testing.T) {
	s, h := newFile(t)
	defer s.close(t)
	e := s.freeze(t)
	c, err := s.frozen(e).Open(h.Ino())
	agree(t, "open", err, nil)
	for _, c := range []Content{h, c} {
		if n, err := c.ReadAt(make([]byte, 1), 0); n != 0 || err != io.EOF {
			t.Errorf("%T: read %d, %v", c, n, err)
		}
		_, err = c.SeekExtent(0, true)
		agree(t, fmt.Sprintf("%T: seek", c), err, syscall.ENXIO)
		agree(t, "close", c.Close(), nil)
	}
}

// TestInterruptedCopy: a copy that is to stop says how far it came.
func TestInterruptedCopy(t *testing.T) {
	s, src := newFile(t)
	defer s.close(t)
	a, err := s.live.Create(Root, "copy", Spec{Mode: syscall.S_IFREG | 0o600})
	agree(t, "create", err, nil)
	dst, err := s.live.OpenFile(a.Ino)
	agree(t, "open", err, nil)
	defer dst.Close()
	defer src.Close()
	const size = 3*mostCopyStep + 5
	_, err = s.live.SetAttr(src.Ino(), Change{Set: SetSize, Size: size})
	agree(t, "truncate", err, nil)
	mustWrite(t, src, "end", size-3)
	stop := make(chan struct{})
	close(stop)
	n, err := dst.CopyFrom(src, 0, 0, size, stop)
	agree(t, "interrupted copy", err, nil)
	if n <= 0 || n > mostCopyStep || dst.Size() != n {
		t.Errorf("%d bytes were copied, the file has %d", n, dst.Size())
	}
	more, err := dst.CopyFrom(src, n, n, 2*size, nil)
	agree(t, "copy", err, nil)
	var end [3]byte
	if _, err := dst.ReadAt(end[:], size-3); n+more != size || dst.Size() != size || string(end[:]) != "end" {
		t.Errorf("%d and %d bytes were copied, which end in %q, %v", n, more, end, err)
	}
}

// TestFsyncOfAFileThatWasForgotten: nobody in memory knows any more that the record is not durable (I5).
func TestFsyncOfAFileThatWasForgotten(t *testing.T) {
	s, h := newFile(t)
	agree(t, "fsync", h.Sync(false), nil)
	mustWrite(t, h, "bytes", 0)
	agree(t, "fsync", h.Sync(false), nil)
	_, err := s.live.SetAttr(h.Ino(), Change{Set: SetMode, Mode: 0o640})
	agree(t, "chmod", err, nil)
	agree(t, "close", h.Close(), nil)
	agree(t, "flush", s.live.flushAttrs(), nil)
	s.live.nodes.limit = 0
	_, err = s.live.Stat(Root)
	agree(t, "stat", err, nil)
	if n := len(s.live.nodes.byIno); n != 0 {
		t.Fatalf("%d nodes are in memory: the test proves nothing", n)
	}
	h, err = s.live.OpenFile(h.Ino())
	agree(t, "open", err, nil)
	agree(t, "fsync", h.Sync(false), nil)
	crashed := s.fs.CrashClone(vfsCrash)
	agree(t, "close", h.Close(), nil)
	s.close(t)
	s.fs = crashed
	s.open(t)
	defer s.close(t)
	if a, err := s.live.Stat(h.Ino()); err != nil || a.Mode&07777 != 0o640 {
		t.Errorf("after the crash the mode is %o, %v", a.Mode&07777, err)
	}
}

func BenchmarkExtendingWrite(b *testing.B) {
	s := newByteSpace(b, scratch(b))
	a, err := s.live.Create(Root, "f", Spec{Mode: syscall.S_IFREG | 0o600})
	agree(b, "create", err, nil)
	h, err := s.live.OpenFile(a.Ino)
	agree(b, "open", err, nil)
	page := make([]byte, cow.PageSize)
	for i := 0; b.Loop(); i++ {
		if _, err := h.WriteAt(page, int64(i)*cow.PageSize, false); err != nil {
			b.Fatal(err)
		}
	}
	agree(b, "close", h.Close(), nil)
	s.close(b)
}

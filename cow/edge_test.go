package cow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// within fails the test if f takes longer: what loops over a huge sparse content page by page never ends.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("%s takes longer than %v", what, d)
	}
}

// TestHugeOffsets goes to the very end of the longest content there can be.
func TestHugeOffsets(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	f := w.file(id)
	must(t, f.Truncate(MaxSize, w.record(id)))
	fz, err := w.pool.Freeze(func(Epoch) error { return nil })
	must(t, err)
	must(t, errors.Join(fz.Save(), fz.Write(nil), fz.Sync()))
	fz.Finish()
	if _, err := f.WriteAt([]byte("first"), 0, w.record(id)); err != nil { // private from here on
		t.Fatal(err)
	}
	b := make([]byte, 3*PageSize)
	fr, err := w.pool.OpenFrozen(id, fz.Epoch, MaxSize)
	must(t, err)
	for _, r := range []io.ReaderAt{f, fr} {
		for _, n := range []int64{1, PageSize - 1, PageSize, 2*PageSize + 5} {
			if k, err := r.ReadAt(b, MaxSize-n); int64(k) != n || err != io.EOF {
				t.Errorf("read of the last %d bytes: %d, %v", n, k, err)
			}
			if k, err := r.ReadAt(b[:n], MaxSize-n); int64(k) != n || err != nil {
				t.Errorf("read of exactly the last %d bytes: %d, %v", n, k, err)
			}
		}
	}
	within(t, 20*time.Second, "a search for data", func() {
		if at, err := f.SeekExtent(PageSize, false); !errors.Is(err, unix.ENXIO) {
			t.Errorf("data at %d, %v", at, err)
		}
		if at, err := fr.SeekExtent(PageSize, false); !errors.Is(err, unix.ENXIO) {
			t.Errorf("frozen data at %d, %v", at, err)
		}
		if at, err := f.SeekExtent(MaxSize-1, true); at != MaxSize-1 || err != nil {
			t.Errorf("hole at %d, %v", at, err)
		}
	})
	fr.Close()
	refused := func(err error) bool {
		return errors.Is(err, unix.EFBIG) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL)
	}
	for _, n := range []int64{1, 10, PageSize + 3} { // the store's file system may say no
		if _, err := f.WriteAt(b[:n], MaxSize-n, w.record(id)); err != nil && !refused(err) {
			t.Errorf("write of the last %d bytes: %v", n, err)
		}
	}
	within(t, 20*time.Second, "punching everything", func() {
		must(t, f.Zero(0, MaxSize, true, true, w.record(id)))
		must(t, f.Zero(MaxSize-5, 5, true, true, w.record(id)))
		must(t, f.Zero(PageSize+1, MaxSize-PageSize-1, true, true, w.record(id)))
	})
	if k, err := f.ReadAt(b[:5], 0); k != 5 || err != nil || !bytes.Equal(b[:5], zeros[:5]) {
		t.Errorf("after the punch: %q, %v", b[:k], err)
	}
	must(t, f.Truncate(5, w.record(id)))
	must(t, f.Truncate(MaxSize, w.record(id)))
}

// TestLastBytes writes and reads the last bytes that have an offset, where the store's file system does.
func TestLastBytes(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	f := w.file(id)
	var fbig bool
	for _, n := range []int64{1, PageSize - 1, PageSize, 2*PageSize + 5} {
		data := fill(byte(n), int(n))
		if _, err := f.WriteAt(data, MaxSize-n, w.record(id)); errors.Is(err, unix.EFBIG) {
			fbig = true
			continue
		} else if err != nil {
			t.Fatalf("write of the last %d bytes: %v", n, err)
		}
		got := make([]byte, n+10)
		if k, err := f.ReadAt(got, MaxSize-n); int64(k) != n || err != io.EOF || !bytes.Equal(got[:k], data) {
			t.Errorf("read of the last %d bytes: %d, %v", n, k, err)
		}
		if at, err := f.SeekExtent(0, false); err == nil && (at < MaxSize-3*PageSize || at > MaxSize-n) { // tmpfs does not find it
			t.Errorf("data at %d, %v", at, err)
		}
	}
	if fbig {
		t.Skip("the file system of the test directory has shorter files")
	}
	if _, err := f.WriteAt([]byte("xx"), MaxSize-1, w.record(id)); !errors.Is(err, unix.EFBIG) {
		t.Errorf("write beyond the last byte: %v, want EFBIG", err)
	}
	fz, err := w.pool.Freeze(func(Epoch) error { return nil })
	must(t, err)
	must(t, errors.Join(fz.Save(), fz.Write(nil), fz.Sync()))
	fz.Finish()
	if _, err := f.WriteAt([]byte("x"), MaxSize-1, w.record(id)); !errors.Is(err, unix.EFBIG) {
		t.Errorf("write of the last page, which a snapshot reads: %v, want EFBIG", err)
	}
	if _, err := f.WriteAt(fill(9, PageSize), MaxSize-2*PageSize+1, w.record(id)); err != nil && !errors.Is(err, unix.EFBIG) {
		t.Errorf("write of the page before it: %v", err)
	}
	must(t, f.Truncate(MaxSize-PageSize, w.record(id)))
	must(t, w.pool.Flush())
	must(t, w.pool.Tails()(true))
	fr, err := w.pool.OpenFrozen(id, fz.Epoch, MaxSize)
	must(t, err)
	got, want := make([]byte, 2*PageSize+5), fill(byte(5), 2*PageSize+5)
	if k, err := fr.ReadAt(got, MaxSize-int64(len(got))); k != len(got) || err != nil || !bytes.Equal(got, want) {
		t.Errorf("frozen: %d, %v", k, err)
	}
	fr.Close()
}

// TestLogOfARemovedOnesNumber makes an undo log whose number the index remembers: the power went between the removal of the file and
// that of its mark.
func TestLogOfARemovedOnesNumber(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 2*PageSize)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.index.Add(s.epoch, 100*PageSize, nil))
	log, err := w.pool.logFor(s.epoch, w.pool.Current())
	must(t, err)
	if n, err := w.index.Indexed(s.epoch); n != 0 || err != nil {
		t.Fatalf("the new log is indexed up to %d, %v", n, err)
	}
	// Its first batch is durable; the power goes before the index has it.
	_, err = log.append([]entry{{id: id, page: 1, crc: checksum(log.salt, w.live[id][PageSize:])}}, w.live[id][PageSize:])
	must(t, err)
	w.crash(nil)
	if saved, err := w.pool.savedPages(id, 0, 1, s.epoch); err != nil || !saved.contains(1) {
		t.Errorf("recovery has not found the page: %v", err)
	}
	w.verify()
	w.check()
}

// FuzzPages: no rounding leaves off_t.
func FuzzPages(f *testing.F) {
	for _, off := range []int64{0, 1, PageSize - 1, PageSize, MaxSize - PageSize, MaxSize - 1} {
		for _, n := range []int64{1, PageSize, MaxSize / 2, MaxSize} {
			f.Add(off, n)
		}
	}
	f.Fuzz(func(t *testing.T, off, n int64) {
		if off < 0 || n <= 0 || off > MaxSize-n {
			return
		}
		first, last := pagesOf(off, n)
		end := pageEnd(last)
		if first > last || int64(first)*PageSize > off || end < off+n || end-(off+n) >= PageSize || pagesUpTo(off+n) != last+1 {
			t.Errorf("[%d, %d+%d) is pages %d to %d, which end at %d", off, off, n, first, last, end)
		}
	})
}

// TestTailCutUnderPrivatePage cuts the base file in the middle of a page of which a private copy was made before, stale
// bytes and all: an extension must not show them.
func TestTailCutUnderPrivatePage(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, PageSize)))
	must(t, w.truncate(id, 100))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, 0, []byte("x"))) // private, with the stale bytes behind 100
	must(t, w.pool.Tails()(true))
	must(t, w.truncate(id, PageSize))
	w.verify()
	must(t, w.sync(id))
	w.verify()
}

// TestPunchBehindTheEnd makes a hole in the stale bytes behind the end of a content: nothing becomes private there, where the
// base file may be cut.
func TestPunchBehindTheEnd(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.write(id, 0, fill(1, 4*PageSize)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.truncate(id, PageSize))
	must(t, w.zero(id, 3*PageSize+10, 100, true, true))
	if n := w.pool.Stats().PrivateBytes; n != 0 {
		t.Errorf("%d private bytes behind the end", n)
	}
	must(t, w.remove(s))
	must(t, w.pool.Tails()(true))
	must(t, w.write(id, 3*PageSize+5, fill(2, 20)))
	w.verify()
}

// TestStaleBytesOfFailedWriter lets a writer fail after it wrote beyond what the content's length is then cut to.
func TestStaleBytesOfFailedWriter(t *testing.T) {
	var armed bool
	writes := 0
	w := newWorld(t, Options{Hook: func(op Op) error {
		if armed && op.Kind == OpWriteBase {
			if writes++; writes == 2 {
				return fmt.Errorf("%w: %w", errInjected, unix.ENOSPC)
			}
		}
		return nil
	}})
	ids := []ID{w.create(), w.create()} // the writer fails at the second, whichever that is
	for _, id := range ids {
		must(t, w.write(id, 0, fill(1, 100)))
	}
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	for _, id := range ids {
		must(t, w.write(id, 10, []byte("y")))   // the base file is 100 bytes long, and its page private
		must(t, w.write(id, 100, fill(2, 200))) // grows within the page
	}
	s, err = w.freeze()
	must(t, err)
	armed = true
	if err := w.commit(s); !errors.Is(err, unix.ENOSPC) {
		t.Fatal("the writer did not fail:", err)
	}
	armed = false
	for _, id := range ids {
		must(t, w.truncate(id, 150))
		must(t, w.pool.Flush())
		must(t, w.truncate(id, PageSize))
	}
	w.verify()
}

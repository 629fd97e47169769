package cow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"pgregory.net/rapid"
)

// world is a store as the layers above keep it: what would be in the namespace, and, beside the pool, a plain model of
// every byte: whole arrays, live and per snapshot.
type world struct {
	tb    tb
	dir   string
	opt   Options
	index *memIndex
	pool  *Pool

	mu    sync.Mutex
	inode map[ID]inode // what the namespace says of live contents
	files map[ID]*File
	next  ID

	live  map[ID][]byte   // the model
	past  map[ID][][]byte // images of a content since it was last synced: what a crash may bring back
	snaps []*frozenWorld
}

// tb is what the world needs of a test, be it a plain one or one of rapid's.
type tb interface {
	rapid.TB
	Cleanup(func())
}

type inode struct {
	size, reach int64
	epoch       Epoch
}

// frozenWorld is a snapshot in the model.
type frozenWorld struct {
	epoch Epoch
	files map[ID][]byte
	bound ID
	fz    *Freeze
	state string // pending or durable
}

func newWorld(t tb, opt Options) *world {
	w := &world{tb: t, dir: tempDir(t), opt: opt, index: newMemIndex(), inode: map[ID]inode{}, files: map[ID]*File{}, next: 1,
		live: map[ID][]byte{}, past: map[ID][][]byte{}}
	t.Cleanup(func() { w.pool.closeParts() }) // where the test ended early
	w.open()
	return w
}

// tempDir makes a scratch directory in memory where there is one: the tests sync a lot.
func tempDir(t tb) string {
	base := os.Getenv("SNAPFS_TEST_DIR")
	if base == "" {
		base = "/dev/shm"
	}
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "snapfs-cow-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (w *world) open() {
	w.tb.Helper()
	opt := w.opt
	opt.Index = w.index
	if opt.FlushInterval == 0 {
		opt.FlushInterval = -1
	}
	var snaps []Epoch
	current := Epoch(1)
	for _, s := range w.snaps {
		snaps = append(snaps, s.epoch)
		current = s.epoch + 1
	}
	for _, n := range w.inode {
		current = max(current, n.epoch)
	}
	p, err := OpenPool(w.dir, snaps, current, opt)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.pool = p
}

func (w *world) record(id ID) Record {
	return func(epoch Epoch, size, reach int64) error {
		w.mu.Lock()
		w.inode[id] = inode{size, reach, epoch}
		w.mu.Unlock()
		return nil
	}
}

func (w *world) create() ID {
	w.tb.Helper()
	id := w.next
	w.next++
	f, err := w.pool.Create(id)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.mu.Lock()
	w.files[id] = f
	w.inode[id] = inode{0, 0, w.pool.Current()}
	w.mu.Unlock()
	w.live[id] = nil
	return id
}

func (w *world) file(id ID) *File {
	w.tb.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.files[id]; f != nil {
		return f
	}
	n := w.inode[id]
	f, err := w.pool.Open(id, n.size, n.reach, n.epoch, true)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.files[id] = f
	return f
}

func (w *world) closeFile(id ID) {
	if f := w.files[id]; f != nil {
		f.Close()
		delete(w.files, id)
	}
}

func (w *world) write(id ID, off int64, data []byte) error {
	w.tb.Helper()
	b := bytes.Clone(w.live[id])
	if n := int(off) + len(data); n > len(b) {
		b = append(b, make([]byte, n-len(b))...)
	}
	copy(b[off:], data)
	w.past[id] = append(w.past[id], bytes.Clone(b)) // even where it fails, part of it may be there
	n, err := w.file(id).WriteAt(data, off, w.record(id))
	if err == nil && n == len(data) {
		w.live[id] = b
	} else {
		w.adoptOne(id)
	}
	return err
}

func (w *world) truncate(id ID, size int64) error {
	b := bytes.Clone(w.live[id])
	if int(size) <= len(b) {
		b = b[:size]
	} else {
		b = append(b, make([]byte, int(size)-len(b))...)
	}
	w.past[id] = append(w.past[id], bytes.Clone(b))
	err := w.file(id).Truncate(size, w.record(id))
	if err == nil {
		w.live[id] = b
	} else {
		w.adoptOne(id)
	}
	return err
}

func (w *world) zero(id ID, off, n int64, punch, keep bool) error {
	b := bytes.Clone(w.live[id])
	if end := int(off + n); end > len(b) && !keep {
		b = append(b, make([]byte, end-len(b))...)
	}
	if int(off) < len(b) {
		clear(b[off:min(int(off+n), len(b))])
	}
	w.past[id] = append(w.past[id], bytes.Clone(b))
	err := w.file(id).Zero(off, n, punch, keep, w.record(id))
	if err == nil {
		w.live[id] = b
	} else {
		w.adoptOne(id)
	}
	return err
}

// copy copies from src, which the model says holds want, as often as it takes.
func (w *world) copy(id ID, src Origin, want []byte, from, off, n int64) error {
	part := bytes.Clone(want[min(from, int64(len(want))):min(from+n, int64(len(want)))])
	b := bytes.Clone(w.live[id])
	if end := int(off) + len(part); len(part) > 0 && end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[min(int(off), len(b)):], part)
	w.past[id] = append(w.past[id], bytes.Clone(b))
	done, k := int64(0), int64(1)
	var err error
	for f := w.file(id); err == nil && k > 0 && done < n; done += k {
		k, err = f.CopyFrom(src, from+done, off+done, n-done, w.record(id))
	}
	if err == nil {
		if done != int64(len(part)) {
			w.tb.Fatalf("%d bytes were copied, want %d", done, len(part))
		}
		w.live[id] = b
	} else {
		w.adoptOne(id)
	}
	return err
}

func (w *world) sync(id ID) error {
	err := w.file(id).Sync()
	if err == nil {
		w.past[id] = [][]byte{bytes.Clone(w.live[id])}
	}
	return err
}

// freeze takes a snapshot up to the point where it is visible.
func (w *world) freeze() (*frozenWorld, error) {
	s := &frozenWorld{files: map[ID][]byte{}, bound: w.next, state: "pending"}
	fz, err := w.pool.Freeze(func(e Epoch) error { s.epoch = e; return nil })
	if err != nil {
		return nil, err
	}
	s.fz = fz
	for id, b := range w.live {
		s.files[id] = bytes.Clone(b)
	}
	w.snaps = append(w.snaps, s)
	return s, nil
}

// commit brings a snapshot to durable, or takes it away.
func (w *world) commit(s *frozenWorld) error {
	err := w.commitBytes(s)
	if err != nil {
		w.takeAway(s)
	}
	return err
}

// commitBytes is commit as far as the pool is concerned: it may run beside a change. A snapshot that failed is for takeAway.
func (w *world) commitBytes(s *frozenWorld) error {
	err := s.fz.Save()
	if err == nil {
		err = s.fz.Write(nil)
	}
	if err == nil {
		err = s.fz.Sync()
	}
	s.fz.Finish()
	s.fz = nil
	if err == nil {
		s.state = "durable"
	}
	return err
}

func (w *world) takeAway(s *frozenWorld) {
	if err := w.remove(s); err != nil && !errors.Is(err, errInjected) {
		w.tb.Fatal("remove a failed snapshot:", err)
	}
}

func (w *world) bound(q Epoch) ID {
	for _, s := range w.snaps {
		if s.epoch == q {
			return s.bound
		}
	}
	w.tb.Errorf("asked for the bound of snapshot %d, which does not exist", q)
	return 0
}

func (w *world) remove(s *frozenWorld) error {
	for i, x := range w.snaps {
		if x == s {
			w.snaps = append(w.snaps[:i:i], w.snaps[i+1:]...)
		}
	}
	if _, err := w.pool.RemoveSnapshot(s.epoch, w.bound); err != nil {
		return err
	}
	for id := range s.files {
		if !w.referenced(id) {
			if err := w.pool.Remove(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) referenced(id ID) bool {
	if _, ok := w.live[id]; ok {
		return true
	}
	for _, s := range w.snaps {
		if _, ok := s.files[id]; ok {
			return true
		}
	}
	return false
}

func (w *world) unlink(id ID) error {
	w.closeFile(id)
	delete(w.live, id)
	delete(w.past, id)
	delete(w.inode, id)
	if w.referenced(id) {
		return nil
	}
	return w.pool.Remove(id)
}

// verify compares every byte of the live contents and of all snapshots with the model.
func (w *world) verify() {
	w.tb.Helper()
	for id, want := range w.live {
		f := w.file(id)
		if got := f.Size(); got != int64(len(want)) {
			w.tb.Fatalf("content %d: size %d, want %d", id, got, len(want))
		}
		got := make([]byte, len(want)+1)
		n, err := f.ReadAt(got, 0)
		if !errors.Is(err, io.EOF) || n != len(want) {
			w.tb.Fatalf("content %d: read %d, %v; want %d, EOF", id, n, err, len(want))
		}
		diffPages(w.tb, fmt.Sprintf("live content %d", id), got[:n], want)
	}
	for _, s := range w.snaps {
		w.verifySnapshot(s)
	}
	w.verifyLengths()
}

// verifyLengths checks that no base file is shorter than its known length.
func (w *world) verifyLengths() {
	w.tb.Helper()
	w.index.mu.Lock()
	defer w.index.mu.Unlock()
	for id, known := range w.index.lengths {
		if info, err := os.Stat(filepath.Join(w.dir, BasePath(id))); err == nil && info.Size() < known {
			w.tb.Fatalf("content %d has %d bytes in its base file, and %d are known", id, info.Size(), known)
		}
	}
}

// measure records the lengths of what is synced.
func (w *world) measure() (all bool) {
	w.tb.Helper()
	all, err := w.pool.RecordLengths(time.Now().Add(time.Minute))
	if err != nil {
		w.tb.Fatal(err)
	}
	return all
}

func (w *world) verifySnapshot(s *frozenWorld) {
	w.tb.Helper()
	for id, want := range s.files {
		f, err := w.pool.OpenFrozen(id, s.epoch, int64(len(want)))
		if err != nil {
			w.tb.Fatal(err)
		}
		got := make([]byte, len(want))
		if n, err := f.ReadAt(got, 0); n != len(want) || err != nil {
			w.tb.Fatalf("snapshot %d (%s), content %d: read %d, %v; want %d", s.epoch, s.state, id, n, err, len(want))
		}
		f.Close()
		diffPages(w.tb, fmt.Sprintf("snapshot %d (%s) content %d", s.epoch, s.state, id), got, want)
	}
}

func diffPages(t tb, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s differs at byte %d (page %d of %d): %#x, want %#x", what, i, i/PageSize, len(want)/PageSize, got[i], want[i])
		}
	}
}

// check runs the checker.
func (w *world) check() {
	w.tb.Helper()
	_, err := w.pool.Check(func(pr Problem) { w.tb.Errorf("check: %s: %s", pr.Path, pr.What) })
	if err != nil {
		w.tb.Fatal(err)
	}
}

// reopen closes the pool cleanly and opens it again.
func (w *world) reopen() {
	w.tb.Helper()
	for _, s := range w.snaps {
		if s.fz != nil {
			if err := w.commit(s); err != nil {
				w.tb.Fatal(err)
			}
		}
	}
	for id := range w.files {
		w.closeFile(id)
	}
	if err := w.pool.Close(); err != nil {
		w.tb.Fatal(err)
	}
	w.open()
}

// crash ends the pool as a kill would: nothing is flushed, captures are lost. Then it is opened again, as recovery
// does it: snapshots that were pending are removed. hook is what the next life runs with.
func (w *world) crash(hook func(Op) error) {
	w.tb.Helper()
	w.files = map[ID]*File{}
	for _, s := range w.snaps {
		if s.fz != nil && s.fz.cp != nil {
			s.fz.cp.child.abandon(s.fz.cp)
		}
		s.fz = nil
	}
	close(w.pool.stop)
	w.pool.stopped.Wait()
	w.pool.closeParts()
	w.opt.Hook = hook
	w.open()
	var pending []*frozenWorld
	for _, s := range w.snaps {
		if s.state == "pending" {
			pending = append(pending, s)
		}
	}
	for _, s := range pending {
		if err := w.remove(s); err != nil {
			w.tb.Fatal(err)
		}
	}
	w.adopt()
}

// adopt takes over what a crash left of the live contents.
func (w *world) adopt() {
	w.tb.Helper()
	for id := range w.live {
		w.adoptOne(id)
	}
}

// adoptOne takes over what a crash or a failed change left of a content, after checking that every page is one that was
// written since the last sync.
func (w *world) adoptOne(id ID) {
	w.tb.Helper()
	f := w.file(id)
	got := make([]byte, f.Size())
	if n, err := f.ReadAt(got, 0); n != len(got) || err != nil && !errors.Is(err, io.EOF) {
		w.tb.Fatalf("content %d: read %d, %v; want %d", id, n, err, len(got))
	}
	for at := 0; at < len(got); at += PageSize {
		if page := got[at:min(at+PageSize, len(got))]; !w.wasWritten(id, at, page) {
			w.tb.Fatalf("content %d, page %d is nothing that was written since the last sync", id, at/PageSize)
		}
	}
	w.live[id] = got
	w.past[id] = append(w.past[id], bytes.Clone(got))
}

func (w *world) wasWritten(id ID, at int, page []byte) bool {
	allZero := bytes.Equal(page, zeros[:len(page)])
	for _, img := range w.past[id] {
		have := make([]byte, len(page))
		if at < len(img) {
			copy(have, img[at:])
		}
		if bytes.Equal(have, page) {
			return true
		}
	}
	return allZero
}

var errInjected = errors.New("injected")

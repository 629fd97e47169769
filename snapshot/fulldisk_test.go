package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
)

// images are the file systems on which disks are filled.
var images = []struct{ name, mkfs, size string }{
	{"ext4", "mkfs.ext4 -q -F -m 0", "64M"},
	{"xfs", "mkfs.xfs -q -f", "300M"},
}

// mountImage mounts a new file system in an image of its own.
func mountImage(t *testing.T, mkfs, size string) (point string) {
	t.Helper()
	dir := scratch(t)
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	run(t, "truncate", "-s", size, image)
	run(t, "sh", "-c", mkfs+" "+image)
	run(t, "mkdir", point)
	run(t, "mount", "-o", "loop", image, point)
	t.Cleanup(func() { _ = exec.Command("umount", point).Run() })
	return point
}

// fill takes all that is free on the disk, to the last block.
func fill(t *testing.T, path string) {
	t.Helper()
	for range 3 { // xfs frees what it had reserved behind a file's end when it is closed
		fillOnce(t, path)
	}
}

func fillOnce(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil && errors.Is(err, unix.ENOSPC) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 1 << 20; n >= 512; {
		if _, err := f.Write(make([]byte, n)); err == nil {
			continue
		} else if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		n /= 2
	}
	_ = f.Sync()
}

// fullWorld is a store on a disk that gets full, and what is in it.
type fullWorld struct {
	t     *testing.T
	point string
	s     *Store
	files map[string][]byte
	snaps map[string]string

	mu      sync.Mutex
	reports []error
}

func newFullWorld(t *testing.T, mkfs, size string) *fullWorld {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount images")
	}
	w := &fullWorld{t: t, point: mountImage(t, mkfs, size), files: map[string][]byte{}, snaps: map[string]string{}}
	w.open()
	t.Cleanup(func() { _ = w.s.Close() })
	return w
}

func (w *fullWorld) open() {
	w.t.Helper()
	var err error
	w.s, err = Open(filepath.Join(w.point, "store"), Options{Create: true, FlushInterval: 20 * time.Millisecond, Report: func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reports = append(w.reports, err)
	}})
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
}

func (w *fullWorld) ok(what string, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

// full wants an error to say that the disk is.
func (w *fullWorld) full(what string, err error) {
	w.t.Helper()
	if !errors.Is(err, syscall.ENOSPC) {
		w.t.Errorf("%s on a full disk: %v, want ENOSPC", what, err)
	}
}

// put writes a whole file. What is acknowledged counts.
func (w *fullWorld) put(name string, b byte, n int) error {
	l := w.s.Live()
	ent, err := l.Lookup(Root, name)
	ino := ent.Ino
	if errors.Is(err, syscall.ENOENT) {
		var a Attr
		if a, err = l.Create(Root, name, Spec{Mode: syscall.S_IFREG | 0o600}); err == nil {
			ino = a.Ino
			w.files[name] = nil
		}
	}
	if err != nil {
		return err
	}
	h, err := l.OpenFile(ino)
	if err != nil {
		return err
	}
	defer h.Close()
	data := bytes.Repeat([]byte{b}, n)
	k, err := h.WriteAt(data, 0, false)
	old := w.files[name]
	w.files[name] = append(append([]byte{}, data[:k]...), old[min(k, len(old)):]...)
	if err != nil {
		return err
	}
	return h.Sync(false)
}

func (w *fullWorld) snapshot(name string) error {
	_, err := w.s.Snapshot(Request{Name: name})
	if err == nil {
		w.snaps[name] = w.dumpOf(name)
	}
	return err
}

func (w *fullWorld) dumpOf(name string) string {
	w.t.Helper()
	info, err := w.s.Find(name)
	w.ok("find "+name, err)
	v, err := w.s.View(info.Epoch)
	w.ok("view of "+name, err)
	defer v.Release()
	return dump(w.t, v)
}

// verify reads everything.
func (w *fullWorld) verify() {
	w.t.Helper()
	l := w.s.Live()
	for name, want := range w.files {
		ent, err := l.Lookup(Root, name)
		w.ok("look up "+name, err)
		h, err := l.OpenFile(ent.Ino)
		w.ok("open "+name, err)
		got := make([]byte, len(want)+1)
		n, _ := h.ReadAt(got, 0)
		if !bytes.Equal(got[:n], want) {
			w.t.Errorf("%s has %d bytes, not what was written (%d)", name, n, len(want))
		}
		_ = h.Close()
	}
	for name, want := range w.snaps {
		if w.dumpOf(name) != want {
			w.t.Errorf("snapshot %s has changed", name)
		}
	}
	report, err := w.s.Check()
	w.ok("check", err)
	for _, p := range report.Problems {
		w.t.Errorf("check: %s: %s", p.Path, p.What)
	}
}

func (w *fullWorld) unlink(name string) {
	w.t.Helper()
	ent, err := w.s.Live().Lookup(Root, name)
	w.ok("look up "+name, err)
	w.ok("unlink "+name, w.s.Live().Unlink(Root, name))
	w.s.Live().Forget(ent.Ino)
	delete(w.files, name)
}

// TestFullDisk has somebody else fill the disk to the last block, several times. Nothing acknowledged is lost, reading and
// deleting go on, deletions of snapshots give room back, and when there is room everything goes on by itself.
func TestFullDisk(t *testing.T) {
	for _, fs := range images {
		t.Run(fs.name, func(t *testing.T) {
			w := newFullWorld(t, fs.mkfs, fs.size)
			for i := range 200 {
				w.ok("create", w.put(fmt.Sprint("small", i), 's', 5000))
			}
			for i := range 3 {
				w.ok("write", w.put("big", byte('a'+i), 4<<20))
				w.ok("snapshot", w.snapshot(fmt.Sprint("s", i)))
			}
			w.ok("write", w.put("big", 'z', 4<<20))
			filler := filepath.Join(w.point, "filler")
			for i := range 3 {
				fill(t, filler)
				w.full("create", w.put("new", 'n', 1))
				w.full("snapshot", w.snapshot("new"))
				w.full("extend", w.put(fmt.Sprint("small", 100), 'x', 1<<20))
				for k := range 30 {
					w.unlink(fmt.Sprint("small", i*30+k))
				}
				w.verify()
				fill(t, filler)
				name := fmt.Sprint("s", i)
				_, err := w.s.Delete([]string{name}, false, nil)
				w.ok("delete "+name, err)
				delete(w.snaps, name)
				disk, err := diskOf(w.point)
				w.ok("statfs", err)
				if disk.free+w.s.ballast.held.Load() < 1<<20 {
					t.Errorf("the deletion of %s left %d bytes free", name, disk.free)
				}
				w.ok("sync", w.s.Live().Sync())
				w.verify()
			}
			w.ok("remove the filler", os.Remove(filler))
			w.ok("create", w.put("new", 'n', 100_000))
			w.ok("snapshot", w.snapshot("after"))
			w.ok("overwrite", w.put("big", 'y', 4<<20))
			w.verify()
			w.ok("close", w.s.Close())
			w.open()
			w.verify()
			if err := w.s.db.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFullOfOurs fills the disk through the store itself, and then deletes.
func TestFullOfOurs(t *testing.T) {
	for _, fs := range images {
		t.Run(fs.name, func(t *testing.T) {
			w := newFullWorld(t, fs.mkfs, fs.size)
			w.ok("write", w.put("base", 'a', 3<<20))
			w.ok("snapshot", w.snapshot("s"))
			for n, i := 3<<20, 0; n >= 100; i++ {
				if err := w.put(fmt.Sprint("f", i), byte(i), n); err != nil {
					w.full("write", err)
					n /= 8
				}
			}
			w.full("snapshot", w.snapshot("full"))
			if missing := w.s.ballast.missing(); missing > 0 {
				t.Errorf("our own writes cost %d bytes of the ballast", missing)
			}
			w.verify()
			_, err := w.s.Delete([]string{"s"}, false, nil)
			w.ok("delete", err)
			delete(w.snaps, "s")
			w.unlink("f0")
			w.unlink("f1")
			w.ok("sync", w.s.Live().Sync())
			w.ok("tidy", w.s.tidy())
			w.ok("write", w.put("again", 'g', 1<<20))
			w.ok("snapshot", w.snapshot("t"))
			w.verify()
		})
	}
}

// TestOpenOnFullDisk opens a store on a disk without a free block.
func TestOpenOnFullDisk(t *testing.T) {
	for _, fs := range images {
		t.Run(fs.name, func(t *testing.T) {
			w := newFullWorld(t, fs.mkfs, fs.size)
			w.ok("write", w.put("file", 'a', 1<<20))
			w.ok("snapshot", w.snapshot("s"))
			w.ok("write", w.put("file", 'b', 1<<20))
			w.ok("close", w.s.Close())
			fill(t, filepath.Join(w.point, "filler"))
			w.open()
			w.verify()
			fill(t, filepath.Join(w.point, "filler")) // the log of the last life has gone
			w.full("create", w.put("new", 'n', 1))
			_, err := w.s.Delete([]string{"s"}, false, nil)
			w.ok("delete", err)
			delete(w.snaps, "s")
			w.ok("close", w.s.Close())
			w.open()
			w.verify()
		})
	}
}

// TestBallast holds what it should, gives it up, and gets it back.
func TestBallast(t *testing.T) {
	dir := scratch(t)
	b, err := openBallast(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if b.missing() != 0 || b.most == 0 {
		t.Fatalf("holds %d of %d bytes", b.held.Load(), b.most)
	}
	free, err := diskOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.take(free.free); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("all that is free: %v, want ENOSPC", err)
	}
	if err := b.take(1); err != nil {
		t.Errorf("one byte: %v", err)
	}
	for b.release(b.most / 4) {
	}
	if b.held.Load() != 0 {
		t.Errorf("%d bytes are left", b.held.Load())
	}
	time.Sleep(refillPeriod)
	if err := b.admit(); err != nil || b.missing() != 0 {
		t.Errorf("%d bytes are missing, %v", b.missing(), err)
	}
}

// TestRemovedOnFullDisk: files that were removed while they were open, and closed when the metadata store found no room to drop them, go
// when there is room again.
func TestRemovedOnFullDisk(t *testing.T) {
	w := newFullWorld(t, images[0].mkfs, images[0].size)
	var open []*Handle
	for i := range 5 {
		name := fmt.Sprint("file", i)
		w.ok("write", w.put(name, 'a', 1<<20))
		ent, err := w.s.Live().Lookup(Root, name)
		w.ok("look up", err)
		h, err := w.s.Live().OpenFile(ent.Ino)
		w.ok("open", err)
		w.unlink(name)
		open = append(open, h)
	}
	filler := filepath.Join(w.point, "filler")
	for w.s.ballast.admit() == nil { // others are faster than the ballast
		fill(t, filler)
		w.s.ballast.release(w.s.ballast.most)
		fill(t, filler)
	}
	for _, h := range open {
		w.full("close of a removed file", h.Close())
	}
	w.verify()
	w.ok("remove the filler", os.Remove(filler))
	left := -1
	for start := time.Now(); left != 0 && time.Since(start) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		left = 0
		w.ok("list base files", w.s.pool.BaseIDs(func(cow.ID) { left++ }))
	}
	if left > 0 {
		t.Errorf("%d base files of removed files are left", left)
	}
	w.verify()
}

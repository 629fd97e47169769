package meta

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/snapfs/snapfs/cow"
)

func open(t *testing.T, fs vfs.FS) *DB {
	t.Helper()
	d, err := Open("meta", Options{FS: fs, Report: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func mustCommit(t *testing.T, b *Batch, sync bool) uint64 {
	t.Helper()
	seq, err := b.Commit(sync)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func mustClose(t *testing.T, d *DB) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// sizeAt returns the size of the inode as of an epoch, -1 if it does not exist.
func sizeAt(t *testing.T, d *DB, ino Ino, at cow.Epoch) int64 {
	t.Helper()
	rec, e, err := d.Inode(ino, at)
	if err != nil {
		t.Fatal(err)
	}
	if e == 0 {
		return -1
	}
	return rec.Size
}

func TestVersionsAreSeenFromTheirEpochOn(t *testing.T) {
	d := open(t, vfs.NewMem())
	defer mustClose(t, d)
	b := d.NewBatch()
	b.PutInode(7, &Inode{Size: 30}, 3, 0)
	b.PutInode(7, &Inode{Size: 50}, 5, 3)
	b.DeleteInode(7, 8, 5, true)
	b.PutInode(6, &Inode{Size: 1}, 1, 0)
	b.PutInode(8, &Inode{Size: 1}, 1, 0)
	mustCommit(t, b, false)
	for at, want := range map[cow.Epoch]int64{1: -1, 2: -1, 3: 30, 4: 30, 5: 50, 7: 50, 8: -1, Latest: -1} {
		if got := sizeAt(t, d, 7, at); got != want {
			t.Errorf("as of %d: size %d, want %d", at, got, want)
		}
	}
	vs, err := d.Versions(InodeKeyOf(7))
	if want := []Version{{8, true}, {5, false}, {3, false}}; err != nil || !slices.Equal(vs, want) {
		t.Errorf("versions %v, %v, want %v", vs, err, want)
	}
	for e, want := range map[cow.Epoch]bool{3: false, 4: true, 5: true, 8: true, 9: true} {
		if older, err := d.Older(InodeKeyOf(7), e); err != nil || older != want {
			t.Errorf("older than %d: %v, %v", e, older, err)
		}
	}
}

func TestDeleteLeavesATombstoneOnlyOverAnOlderVersion(t *testing.T) {
	d := open(t, vfs.NewMem())
	defer mustClose(t, d)
	b := d.NewBatch()
	b.PutDirent(1, "new", 5, syscall.S_IFREG, 4, 0)
	b.PutDirent(1, "old", 6, syscall.S_IFREG, 2, 0)
	mustCommit(t, b, false)
	b = d.NewBatch()
	b.DeleteDirent(1, "new", 4, 4, false)
	b.DeleteDirent(1, "old", 4, 2, false)
	mustCommit(t, b, false)

	if vs, _ := d.Versions(d.DirentKeyOf(1, "new")); len(vs) != 0 {
		t.Errorf("the entry of one epoch left %v", vs)
	}
	if vs, _ := d.Versions(d.DirentKeyOf(1, "old")); !slices.Equal(vs, []Version{{4, true}, {2, false}}) {
		t.Errorf("the older entry has %v", vs)
	}
	var touched []string
	err := d.Touched(2, 4, func(e cow.Epoch, k Key) bool {
		touched = append(touched, fmt.Sprint(e, " ", string(rune(k.Kind())), " ", k.Ino(), " ", k.Name()))
		return true
	})
	if want := []string{"2 d 1 old", "4 d 1 old"}; err != nil || !slices.Equal(touched, want) {
		t.Errorf("touched %q, %v, want %q", touched, err, want)
	}
}

func TestReadDirResumesWhileNamesComeAndGo(t *testing.T) {
	d := open(t, vfs.NewMem())
	defer mustClose(t, d)
	b := d.NewBatch()
	for i := range 100 {
		b.PutDirent(1, fmt.Sprint("f", i), Ino(i+10), syscall.S_IFREG, 1, 0)
		b.PutDirent(2, fmt.Sprint("f", i), Ino(i+10), syscall.S_IFREG, 1, 0)
	}
	mustCommit(t, b, false)
	seen := map[string]int{}
	var after uint64
	for step := 0; ; step++ {
		n := 0
		err := d.ReadDir(1, Latest, after, func(e Dirent) bool {
			if e.Cookie <= after || e.Cookie < minCookie || e.Cookie >= 1<<63 {
				t.Fatalf("cookie %d after %d", e.Cookie, after)
			}
			seen[e.Name]++
			after = e.Cookie
			n++
			return n < 7
		})
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		b := d.NewBatch()
		b.PutDirent(1, fmt.Sprint("later", step), 900, syscall.S_IFREG, 2, 0)
		b.DeleteDirent(1, fmt.Sprint("later", step-1), 2, 2, false)
		mustCommit(t, b, false)
	}
	for i := range 100 {
		if name := fmt.Sprint("f", i); seen[name] != 1 {
			t.Errorf("%s was listed %d times", name, seen[name])
		}
	}
	n := 0
	if err := d.ReadDir(1, 1, 0, func(Dirent) bool { n++; return true }); err != nil || n != 100 {
		t.Errorf("epoch 1 lists %d, %v", n, err)
	}
}

func TestXattrsOfOneInode(t *testing.T) {
	d := open(t, vfs.NewMem())
	defer mustClose(t, d)
	big := []byte(strings.Repeat("x", 1<<16))
	b := d.NewBatch()
	b.PutXattr(3, "user.b", big, 1, 0)
	b.PutXattr(3, "user.a", nil, 1, 0)
	b.PutXattr(3, "user.bb", []byte("bb"), 2, 0)
	b.PutXattr(4, "user.c", []byte("c"), 1, 0)
	mustCommit(t, b, false)
	names := func(at cow.Epoch) (ns []string) {
		if err := d.Xattrs(3, at, func(n string) bool { ns = append(ns, n); return true }); err != nil {
			t.Fatal(err)
		}
		return ns
	}
	if got := names(1); !slices.Equal(got, []string{"user.a", "user.b"}) {
		t.Errorf("epoch 1: %q", got)
	}
	if got := names(Latest); !slices.Equal(got, []string{"user.a", "user.b", "user.bb"}) {
		t.Errorf("latest: %q", got)
	}
	if v, e, err := d.Xattr(3, "user.b", Latest); err != nil || e != 1 || string(v) != string(big) {
		t.Errorf("user.b: %d bytes of epoch %d, %v", len(v), e, err)
	}
	if v, e, err := d.Xattr(3, "user.a", Latest); err != nil || e != 1 || len(v) != 0 {
		t.Errorf("user.a: %q of epoch %d, %v", v, e, err)
	}
	if _, e, err := d.Xattr(3, "user", Latest); err != nil || e != 0 {
		t.Errorf("user: epoch %d, %v", e, err)
	}
}

// TestSyncCoversEarlierBatches crashes the store: what was committed before a Sync is there, a later batch may be lost.
func TestSyncCoversEarlierBatches(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d := open(t, fs)
	b := d.NewBatch()
	b.PutInode(5, &Inode{Size: 5}, 1, 0)
	seq := mustCommit(t, b, false)
	if d.Synced(seq) {
		t.Error("an unsynced batch is called durable")
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if !d.Synced(seq) {
		t.Error("a synced batch is not called durable")
	}
	b = d.NewBatch()
	b.PutInode(6, &Inode{Size: 6}, 1, 0)
	if d.Synced(mustCommit(t, b, false)) {
		t.Error("a batch after the sync is called durable")
	}
	crashed := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if got := sizeAt(t, crashed, 5, Latest); got != 5 {
		t.Errorf("synced inode has size %d after the crash", got)
	}
	if got := sizeAt(t, crashed, 6, Latest); got != -1 {
		t.Errorf("this crash keeps nothing unsynced, but size is %d: the test proves nothing", got)
	}
	mustClose(t, crashed)
	mustClose(t, d)
}

func TestCountersNeverRepeatAfterACrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	d := open(t, fs)
	used := map[Ino]bool{}
	for range 3 {
		for range block + 10 {
			n, err := d.NextIno()
			if err != nil || used[n] || n < 2 {
				t.Fatalf("inode number %d, used %v, %v", n, used[n], err)
			}
			used[n] = true
		}
		fs = fs.CrashClone(vfs.CrashCloneCfg{})
		mustClose(t, d)
		d = open(t, fs)
	}
	id, err := d.NextContent()
	if err != nil || id != 1 || d.ContentBound() != 2 {
		t.Errorf("first content %d, then %d, %v", id, d.ContentBound(), err)
	}
	mustClose(t, d)
	d = open(t, fs)
	if d.ContentBound() != 2 {
		t.Errorf("an orderly shutdown lost content ids: next is %d", d.ContentBound())
	}
	mustClose(t, d)
}

func TestMarksAndLists(t *testing.T) {
	fs := vfs.NewMem()
	d := open(t, fs)
	b := d.NewBatch()
	b.SetEpoch(9)
	b.SetClean(true)
	b.AddGarbage(4)
	b.AddGarbage(3)
	b.AddOrphan(70)
	s := Snapshot{Epoch: 8, Name: "before", State: Durable, Holds: []string{"x"}, NextContent: 5, FreezeUsec: 1, Seconds: 0.5}
	if err := b.PutSnapshot(&s); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, b, true)
	mustClose(t, d)
	d = open(t, fs)
	defer mustClose(t, d)
	if e, err := d.Epoch(); e != 9 || err != nil {
		t.Errorf("epoch %d, %v", e, err)
	}
	if clean, measured, err := d.Clean(); !clean || !measured || err != nil {
		t.Errorf("clean %v, measured %v, %v", clean, measured, err)
	}
	var ids []cow.ID
	if err := d.Garbage(func(id cow.ID) bool { ids = append(ids, id); return true }); err != nil || !slices.Equal(ids, []cow.ID{3, 4}) {
		t.Errorf("garbage %v, %v", ids, err)
	}
	var inos []Ino
	if err := d.Orphans(func(i Ino) bool { inos = append(inos, i); return true }); err != nil || !slices.Equal(inos, []Ino{70}) {
		t.Errorf("orphans %v, %v", inos, err)
	}
	all, err := d.Snapshots()
	if err != nil || len(all) != 1 || fmt.Sprint(all[0]) != fmt.Sprint(Snapshot{8, "before", all[0].Time, Durable, []string{"x"}, "", 5, 1, 0, 0, 0.5, false}) {
		t.Errorf("snapshots %v, %v", all, err)
	}
	b = d.NewBatch()
	b.RemoveClean()
	b.RemoveGarbage(3)
	b.RemoveOrphan(70)
	b.DeleteSnapshot(8)
	mustCommit(t, b, false)
	if clean, measured, _ := d.Clean(); clean || measured {
		t.Error("still clean")
	}
	if all, _ := d.Snapshots(); len(all) != 0 {
		t.Errorf("still there: %v", all)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	d := open(t, fs)
	b := d.NewBatch()
	b.setMark(markFormat, []byte{0, 0, 0, formatVersion + 1})
	mustCommit(t, b, true)
	mustClose(t, d)
	_, err := Open("meta", Options{FS: fs})
	if err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("a newer store opens with %v", err)
	}
}

// TestOlderFormat: a store of version 1, which knew no lengths, becomes one of the present version, and its lengths count as unknown.
func TestOlderFormat(t *testing.T) {
	fs := vfs.NewMem()
	d := open(t, fs)
	b := d.NewBatch()
	b.setMark(markFormat, []byte{0, 0, 0, 1})
	b.setMark(markClean, nil)
	mustCommit(t, b, true)
	mustClose(t, d)
	d = open(t, fs)
	defer mustClose(t, d)
	if v, _, err := d.mark(markFormat); err != nil || !bytes.Equal(v, []byte{0, 0, 0, formatVersion}) {
		t.Errorf("the version is %v, %v", v, err)
	}
	if clean, measured, err := d.Clean(); !clean || measured || err != nil {
		t.Errorf("clean %v, measured %v, %v", clean, measured, err)
	}
}

func TestLengths(t *testing.T) {
	fs := vfs.NewMem()
	d := open(t, fs)
	if err := d.SetLengths([]cow.Length{{ID: 1, Bytes: 5}, {ID: 2, Bytes: 6}, {ID: 3, Bytes: 7}}); err != nil {
		t.Fatal(err)
	}
	b := d.NewBatch()
	b.RemoveGarbage(3) // its base file has gone
	mustCommit(t, b, false)
	if err := d.ForgetLengths([]cow.ID{2, 4}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	d = open(t, fs)
	defer mustClose(t, d)
	for id, want := range []int64{0, 5, 0, 0, 0} {
		if n, err := d.Length(cow.ID(id)); n != want || err != nil {
			t.Errorf("content %d is %d long, %v; want %d", id, n, err, want)
		}
	}
	b = d.NewBatch()
	b.set(key1(kindLength, 1), []byte{valueVersion, 0x80, 0, 0, 0, 0, 0, 0, 1})
	mustCommit(t, b, false)
	if n, err := d.Length(1); !errors.Is(err, ErrDamaged) {
		t.Errorf("a negative length: %d, %v", n, err)
	}
}

// TestFailedSyncIsFinal makes the log's disk fail: the error is EIO, it stays, and the process lives (I11).
func TestFailedSyncIsFinal(t *testing.T) {
	disk := &failingDisk{}
	d, err := Open("meta", Options{FS: disk.wrap(vfs.NewMem())})
	if err != nil {
		t.Fatal(err)
	}
	disk.fail.Store(true)
	b := d.NewBatch()
	b.PutInode(5, &Inode{Size: 5}, 1, 0)
	if _, err := b.Commit(true); !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit on a failing disk: %v", err)
	}
	disk.fail.Store(false)
	b = d.NewBatch()
	if _, err := b.Commit(false); !errors.Is(err, syscall.EIO) {
		t.Errorf("commit after the failure: %v", err)
	}
	if err := d.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync after the failure: %v", err)
	}
	if err := d.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("close after the failure: %v", err)
	}
}

// TestFullDiskIsNoWait lets the disk fail under many committers at once: every one of them is told, and none waits for ever.
func TestFullDiskIsNoWait(t *testing.T) {
	disk := &failingDisk{}
	d, err := Open("meta", Options{FS: disk.wrap(vfs.NewMem())})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	for i := range 8 {
		go func() {
			for n := 0; ; n++ {
				b := d.NewBatch()
				b.PutXattr(Ino(i+1), "user.x", make([]byte, 100), 1, 0)
				if _, err := b.Commit(n%4 == i%4); err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	time.Sleep(5 * time.Millisecond) // less than a table: Pebble does not survive a failure to begin a new log
	disk.fail.Store(true)
	for range 8 {
		select {
		case err := <-ended:
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("commit: %v, want EIO", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a commit waits for ever")
		}
	}
	if err := d.Sync(); err == nil {
		t.Error("sync after the failure succeeded")
	}
}

package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
)

// powerCuts returns how many cuts per file system the test makes; a soak sets more.
func powerCuts() int {
	if n, err := strconv.Atoi(os.Getenv("SNAPFS_POWERCUTS")); err == nil {
		return n
	}
	return 4
}

// TestPowerCut cuts the power of a store at work, on real file systems in images: the file system is shut down without its
// log being flushed (FS_IOC_SHUTDOWN with NOLOGFLUSH), so that nothing survives but what was synced. What was
// acknowledged before the cut is there afterwards: snapshots to the byte (I4), synced files at least as new (I5).
func TestPowerCut(t *testing.T) {
	if dir := os.Getenv("SNAPFS_POWERCUT_STORE"); dir != "" {
		powerCutLoad(dir)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount images")
	}
	for _, fs := range []struct{ name, mkfs, options string }{
		{"ext4", "mkfs.ext4 -q -F", "loop,commit=300"},
		{"ext4 writeback", "mkfs.ext4 -q -F", "loop,commit=300,data=writeback"},
		{"xfs", "mkfs.xfs -q -f", "loop"},
	} {
		t.Run(fs.name, func(t *testing.T) {
			dir := scratch(t)
			image, point := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
			run(t, "truncate", "-s", "320M", image)
			run(t, "sh", "-c", fs.mkfs+" "+image)
			run(t, "mkdir", point)
			mount := func() { run(t, "mount", "-o", fs.options, image, point) }
			mount()
			t.Cleanup(func() { _ = exec.Command("umount", point).Run() })
			known := &powerCutAcks{snaps: map[string]string{}, maybe: map[string]bool{}, seqs: map[string]uint64{}}
			for range powerCuts() {
				cutOnce(t, filepath.Join(point, "store"), point, known)
				run(t, "umount", point)
				mount()
				verifyAfterCut(t, filepath.Join(point, "store"), known)
			}
		})
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// powerCutAcks is what the load has said before the cut.
type powerCutAcks struct {
	snaps map[string]string // hash of the dump, by name
	maybe map[string]bool   // being deleted
	seqs  map[string]uint64 // by file, the last write that was synced
	n     int
}

// hear takes a line of the load.
func (k *powerCutAcks) hear(line string) {
	k.n++
	f := strings.Fields(line)
	switch f[0] {
	case "snapshot":
		k.snaps[f[1]] = f[2]
	case "deleting":
		k.maybe[f[1]] = true
	case "deleted":
		delete(k.snaps, f[1])
		delete(k.maybe, f[1])
	case "synced":
		k.seqs[f[1]], _ = strconv.ParseUint(f[2], 10, 64)
	}
}

// cutOnce runs the load in a process of its own and cuts the power at a random moment.
func cutOnce(t *testing.T, store, point string, known *powerCutAcks) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$")
	cmd.Env = append(os.Environ(), "SNAPFS_POWERCUT_STORE="+store)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder // after the cut everything fails, and it says so
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
	}()
	before := known.n
	cut := time.After(time.Duration(300+rand.IntN(700)) * time.Millisecond)
	for cutting := false; !cutting; {
		select {
		case line, ok := <-lines:
			if !ok {
				_ = cmd.Wait()
				t.Fatalf("the load ended by itself: %s", complaints.String())
			}
			known.hear(line)
		case <-cut:
			cutting = known.n > before // else it has not begun
			cut = time.After(100 * time.Millisecond)
		}
	}
	// What is said to be durable from here on does not count: an fsync that the cut overtakes may return success. A deletion that was
	// announced may have been done.
	shutdown(t, point)
	_ = cmd.Process.Kill()
	for line := range lines {
		if strings.HasPrefix(line, "deleting ") {
			known.hear(line)
		}
	}
	_ = cmd.Wait()
	time.Sleep(20 * time.Millisecond) // for the orphaned writer
}

// shutdown stops the file system at point without flushing its log (FS_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH).
func shutdown(t *testing.T, point string) {
	t.Helper()
	const fsIOCShutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(point)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), fsIOCShutdown, noLogFlush); err != nil {
		t.Fatal("shut the file system down:", err)
	}
}

func verifyAfterCut(t *testing.T, dir string, known *powerCutAcks) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	infos, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, i := range infos {
		found[i.Name] = true
		want, ok := known.snaps[i.Name]
		v, err := s.View(i.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		got := hashOf(dump(t, v))
		v.Release()
		if ok && got != want {
			t.Errorf("snapshot %s has changed", i.Name)
		}
		known.snaps[i.Name] = got // one whose command the cut overtook is held to what it is now
	}
	for name := range known.snaps {
		if !found[name] {
			if !known.maybe[name] {
				t.Errorf("snapshot %s is lost", name)
			}
			delete(known.snaps, name)
		}
	}
	clear(known.maybe)
	for name, want := range known.seqs {
		if got := seqOf(t, s, name); got < want {
			t.Errorf("%s is at write %d, %d was synced", name, got, want)
		}
	}
	r, err := s.Check()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Errorf("check: %s: %s", p.Path, p.What)
	}
	if t.Failed() {
		t.FailNow()
	}
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf("%x", sum[:8])
}

func seqOf(t tester, s *Store, name string) uint64 {
	a, err := s.Live().Lookup(Root, name)
	if err != nil {
		t.Errorf("%s is lost: %v", name, err)
		return 0
	}
	c, err := s.Live().Open(a.Ino)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b [8]byte
	if _, err := c.ReadAt(b[:], 0); err != nil && err != io.EOF {
		t.Errorf("%s: %v", name, err)
	}
	return binary.BigEndian.Uint64(b[:])
}

// loadTB lets the load, which is no test, use the helpers of one.
type loadTB struct{}

func (loadTB) Helper()                     {}
func (loadTB) Cleanup(func())              {}
func (loadTB) Fatal(a ...any)              { fmt.Fprintln(os.Stderr, a...); os.Exit(3) }
func (loadTB) Fatalf(f string, a ...any)   { fmt.Fprintf(os.Stderr, f+"\n", a...); os.Exit(3) }
func (l loadTB) Errorf(f string, a ...any) { l.Fatalf(f, a...) }

// powerCutLoad works on a store until it is killed, and says on standard output what it was told is durable. After the
// cut everything fails: then it waits to be killed.
func powerCutLoad(dir string) {
	s, err := Open(dir, Options{Create: true, FlushInterval: 30 * time.Millisecond})
	if err != nil {
		loadTB{}.Fatal(err)
	}
	const files = 6
	say := func(format string, args ...any) { os.Stdout.WriteString(fmt.Sprintf(format, args...) + "\n") }
	seq := uint64(time.Now().UnixNano())
	for i := 0; ; i++ {
		if err := powerCutStep(s, fmt.Sprint("f", rand.IntN(files)), i, &seq, say); err != nil {
			time.Sleep(time.Hour)
		}
	}
}

func powerCutStep(s *Store, name string, i int, seq *uint64, say func(string, ...any)) error {
	l := s.Live()
	a, err := l.Lookup(Root, name)
	if err != nil {
		if a, err = l.Create(Root, name, Spec{Mode: syscall.S_IFREG | 0o644}); err != nil {
			return err
		}
	}
	h, err := l.OpenFile(a.Ino)
	if err != nil {
		return err
	}
	defer h.Close()
	*seq++
	page := make([]byte, cow.PageSize*(1+rand.IntN(8)))
	binary.BigEndian.PutUint64(page, *seq)
	for k := 16; k < len(page); k++ {
		page[k] = byte(*seq)
	}
	if _, err := h.WriteAt(page, int64(rand.IntN(60))*cow.PageSize, false); err != nil {
		return err
	}
	if _, err := h.WriteAt(page[:8], 0, false); err != nil {
		return err
	}
	if rand.IntN(6) == 0 {
		if _, err := l.SetAttr(a.Ino, Change{Set: SetSize, Size: int64(8 + rand.IntN(50*cow.PageSize))}); err != nil {
			return err
		}
	}
	if rand.IntN(3) == 0 {
		if err := h.Sync(rand.IntN(2) == 0); err != nil {
			return err
		}
		say("synced %s %d", name, *seq)
	}
	if rand.IntN(12) == 0 { // replaced by a new file, as editors do
		if err := h.Sync(false); err != nil {
			return err
		}
		if err := l.Rename(Root, name, Root, "old", 0); err != nil {
			return err
		}
		if err := l.Rename(Root, "old", Root, name, 0); err != nil {
			return err
		}
	}
	if rand.IntN(10) == 0 {
		return powerCutSnapshot(s, *seq, say)
	}
	return nil
}

func powerCutSnapshot(s *Store, seq uint64, say func(string, ...any)) error {
	name := fmt.Sprint("s", seq)
	hash := hashOf(dump(loadTB{}, s.Live()))
	if _, err := s.Snapshot(Request{Name: name}); err != nil {
		return err
	}
	say("snapshot %s %s", name, hash)
	entries := s.snaps.entries()
	if len(entries) < 5 {
		return nil
	}
	old := entries[rand.IntN(len(entries))].rec.Name
	say("deleting %s", old)
	if _, err := s.Delete([]string{old}, false, nil); err != nil {
		return err
	}
	say("deleted %s", old)
	return nil
}

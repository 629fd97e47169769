package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
	"github.com/snapfs/snapfs/snapshot/powercut"
)

// What makes this test program a load on a mount: see powercut.Run.
const (
	loadPoint   = "SNAPFS_TEST_LOAD_POINT"
	loadStore   = "SNAPFS_TEST_LOAD_STORE"
	loadJournal = "SNAPFS_TEST_LOAD_JOURNAL"
	loadFirst   = "SNAPFS_TEST_LOAD_FIRST"
)

// loadMount works on a mount until it is killed.
func loadMount() {
	j, err := powercut.OpenJournal(os.Getenv(loadJournal))
	if err != nil {
		panic(err)
	}
	first, err := strconv.ParseInt(os.Getenv(loadFirst), 10, 64)
	if err == nil {
		err = os.Chdir(os.Getenv(loadPoint)) // so that it does not work on what is below when the mount is gone
	}
	if err == nil {
		err = powercut.Run(&mountTree{Dir: ".", store: os.Getenv(loadStore)}, j, first)
	}
	j.End(err)
}

// mountTree is a mount as a tree of package powercut.
type mountTree struct {
	powercut.Dir
	store string
}

func (m *mountTree) Snapshot(name string, frozen func()) error {
	ctx := context.Background()
	c, err := control.Dial(ctx, m.store)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Snapshot(ctx, control.SnapshotRequest{Name: name, NoWait: true}, nil); err != nil {
		return err
	}
	frozen()
	for {
		infos, err := c.List(ctx)
		if err != nil {
			return err
		}
		state := snapshot.State("")
		for _, i := range infos {
			if i.Name == name {
				state = i.State
			}
		}
		switch state {
		case snapshot.Durable:
			return nil
		case "":
			return powercut.ErrNoSnapshot
		}
		time.Sleep(time.Millisecond)
	}
}

func (m *mountTree) frozen(name string) powercut.Dir {
	return powercut.Dir(filepath.Join(string(m.Dir), ".snapshots", name))
}

func (m *mountTree) Delete(name string) error { return unix.Rmdir(string(m.frozen(name))) }

func (m *mountTree) Snapshots() (names []string, err error) {
	entries, err := os.ReadDir(string(m.frozen("")))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (m *mountTree) Hash(name string) (string, error) {
	if name == "" {
		return m.Digest()
	}
	return m.frozen(name).Digest()
}

// killWorld is a mount that something happens to while a load works on it.
type killWorld struct {
	place
	t       *testing.T
	journal string
	ledger  *powercut.Ledger
	round   int
}

func newKillWorld(t *testing.T) *killWorld {
	w := &killWorld{place: newPlace(t), t: t, ledger: powercut.NewLedger()}
	w.journal = filepath.Join(w.dir, "journal")
	return w
}

func (w *killWorld) need(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("round %d: %v", w.round, err)
	}
}

// up mounts. It may say that it waits for an orphaned writer.
func (w *killWorld) up() {
	w.t.Helper()
	if r := snapfs(w.t, "mount", w.store, w.point, "-o", "flush_interval=50ms"); r.code != control.Done {
		w.t.Fatalf("round %d: mount: %s", w.round, r.stderr)
	}
}

// load starts a load and lets it work for a while.
func (w *killWorld) load() *powercut.Process {
	w.t.Helper()
	cmd := command()
	cmd.Env = append(os.Environ(), loadPoint+"="+w.point, loadStore+"="+w.store, loadJournal+"="+w.journal, fmt.Sprintf("%s=%d", loadFirst, w.round*1_000_000))
	p, err := powercut.Start(cmd, w.journal)
	w.need(err)
	w.t.Cleanup(p.Kill)
	w.need(p.Until(func(j string) bool { return strings.Contains(j, "ready\n") }))
	least := rand.IntN(300)
	w.need(p.Until(func(j string) bool { return strings.Count(j, "\n") > least }))
	return p
}

// verify compares what the mount shows with what was promised.
func (w *killWorld) verify() {
	w.t.Helper()
	w.need(w.ledger.Verify(&mountTree{Dir: powercut.Dir(w.point), store: w.store}))
	snapfs(w.t, "check", w.store).ok()
}

// settle waits for the snapshots that the load had begun: one whose writer was killed goes away.
func (w *killWorld) settle() {
	w.t.Helper()
	eventually(w.t, "the end of every snapshot", func() bool {
		infos := lines[snapshot.Info](w.t, snapfs(w.t, "list", "--json", w.point).ok())
		return !slices.ContainsFunc(infos, func(i snapshot.Info) bool { return i.State != snapshot.Durable })
	})
}

// rounds returns how many rounds a test makes: few, or what the environment says.
func rounds(few int) int {
	if n, err := strconv.Atoi(os.Getenv("SNAPFS_POWERCUTS")); err == nil {
		return n
	}
	return few
}

// TestKills kills the daemon, the writers of its snapshots, or both, while a load is at work. After a killed daemon the next mount at
// the same place just works; what was promised is there. A killed writer costs its snapshot and nothing else (I7).
func TestKills(t *testing.T) {
	w := newKillWorld(t)
	w.up()
	for w.round = range rounds(6) {
		daemon := w.daemon(t)
		p := w.load()
		if w.round%3 > 0 {
			killWriters(daemon, 50*time.Millisecond)
		}
		if w.round%3 == 1 {
			w.need(p.Until(func(string) bool { return true })) // it goes on
			mark, err := p.Mark()
			w.need(err)
			p.Kill()
			w.need(p.Tell(w.ledger, mark))
			w.settle()
			w.verify()
			continue
		}
		mark, err := p.Mark()
		w.need(err)
		p.Kill() // first: else it may see its daemon die, and end by itself; what it has begun is under way in the daemon still
		syscall.Kill(daemon, syscall.SIGKILL)
		w.need(p.Tell(w.ledger, mark))
		w.up()
		w.verify()
	}
}

// killWriters kills every writer of a daemon for a while.
func killWriters(daemon int, long time.Duration) {
	for start := time.Now(); time.Since(start) < long; time.Sleep(time.Millisecond) {
		for _, pid := range writersOf(daemon) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// writersOf returns the writers of a daemon.
func writersOf(daemon int) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err == nil && commandOf(pid) == writerName && parentOf(pid) == daemon {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestSignalsAtWork ends the daemon by signals while a load is at work and snapshots are being written: it ends within seconds,
// and what was promised is there.
func TestSignalsAtWork(t *testing.T) {
	w := newKillWorld(t)
	for i, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		w.round = i
		w.up()
		daemon := w.daemon(t)
		p := w.load()
		mark, err := p.Mark()
		w.need(err)
		start := time.Now()
		syscall.Kill(daemon, sig)
		eventually(t, "the daemon's end", func() bool { return syscall.Kill(daemon, 0) != nil })
		t.Logf("%v: ended after %v", sig, time.Since(start).Round(time.Millisecond))
		if mounts := mountsAt(t, w.point); mounts != 0 {
			t.Errorf("%v: %d mounts left", sig, mounts)
		}
		if _, locked := lockHolder(w.store); locked {
			t.Errorf("%v: a writer is left", sig)
		}
		p.Kill()
		w.need(p.Tell(w.ledger, mark))
		w.up()
		w.verify()
		snapfs(t, "umount", w.point).ok()
	}
}

// TestPowerCutUnderDaemon cuts the power of the disk below a mount at work.
func TestPowerCutUnderDaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount images")
	}
	for _, kind := range powercut.Kinds() {
		if want := os.Getenv("SNAPFS_POWERCUT_FS"); !kind.Shutdown || want != "" && want != "all" && !strings.HasPrefix(kind.Name, want) {
			continue
		}
		t.Run(kind.Name, func(t *testing.T) {
			dir, err := os.MkdirTemp(inMemory(), "snapfs-disk-")
			if err != nil {
				t.Fatal(err)
			}
			disk, err := powercut.NewDisk(dir, kind, false)
			if err != nil {
				t.Fatal(err)
			}
			w := newKillWorld(t)
			w.store = filepath.Join(disk.Point, "store")
			t.Cleanup(func() {
				w.cleanUp(t)
				w.need(disk.Close())
			})
			w.up()
			for w.round = range rounds(2) {
				w.cutPower(disk)
				w.up()
				w.verify()
			}
		})
	}
}

// cutPower lets a load work, cuts the power of the disk, and kills everything.
func (w *killWorld) cutPower(disk *powercut.Disk) {
	w.t.Helper()
	daemon := w.daemon(w.t)
	p := w.load()
	mark, err := p.Mark()
	w.need(err)
	w.need(disk.Cut())
	syscall.Kill(daemon, syscall.SIGKILL)
	abortAt(w.t, w.point) // the daemon, and so the load, may be one that cannot die; without its disk the store tells nobody who has its lock
	p.Kill()
	w.need(p.Tell(w.ledger, mark))
	w.need(ignoreInvalid(detach(w.point)))
	w.need(disk.Unmount())
	w.need(disk.Mount())
}

func ignoreInvalid(err error) error {
	if errors.Is(err, syscall.EINVAL) { // not mounted any more
		return nil
	}
	return err
}

// inMemory returns a directory for disks: in memory, where that is to be had.
func inMemory() string {
	if _, err := os.Stat("/dev/shm"); err == nil {
		return "/dev/shm"
	}
	return ""
}

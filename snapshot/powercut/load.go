package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoSnapshot is what a Tree says of a snapshot that failed, and that may fail: its writer is killed now and then.
var ErrNoSnapshot = errors.New("no snapshot was taken")

// load is work on a tree, by several at once.
type load struct {
	t Tree
	j *Journal
	n atomic.Int64 // operations

	still sync.RWMutex // held exclusively while a digest is made and the tree frozen, shared by every change

	mu    sync.Mutex
	snaps []string // durable ones. GUARDED_BY mu
}

// Run works on t until an operation fails, and returns why. first is greater than the numbers of all operations before.
func Run(t Tree, j *Journal, first int64) error {
	l := &load{t: t, j: j}
	l.n.Store(first)
	var err error
	if l.snaps, err = t.Snapshots(); err != nil {
		return err
	}
	j.Say("ready")
	ended := make(chan error)
	work := func(step func() error) {
		go func() {
			for {
				if err := step(); err != nil {
					ended <- err
				}
			}
		}()
	}
	for i := range 3 {
		files := []string{fmt.Sprint("file", 2*i), fmt.Sprint("file", 2*i+1)}
		work(func() error { return l.overwrite(files[rand.IntN(2)]) })
	}
	work(func() error { return l.replace(fmt.Sprint("whole", rand.IntN(3))) })
	links, err := t.Links()
	if err != nil {
		return err
	}
	work(func() error { return l.move(links) })
	work(l.snapshot)
	work(l.snapshot)
	return <-ended
}

const page = 4096

// overwrite changes a file, and sometimes syncs it.
func (l *load) overwrite(name string) error {
	l.still.RLock()
	defer l.still.RUnlock()
	n := l.n.Add(1)
	var err error
	switch rand.IntN(8) {
	case 0:
		size := rand.Int64N(60 * page)
		if rand.IntN(8) == 0 {
			size = 0
		}
		l.j.Say("op %s %d truncate %d", name, n, size)
		err = l.t.Truncate(name, size)
	default:
		off, size := rand.Int64N(60)*page, (1+rand.IntN(8))*page
		if rand.IntN(2) == 0 { // parts of pages
			off, size = off+rand.Int64N(8)*sector, 1+rand.IntN(3*page)
			size = (size + sector - 1) / sector * sector
		}
		l.j.Say("op %s %d write %d %d", name, n, off, size)
		err = l.t.Write(name, fill(int(n), size), off)
	}
	if err == nil && rand.IntN(4) == 0 {
		if err = l.t.Sync(name, rand.IntN(2) == 0); err == nil {
			l.j.Say("synced %s %d", name, n)
		}
	}
	return err
}

// replace puts a new file in the place of an old one, as editors do.
func (l *load) replace(name string) error {
	l.still.RLock()
	defer l.still.RUnlock()
	n, size := int(l.n.Add(1)), 1+rand.IntN(10*page)
	l.j.Say("replace %s %d %d", name, n, size)
	err := l.t.Truncate(name+"~", 0) // a cut may have left one
	if err == nil {
		err = l.t.Write(name+"~", fill(n, size), 0)
	}
	if err == nil {
		err = l.t.Sync(name+"~", false)
	}
	if err == nil {
		err = l.t.Rename(name+"~", name)
	}
	if err == nil && rand.IntN(2) == 0 {
		if err = l.t.SyncNames(); err == nil {
			l.j.Say("replaced %s %d", name, n)
		}
	}
	return err
}

// move makes, renames and removes names, of which links are there.
func (l *load) move(links map[string]string) error {
	l.still.RLock()
	defer l.still.RUnlock()
	n, from, to := l.n.Add(1), fmt.Sprint("link", rand.IntN(12)), fmt.Sprint("link", rand.IntN(12))
	_, there := links[from]
	var err error
	switch {
	case !there:
		l.j.Say("name %d link %s %d", n, from, n)
		err = l.t.Link(from, fmt.Sprint(n))
		links[from] = fmt.Sprint(n)
	case rand.IntN(4) == 0:
		l.j.Say("name %d unlink %s", n, from)
		err = l.t.Unlink(from)
		delete(links, from)
	case from != to:
		l.j.Say("name %d rename %s %s", n, from, to)
		err = l.t.Rename(from, to)
		links[to] = links[from]
		delete(links, from)
	}
	if err == nil && rand.IntN(10) == 0 {
		if err = l.t.SyncNames(); err == nil {
			l.j.Say("named %d", n)
		}
	}
	return err
}

// mostSnapshots is how many there are before one is deleted for each that is taken.
const mostSnapshots = 6

// snapshot takes a snapshot, and deletes one where there are many. The others stand still until it is frozen, not longer.
func (l *load) snapshot() error {
	time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
	name := fmt.Sprint("snap", l.n.Add(1))
	l.still.Lock()
	frozen := sync.OnceFunc(l.still.Unlock)
	defer frozen()
	hash, err := l.t.Hash("")
	if err != nil {
		return err
	}
	l.j.Say("snap %s %s", name, hash)
	err = l.t.Snapshot(name, frozen)
	if errors.Is(err, ErrNoSnapshot) {
		return nil
	}
	if err != nil {
		return err
	}
	l.j.Say("snapped %s", name)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snaps = append(l.snaps, name)
	if len(l.snaps) <= mostSnapshots {
		return nil
	}
	i := rand.IntN(len(l.snaps))
	old := l.snaps[i]
	l.snaps = append(l.snaps[:i:i], l.snaps[i+1:]...)
	l.j.Say("delete %s", old)
	if err := l.t.Delete(old); err != nil {
		return errors.Join(fmt.Errorf("delete %s", old), err)
	}
	l.j.Say("deleted %s", old)
	return nil
}

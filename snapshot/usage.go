package snapshot

import (
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// usage measures the disk space of a store, in the background: a store of a million files takes seconds.
type usage struct {
	mu       sync.Mutex
	last     int64         // GUARDED_BY mu
	at       time.Time     // when that was; zero: it was not measured yet. GUARDED_BY mu
	underWay chan struct{} // closed when the measurement under way is done; nil if none is. GUARDED_BY mu
	found    atomic.Int64  // what that has found so far
}

const (
	usageAge  = 10 * time.Second       // an older figure is measured anew
	usageWait = 300 * time.Millisecond // how long a caller waits for that
	firstWait = 5 * time.Second        // and for the first figures after the store was opened
)

// bytes returns the disk space of dir, as of at most some seconds ago where it is small. The first caller waits for it; where it takes longer
// than firstWait he gets what was found until then: too little, but not nothing.
func (u *usage) bytes(dir string) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.at) < usageAge {
		return u.last
	}
	if u.underWay == nil {
		u.underWay = make(chan struct{})
		u.found.Store(0)
		go u.measure(dir, u.underWay)
	}
	done, wait := u.underWay, usageWait
	if u.at.IsZero() {
		wait = firstWait
	}
	u.mu.Unlock()
	select {
	case <-done:
	case <-time.After(wait):
	}
	u.mu.Lock()
	if u.at.IsZero() {
		return u.found.Load()
	}
	return u.last
}

// measure adds up the blocks of every file below dir. What vanishes meanwhile does not count.
func (u *usage) measure(dir string, done chan<- struct{}) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			u.found.Add(st.Blocks * 512)
		}
		return nil
	})
	u.mu.Lock()
	u.last, u.at, u.underWay = u.found.Load(), time.Now(), nil
	u.mu.Unlock()
	close(done)
}

package snapshot

import (
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// usage measures the disk space of a store, in the background: a store of a million files takes seconds.
type usage struct {
	mu       sync.Mutex
	last     int64
	at       time.Time
	underWay chan struct{} // closed when the measurement under way is done; nil if none is
}

const (
	usageAge  = 10 * time.Second       // an older figure is measured anew
	usageWait = 300 * time.Millisecond // how long a caller waits for that
)

// bytes returns the disk space of dir, as of at most some seconds ago where it is small.
func (u *usage) bytes(dir string) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.at) < usageAge {
		return u.last
	}
	if u.underWay == nil {
		done := make(chan struct{})
		u.underWay = done
		go func() {
			n := diskUsage(dir)
			u.mu.Lock()
			u.last, u.at, u.underWay = n, time.Now(), nil
			u.mu.Unlock()
			close(done)
		}()
	}
	done := u.underWay
	u.mu.Unlock()
	select {
	case <-done:
	case <-time.After(usageWait):
	}
	u.mu.Lock()
	return u.last
}

// diskUsage adds up the blocks of every file below dir. What vanishes meanwhile does not count.
func diskUsage(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			total += st.Blocks * 512
		}
		return nil
	})
	return total
}

package snapshot

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// spare keeps a part of the disk free for the metadata store, which must be able to write its log and its tables at any time:
// a full disk would end it (I11), and with it every deletion that could give space back. Changes that take space ask for
// it; those that give it back do not.
type spare struct {
	dir  string
	left atomic.Int64 // bytes that may be taken before the disk is looked at again
	mu   sync.Mutex   // one look at a time
}

// How much stays free: what Pebble may need at once (its memtables, twice), on a small disk a sixteenth of it.
const (
	spareBytes    = 32 << 20
	sparePart     = 16
	mostAllowance = 64 << 20
)

// entryBytes is what a new name may take in the metadata store.
const entryBytes = 4096

// take allows a change to use n bytes, or says ENOSPC.
func (s *spare) take(n int64) error {
	if s == nil || s.left.Add(-n) >= 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	free, keep, err := diskRoom(s.dir)
	if err != nil {
		return err
	}
	if free-keep < n {
		s.left.Store(0)
		return unix.ENOSPC
	}
	// Others use the disk, too, and what was allowed is not on it at once.
	s.left.Store(min((free-keep-n)/4, mostAllowance))
	return nil
}

// diskRoom returns the bytes that are free for us on the file system of dir, and how many of them are to stay so.
func diskRoom(dir string) (free, keep int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 {
		blocks = st.Bfree
	}
	return int64(blocks) * st.Bsize, min(spareBytes, int64(st.Blocks)*st.Bsize/sparePart), nil
}

// openBytes is what must be free for a store to be opened: the metadata store may have to write tables first, and would try
// for ever.
const openBytes = 1 << 20

// canOpen returns ENOSPC where the disk is too full to open a store on.
func canOpen(dir string) error {
	free, _, err := diskRoom(dir)
	if err != nil {
		return err
	}
	if free < openBytes {
		return fmt.Errorf("the disk has %d KiB left, and opening the store takes up to %d: free some space: %w", free>>10, openBytes>>10, unix.ENOSPC)
	}
	return nil
}

package snapshot

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// How much stays free, as a part of the ballast (and what the ballast lacks), and how much may be taken before the disk is looked at
// again.
const (
	sparePart     = 4
	mostAllowance = 64 << 20
)

// What a new name, and a snapshot, may take in the metadata store and the undo log at once.
const (
	entryBytes    = 4096
	snapshotBytes = 64 << 10
)

// take allows a change to use n bytes, or says ENOSPC: changes that take space meet a full disk before it is one, so that those that
// give space back, which do not ask, work as ever, and as a rule do not need the ballast.
func (b *ballast) take(n int64) error {
	if b == nil || b.left.Add(-n) >= 0 {
		return nil
	}
	return b.look(n)
}

// look is take that looks at the disk.
func (b *ballast) look(n int64) error {
	if b == nil {
		return nil
	}
	_ = b.refill()
	disk, err := diskOf(b.dir)
	if err != nil {
		return err
	}
	room := disk.free - b.most/sparePart - b.missing()
	if room < n {
		b.left.Store(0)
		return unix.ENOSPC
	}
	// Others use the disk, too, and what was allowed is not on it at once.
	b.left.Store(min((room-n)/4, mostAllowance))
	return nil
}

// openBytes is what must be free for a store to be opened.
const openBytes = 1 << 20

// canOpen returns ENOSPC where the disk is too full to open a store on, also without ballast.
func (b *ballast) canOpen() error {
	disk, err := diskOf(b.dir)
	if err != nil {
		return err
	}
	if free := disk.free + b.held.Load(); free < openBytes {
		return fmt.Errorf("the disk has %d KiB left, and opening the store takes up to %d: free some space: %w", free>>10, openBytes>>10, unix.ENOSPC)
	}
	return nil
}

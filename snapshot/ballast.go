package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ballast is room on the disk that the file STORE/ballast holds, for the metadata store: others can fill the disk to the last block,
// and still it writes its log and its tables, deletions above all. What it met ENOSPC with is given to it (release); what is missing
// is reserved again when there is room (refill). Below half of it no change is begun any more (admit), so that what Pebble still has
// to do finds its room.
//
// The file has no content. It is made anew where it is missing.
type ballast struct {
	dir  string
	most int64 // bytes that it holds if it can; 0 where the file system does not reserve room
	held atomic.Int64
	left atomic.Int64 // bytes that may be taken before it is looked at again; none, once the disk turned out to be full

	mu     sync.Mutex
	file   *os.File
	looked time.Time // when room was last looked for. GUARDED_BY mu
}

const (
	ballastFile  = "ballast"
	mostBallast  = 32 << 20 // twice what Pebble keeps in memory and must be able to write
	ballastPart  = 16       // but no more than this part of the disk
	leastRefill  = 256 << 10
	leaveFree    = 1 << 20 // of the disk; what is free beyond it is for the ballast first
	refillPeriod = 100 * time.Millisecond
)

// openBallast opens the ballast of the store in dir. It may hold less than it should.
func openBallast(dir string) (*ballast, error) {
	disk, err := diskOf(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, ballastFile)
	f, err := openPlain(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	b := &ballast{dir: dir, file: f, most: min(mostBallast, disk.size/ballastPart) &^ (leastRefill - 1)}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		_ = f.Close()
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	b.held.Store(min(st.Size, st.Blocks*512))
	if b.held.Load() > b.most {
		b.shrink(b.most)
	}
	if err := b.refill(); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		b.most = 0
	}
	return b, nil
}

// missing returns the bytes that the ballast should hold and does not.
func (b *ballast) missing() int64 { return b.most - b.held.Load() }

// release gives up n bytes, or all that is left, for a write that found no room; false if nothing is left.
func (b *ballast) release(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left.Store(0)
	held := b.held.Load()
	return held > 0 && b.shrink(max(0, held-n))
}

// shrink gives up what is held beyond n bytes. REQUIRES mu, or that nobody else has b yet.
func (b *ballast) shrink(n int64) bool {
	if b.file.Truncate(n) != nil {
		return false
	}
	b.held.Store(n)
	return true
}

// admit returns ENOSPC while half of the ballast is missing.
func (b *ballast) admit() error {
	if b.held.Load() >= b.most/2 {
		return nil
	}
	_ = b.refill()
	if b.held.Load() >= b.most/2 {
		return nil
	}
	return fmt.Errorf("the disk is full, and so is what was kept back for changes that give room back: %w", unix.ENOSPC)
}

// refill reserves what is missing as far as there is room. That it fails is seen by what is held.
func (b *ballast) refill() error {
	if b.missing() <= 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.looked) < refillPeriod {
		return nil
	}
	b.looked = time.Now()
	disk, err := diskOf(b.dir)
	if err != nil {
		return err
	}
	held := b.held.Load()
	n := min(b.most-held, disk.free-leaveFree)
	if n < min(leastRefill, b.most-held) {
		return nil
	}
	if err = unix.Fallocate(int(b.file.Fd()), 0, held, n); err == nil {
		b.held.Store(held + n)
	}
	return err
}

func (b *ballast) close() { _ = b.file.Close() }

// disk is what a file system has, in bytes. free is what we may use of it.
type disk struct{ size, free int64 }

func diskOf(dir string) (disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return disk{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 {
		blocks = max(blocks, st.Bfree-min(st.Bfree, keptByFS(&st)))
	}
	return disk{size: int64(st.Blocks) * st.Bsize, free: int64(blocks) * st.Bsize}, nil
}

// keptByFS returns the blocks that count as free and that root cannot have either: ext4 keeps the smaller of 4096 and a fiftieth
// for itself (fs/ext4/super.c, ext4_set_resv_clusters).
func keptByFS(st *unix.Statfs_t) uint64 {
	if st.Type == unix.EXT4_SUPER_MAGIC {
		return min(4096, st.Blocks/50)
	}
	return 0
}

package cow

import (
	"container/list"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// baseFiles is the directory base/: one file per content, fanned out over 256 directories, and a bounded cache of open
// descriptors. Hard limits cannot be raised everywhere, so 100,000 open files do with a few hundred descriptors.
type baseFiles struct {
	dir  int // descriptor of base/
	hook func(Op) error
	most int

	clones bool // files may share blocks, which FALLOC_FL_UNSHARE_RANGE ends

	mu   sync.Mutex
	open map[ID]*baseFile // GUARDED_BY mu
	idle *list.List       // of *baseFile with users == 0, least recently used first. GUARDED_BY mu

	dirs [256]int // descriptors of the fan-out directories, -1 until used. GUARDED_BY mu
}

// baseFile is an open base file. It stays open while it has users.
type baseFile struct {
	id    ID
	fd    int
	users int
	idle  *list.Element
}

func openBaseFiles(store int, most int, hook func(Op) error) (*baseFiles, error) {
	dir, err := makeDir(store, "base")
	if err != nil {
		return nil, err
	}
	b := &baseFiles{dir: dir, hook: hook, most: most, open: map[ID]*baseFile{}, idle: list.New()}
	for i := range b.dirs {
		b.dirs[i] = -1
	}
	var st unix.Statfs_t
	b.clones = unix.Fstatfs(dir, &st) == nil && st.Type == unix.XFS_SUPER_MAGIC
	if err := b.vet(); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// allocate gives a part of a base file blocks of its own. Where the file system does not do that, it is not done: btrfs writes to
// new blocks in any case.
func (b *baseFiles) allocate(fd int, off, n int64) error {
	modes := []uint32{unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_UNSHARE_RANGE, unix.FALLOC_FL_KEEP_SIZE}
	if !b.clones {
		modes = modes[1:]
	}
	for _, mode := range modes {
		err := ignoringEINTR(func() error { return unix.Fallocate(fd, mode, off, n) })
		if !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

// vet refuses a base/ whose fan-out directories are none: by a symbolic link the writers' plans and unlink(2) would reach files outside
// the store. From now on nobody but this process changes them (I9).
func (b *baseFiles) vet() error {
	for i := range b.dirs {
		name := fmt.Sprintf("%02x", i)
		var st unix.Stat_t
		err := unix.Fstatat(b.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = fmt.Errorf("not a directory: %w", ErrDamaged)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "open", Path: "base/" + name, Err: err}
		}
	}
	return nil
}

// fanOut returns the directory number of a content.
func fanOut(id ID) int { return int(id % 256) }

// BasePath returns the path of a content's base file in the store.
func BasePath(id ID) string { return "base/" + basePath(id) }

// basePath returns the path of a content's base file below base/.
func basePath(id ID) string { return fmt.Sprintf("%02x/%d", fanOut(id), id) }

// subdir returns the descriptor of the fan-out directory i.
func (b *baseFiles) subdir(i int) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dirs[i] >= 0 {
		return b.dirs[i], nil
	}
	name := fmt.Sprintf("%02x", i)
	err := unix.Mkdirat(b.dir, name, 0o700)
	if err == nil {
		// Durable at once, so that syncing a file's own directory is enough for the file's name.
		err = unix.Fsync(b.dir)
	} else if errors.Is(err, unix.EEXIST) {
		err = nil
	}
	var fd int
	if err == nil {
		fd, err = openat(b.dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open directory", Path: "base/" + name, Err: err}
	}
	b.dirs[i] = fd
	return fd, nil
}

// names lists the fan-out directory i, which need not be there.
func (b *baseFiles) names(i int) ([]string, error) {
	name := fmt.Sprintf("%02x", i)
	fd, err := openat(b.dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open directory", Path: "base/" + name, Err: err}
	}
	defer unix.Close(fd)
	return listDir(fd)
}

// acquire opens the base file of id, or takes it from the cache; with create it makes a new one. Each acquire needs its release.
func (b *baseFiles) acquire(id ID, create bool) (*baseFile, error) {
	b.mu.Lock()
	if f := b.open[id]; f != nil {
		if f.users == 0 {
			b.idle.Remove(f.idle)
		}
		f.users++
		b.mu.Unlock()
		return f, nil
	}
	b.mu.Unlock()
	flags := unix.O_RDWR
	if create {
		flags |= unix.O_CREAT | unix.O_EXCL
		if _, err := b.subdir(fanOut(id)); err != nil {
			return nil, err
		}
	}
	fd, err := openat(b.dir, basePath(id), flags, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "base/" + basePath(id), Err: err}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.open[id]; f != nil { // somebody else was faster
		_ = unix.Close(fd)
		if f.users == 0 {
			b.idle.Remove(f.idle)
		}
		f.users++
		return f, nil
	}
	f := &baseFile{id: id, fd: fd, users: 1}
	b.open[id] = f
	b.shrink(b.most)
	return f, nil
}

func (b *baseFiles) release(f *baseFile) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f.users--
	if f.users == 0 {
		f.idle = b.idle.PushBack(f)
		b.shrink(b.most)
	}
}

// shrink closes idle files, the least recently used first, until at most most are open. REQUIRES mu.
func (b *baseFiles) shrink(most int) {
	for len(b.open) > most && b.idle.Len() > 0 {
		f := b.idle.Remove(b.idle.Front()).(*baseFile)
		delete(b.open, f.id)
		_ = unix.Close(f.fd)
	}
}

// use calls f with the descriptor of id's base file.
func (b *baseFiles) use(id ID, f func(fd int) error) error {
	bf, err := b.acquire(id, false)
	if err != nil {
		return err
	}
	defer b.release(bf)
	return f(bf.fd)
}

// length returns the length of a base file, without keeping it open.
func (b *baseFiles) length(id ID) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(b.dir, basePath(id), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, &os.PathError{Op: "stat", Path: "base/" + basePath(id), Err: err}
	}
	return st.Size, nil
}

// syncDir makes the names in fan-out directory i durable.
func (b *baseFiles) syncDir(i int) error {
	fd, err := b.subdir(i)
	if err != nil {
		return err
	}
	if err := ignoringEINTR(func() error { return unix.Fsync(fd) }); err != nil {
		return &os.PathError{Op: "sync directory", Path: fmt.Sprintf("base/%02x", i), Err: err}
	}
	return nil
}

// remove deletes the base file of id; a missing one is no error.
func (b *baseFiles) remove(id ID) error {
	b.mu.Lock()
	if f := b.open[id]; f != nil && f.users == 0 {
		b.idle.Remove(f.idle)
		delete(b.open, id)
		_ = unix.Close(f.fd)
	}
	b.mu.Unlock()
	if err := unix.Unlinkat(b.dir, basePath(id), 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: "base/" + basePath(id), Err: err}
	}
	return nil
}

func (b *baseFiles) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shrink(0)
	for _, fd := range b.dirs {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	_ = unix.Close(b.dir)
}

package snapshot

import (
	"time"

	"github.com/snapfs/snapfs/cow"
)

// ---- types (snapshot/inode.go, snapshot/view.go) ----

// Ino is an inode number: never reused, below 1<<40. Root is the root directory of every view.
type Ino uint64

const Root Ino = 1

// Time is a POSIX timestamp.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Attr is what stat(2) says of an inode. Mode holds the file type too. Blocks counts 512 bytes.
type Attr struct {
	Ino                        Ino
	Mode, Nlink, UID, GID      uint32
	Rdev                       uint32
	Size, Blocks               int64
	Atime, Mtime, Ctime, Btime Time
}

// Dirent is one directory entry. Cookie orders the entries of a directory, is stable while names come and go,
// and is >= 16 and < 1<<63.
type Dirent struct {
	Name   string
	Ino    Ino
	Type   uint32 // S_IFMT bits
	Cookie uint64
}

// View is a readable tree: the live one (*Live), or one frozen epoch (*Frozen). Errors wrap a syscall.Errno where the
// cause is the caller's (ENOENT, ENOTDIR, ENODATA, ...).
type View interface {
	Lookup(parent Ino, name string) (Attr, error)
	Stat(ino Ino) (Attr, error)
	Parent(dir Ino) (Ino, error)
	// ReadDir calls visit for entries with Cookie > after, in cookie order, without "." and "..", until it returns false.
	ReadDir(dir Ino, after uint64, visit func(Dirent) bool) error
	Readlink(ino Ino) (string, error)
	Xattr(ino Ino, name string) ([]byte, error)
	Xattrs(ino Ino) ([]string, error)
	// Open opens the bytes of a regular file for reading.
	Open(ino Ino) (Content, error)
}

// Content is an open file of a view.
type Content interface {
	ReadAt(b []byte, off int64) (int, error) // as io.ReaderAt
	SeekExtent(off int64, hole bool) (int64, error)
	Size() int64
	Close() error
}

// ---- the live tree (snapshot/live*.go) ----

// Spec describes an inode to be made. Mode holds the file type; umask has been applied.
type Spec struct {
	Mode, UID, GID, Rdev uint32
	Target               string // of a symlink
}

// Change is a setattr request; only the fields named in Set are changed. Ctime is updated by the callee.
type Change struct {
	Set          ChangeSet
	Mode         uint32 // permission bits, 07777
	UID, GID     uint32
	Size         int64
	Atime, Mtime Time
	KillPriv     bool // clear suid and (if group-executable) sgid
}

type ChangeSet uint32

const (
	SetMode ChangeSet = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetAtimeNow
	SetMtime
	SetMtimeNow
)

type Live struct{} // also implements View

func (l *Live) Create(parent Ino, name string, spec Spec) (Attr, error)       { panic("stub") } // any file type
func (l *Live) Link(ino, parent Ino, name string) (Attr, error)               { panic("stub") }
func (l *Live) Unlink(parent Ino, name string) error                          { panic("stub") }
func (l *Live) Rmdir(parent Ino, name string) error                           { panic("stub") }
func (l *Live) Rename(op Ino, on string, np Ino, nn string, flags uint) error { panic("stub") } // RENAME_NOREPLACE, RENAME_EXCHANGE; others EINVAL
func (l *Live) SetAttr(ino Ino, c Change) (Attr, error)                       { panic("stub") }
func (l *Live) SetXattr(ino Ino, name string, value []byte, flags uint) error { panic("stub") } // XATTR_CREATE, XATTR_REPLACE
func (l *Live) RemoveXattr(ino Ino, name string) error                        { panic("stub") }

// OpenFile opens a regular file for reading and writing (the kernel has checked the rights).
func (l *Live) OpenFile(ino Ino) (*Handle, error) { panic("stub") }

// Forget says that the kernel no longer knows the inode: an unlinked, closed one is dropped now.
func (l *Live) Forget(ino Ino) {}

// Sync makes every namespace change made so far durable (fsync of a directory).
func (l *Live) Sync() error { panic("stub") }

// Handle is an open live file; implements Content.
type Handle struct{}

func (h *Handle) WriteAt(data []byte, off int64, killPriv bool) (int, error) { panic("stub") }

// Fallocate takes the mode of fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; else EOPNOTSUPP.
func (h *Handle) Fallocate(mode uint32, off, n int64, killPriv bool) error { panic("stub") }

// CopyFrom copies up to n bytes from src (a Handle or a frozen Content) and returns how many.
func (h *Handle) CopyFrom(src Content, srcOff, off, n int64) (int64, error) { panic("stub") }

// Sync is fsync(2), or fdatasync(2) if dataOnly.
func (h *Handle) Sync(dataOnly bool) error { panic("stub") }

// ---- the store (snapshot/store.go, commit.go, delete.go, check.go) ----

type Options struct {
	DirtyLimit    int64
	FlushInterval time.Duration
	Create        bool        // make the store if the directory is missing or empty
	Report        func(error) // background failures
}

type Store struct{}

func Open(dir string, opt Options) (*Store, error) { panic("stub") }
func (s *Store) Close() error                      { panic("stub") }
func (s *Store) Live() *Live                       { panic("stub") }

// State of a snapshot.
type State string

const (
	Writing State = "writing"
	Durable State = "durable"
	Failed  State = "failed"
)

// Info describes one snapshot. Bytes is what only it holds (filled by List).
type Info struct {
	Name        string    `json:"name"`
	Epoch       cow.Epoch `json:"epoch"`
	Time        time.Time `json:"time"`
	State       State     `json:"state"`
	Held        bool      `json:"held"`
	Bytes       int64     `json:"bytes"`
	Description string    `json:"description"`
}

// Taken is the outcome of a snapshot command.
type Taken struct {
	Name          string    `json:"name"`
	Epoch         cow.Epoch `json:"epoch"`
	Time          time.Time `json:"time"`
	State         State     `json:"state"`
	FreezeUsec    int64     `json:"freeze_usec"`
	ForkUsec      int64     `json:"fork_usec"`
	CapturedBytes int64     `json:"captured_bytes"`
	Seconds       float64   `json:"seconds"`
}

// Request asks for a snapshot.
type Request struct {
	Name        string // "" means the default name, the time in UTC
	Description string
	NoWait      bool          // return once frozen; the commit goes on in the background
	Frozen      func(e Taken) // if set: called right after the freeze, before the bytes are durable; it is visible now
}

var (
	ErrExists  error // name exists; wraps EEXIST
	ErrUnknown error // no such snapshot; wraps ENOENT
	ErrName    error // invalid name; wraps EINVAL
	ErrHeld    error // held or busy; wraps EBUSY
	ErrClosing error // the store is going down; wraps ESHUTDOWN
	ErrDamaged error // the store is damaged
)

func (s *Store) Snapshot(r Request) (Taken, error)                     { panic("stub") }
func (s *Store) List() ([]Info, error)                                 { panic("stub") } // oldest first
func (s *Store) Find(name string) (Info, error)                        { panic("stub") } // cheap, no Bytes
func (s *Store) Rename(old, new string) error                          { panic("stub") }
func (s *Store) Delete(names []string, dryRun bool) ([]Deleted, error) { panic("stub") } // all or nothing for unknown names

// Deleted says what a deletion gave back (or would, for a dry run).
type Deleted struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// View returns the frozen tree of epoch e; Release must be called. While it is out, the snapshot's data stays, even if deleted.
func (s *Store) View(e cow.Epoch) (*Frozen, error) { panic("stub") }

type Frozen struct{} // implements View

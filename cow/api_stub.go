package cow

// Pool owns all live contents, the undo logs and the freeze.
type Pool struct{}

// OpenPool opens the base/ and undo/ directories below dir (made if missing) and recovers the undo logs.
func OpenPool(dir string, snaps []Epoch, current Epoch, opt Options) (*Pool, error) { panic("stub") }

// Enter takes the freeze gate shared and returns the current epoch. Every change of the namespace is made between
// Enter and Leave: memory work and unsynced metadata batches only, no disk I/O. Not reentrant (a waiting freeze would deadlock it).
func (p *Pool) Enter() Epoch { panic("stub") }

// Leave gives the gate back.
func (p *Pool) Leave() {}

// Current returns the current epoch (it may change at once unless the caller is between Enter and Leave).
func (p *Pool) Current() Epoch { panic("stub") }

// Create makes a new, empty content with the given, never used id (its base file).
func (p *Pool) Create(id ID) (*File, error) { panic("stub") }

// Open opens the live content id. size is its current length in bytes; reach the upper bound in bytes of what
// snapshots may read from its base file (as File.Reach said when the inode record was written, or at least the size
// the record had at the newest snapshot). mayBeLost: a missing base file is an empty one (it was never synced), else it is an error.
// Two Opens of one id share the state; each needs its Close.
func (p *Pool) Open(id ID, size, reach int64, mayBeLost bool) (*File, error) { panic("stub") }

// File is an open live content. Methods are safe for concurrent use; changes of one file are serialised.
//
// Methods that change the file take a function record: it is called exactly once, after the bytes are in place, while the
// freeze gate is held shared (as by Enter) in the given epoch, with the new size; it must persist what the
// namespace says of the file (size, reach) without disk I/O. If it fails the change fails.
type File struct{}

type Record func(epoch Epoch, size, reach int64) error

func (f *File) ID() ID      { panic("stub") }
func (f *File) Size() int64 { panic("stub") }

// Reach is the bound to be stored with the size.
func (f *File) Reach() int64 { panic("stub") }

// Blocks returns the 512-byte units that the base file occupies.
func (f *File) Blocks() (int64, error) { panic("stub") }

// ReadAt reads like io.ReaderAt: io.EOF only at the end of the file with n < len(b). A bad page is EIO.
func (f *File) ReadAt(b []byte, off int64) (int, error) { panic("stub") }

// WriteAt writes data at off, extending the file as needed.
func (f *File) WriteAt(data []byte, off int64, record Record) (int, error) { panic("stub") }

// Append-free truncation to size (up or down). The namespace gives the inode a new content instead where
// size is 0 and the content is not.
func (f *File) Truncate(size int64, record Record) error { panic("stub") }

// Allocate reserves disk space for [off, off+n); keepSize as FALLOC_FL_KEEP_SIZE.
func (f *File) Allocate(off, n int64, keepSize bool, record Record) error { panic("stub") }

// Zero makes [off, off+n) read as zeros; punch gives the space back, else it stays allocated. keepSize as above.
func (f *File) Zero(off, n int64, punch, keepSize bool, record Record) error { panic("stub") }

// SeekExtent finds the next data (hole=false) or hole (hole=true) at or after off, like SEEK_DATA and SEEK_HOLE; ENXIO past the end.
func (f *File) SeekExtent(off int64, hole bool) (int64, error) { panic("stub") }

// Sync makes the bytes durable (I5): flushes private pages and syncs the base file and its directory entry.
func (f *File) Sync() error { panic("stub") }

func (f *File) Close() error { panic("stub") }

// Frozen reads content id as it was at the freeze of snapshot s. size is its length then.
type Frozen struct{}

func (p *Pool) OpenFrozen(id ID, s Epoch, size int64) (*Frozen, error) { panic("stub") }
func (f *Frozen) ReadAt(b []byte, off int64) (int, error)              { panic("stub") }
func (f *Frozen) SeekExtent(off int64, hole bool) (int64, error)             { panic("stub") }
func (f *Frozen) Close() error                                         { panic("stub") }

// Remove deletes the base file and the undo places of a content that no view reads any more. A missing file is no error.
func (p *Pool) Remove(id ID) error { panic("stub") }


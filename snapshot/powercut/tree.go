package powercut

// Tree is what a load works on and a Ledger looks at: a directory that can be frozen. Names are flat; names of
// symbolic links are apart from those of files.
type Tree interface {
	// Write writes data at off of a file, Truncate gives it a length. Both make it if it is missing.
	Write(name string, data []byte, off int64) error
	Truncate(name string, size int64) error
	// Sync is fsync of a file, or, if dataOnly, fdatasync.
	Sync(name string, dataOnly bool) error
	// Link makes a symbolic link.
	Link(name, target string) error
	Rename(old, new string) error
	Unlink(name string) error
	// SyncNames is fsync of the directory.
	SyncNames() error
	// Snapshot takes a snapshot; it returns when that is durable, and calls frozen when the tree is frozen.
	Snapshot(name string, frozen func()) error
	Delete(snapshot string) error

	Reader
}

// Reader is the part of a Tree that changes nothing.
type Reader interface {
	// Read returns a file's bytes; an error that is fs.ErrNotExist if there is none.
	Read(name string) ([]byte, error)
	// Links returns the target of every symbolic link.
	Links() (map[string]string, error)
	Snapshots() ([]string, error)
	// Hash is a digest of everything that a snapshot, or for "" the live tree, shows.
	Hash(snapshot string) (string, error)
}

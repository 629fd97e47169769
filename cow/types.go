package cow

import "time"

// ID names a content: the bytes of one file version line. IDs are handed out in increasing order and never
// reused; 0 means "no content yet" (an empty file that was never written).
type ID uint64

// Epoch numbers the spans between snapshots. The live tree is in the current epoch; snapshot number e is the closed
// epoch e. The first epoch is 1; 0 means "none".
type Epoch uint64

// PageSize is the unit of copy-on-write, in bytes. The pool refuses to open where the system's page is another.
const PageSize = 4096

// MaxSize is the greatest length of a content in bytes, that of off_t. The store's file system may allow less (ext4: 16 TiB): a
// length is only recorded, so it says so, with EFBIG, when bytes are written there. The last page cannot be mapped, as the byte
// behind it has no offset: once a snapshot reads it from the base file it is written no more (EFBIG).
const MaxSize = 1<<63 - 1

// Place is where one overwritten page of a content is kept: in undo log Log, at Block.
type Place struct {
	ID    ID
	Page  uint64 // page number in the content
	Log   Epoch  // undo log that holds it; it serves every snapshot <= Log
	Block uint64 // offset in the log in units of PageSize; 0 if Zero
	CRC   uint32 // salted CRC-32C of the page; 0 if Zero
	Zero  bool   // the page was all zero: nothing is stored
}

// Index is the durable lookup structure of the undo logs. The logs are self-describing and are the truth; the
// index can be rebuilt from them. Implementations: package snapshot/meta (Pebble) and memIndex (tests).
// All methods are safe for concurrent use. Writes need not be synced: after a crash the pool reads each
// log again from Indexed(log) on.
type Index interface {
	// Add records places (all of one log) and, in the same atomic step, that the log is indexed up to offset upTo (bytes).
	Add(log Epoch, upTo int64, places []Place) error
	// Find calls visit for the places of content id with first <= Page <= last and Log >= from; among places of the
	// same page, the lower Log comes first. It stops early when visit returns false.
	Find(id ID, first, last uint64, from Epoch, visit func(Place) bool) error
	// Places calls visit for every place, in no order, until it returns false.
	Places(visit func(Place) bool) error
	// Indexed returns the offset in bytes up to which log is indexed, 0 if it is unknown.
	Indexed(log Epoch) (int64, error)
	// Remove forgets places (of any logs).
	Remove(places []Place) error
	// RemoveContent forgets every place of the content.
	RemoveContent(id ID) error
	// RemoveLog forgets Indexed(log). Its places have been removed before.
	RemoveLog(log Epoch) error
	// Length returns the known length of a content (see lengths.go), 0 if there is none.
	Length(id ID) (int64, error)
	// SetLengths records known lengths.
	SetLengths(lengths []Length) error
	// ForgetLengths forgets the known lengths of contents, which need not have one.
	ForgetLengths(ids []ID) error
	// Sync makes every earlier write durable, and what a Record was told before.
	Sync() error
}

// Options of a pool. The zero value of a field means its default.
type Options struct {
	Index         Index
	LockFD        int           // the store's lock, kept open by writers (I9); 0 means none
	DirtyLimit    int64         // most bytes of private pages (I12); default 256 MiB
	FlushInterval time.Duration // how often private pages are flushed in the background; default 1s, negative: never
	MaxFiles      int           // most base files kept open by the descriptor cache; default 256
	Report        func(error)   // told about failures in the background; may be nil
	Hook          func(Op) error
	NoFork        bool // run every capture's plan in process, as where fork is refused
}

// OpKind says what an Op does.
type OpKind string

// The operations that a Hook sees, each just before it is done, except Synced, which comes after a successful fsync
// of an undo log.
const (
	OpWriteBase  OpKind = "write base" // pwrite of [Off, Off+Len) of content ID's base file, by the daemon or by a writer's plan
	OpCopyBase   OpKind = "copy base"  // [Off, Off+Len) of content ID's base file is copied, or cloned, from another one
	OpPunchBase  OpKind = "punch base"
	OpTruncBase  OpKind = "truncate base"
	OpSyncBase   OpKind = "sync base"
	OpWriteUndo  OpKind = "write undo" // pwrite of [Off, Off+Len) of undo log Log
	OpSyncUndo   OpKind = "sync undo"
	OpSynced     OpKind = "undo synced" // undo log Log is durable up to Off
	OpRemoveUndo OpKind = "remove undo" // unlink of undo log Log
	OpReserve    OpKind = "reserve"     // fallocate of undo log Log or, behind a hole, of a base file
	OpFork       OpKind = "fork"
)

// Op is one disk operation, as a Hook sees it. A hook that returns an error makes the operation fail with it: fault
// injection, crash tests and the write-order test are hooks.
type Op struct {
	Kind     OpKind
	ID       ID
	Log      Epoch
	Off, Len int64
}

const (
	defaultDirtyLimit    = 256 << 20
	defaultFlushInterval = time.Second
	defaultMaxFiles      = 256
)

func (o *Options) setDefaults() {
	if o.DirtyLimit <= 0 {
		o.DirtyLimit = defaultDirtyLimit
	}
	if o.FlushInterval == 0 {
		o.FlushInterval = defaultFlushInterval
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = defaultMaxFiles
	}
	if o.Report == nil {
		o.Report = func(error) {}
	}
	if o.Hook == nil {
		o.Hook = func(Op) error { return nil }
	}
}

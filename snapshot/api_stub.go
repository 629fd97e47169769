package snapshot

import (
	"time"

	"github.com/snapfs/snapfs/cow"
)

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

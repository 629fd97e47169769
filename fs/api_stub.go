package fs

import "github.com/snapfs/snapfs/snapshot"

// Options of a mount.
type Options struct {
	MountPoint string
	StorePath  string // absolute; shown as the mount's source in /proc/mounts
	AllowOther bool
	ReadOnly   bool
	Visible    bool // list .snapshots in the root (snapdir=visible)
	Writeback  bool // let the kernel keep written data (writeback=on)
	Version    string
	Debug      bool
}

// Mount is a served file system.
type Mount struct{}

// New mounts store and starts serving it; it returns when the mount answers.
func New(store *snapshot.Store, opt Options) (*Mount, error) { panic("stub") }

// Wait returns when the mount is gone (unmounted by anybody) and every request has been answered.
func (m *Mount) Wait() {}

// Unmount unmounts; the error wraps EBUSY while somebody uses the mount.
func (m *Mount) Unmount() error { panic("stub") }

// Snapshot pushes what the kernel holds dirty, takes a snapshot and makes it visible under .snapshots.
func (m *Mount) Snapshot(r snapshot.Request) (snapshot.Taken, error) { panic("stub") }

// Delete and Rename change the catalogue and tell the kernel.
func (m *Mount) Delete(names []string, dryRun bool) ([]snapshot.Deleted, error) { panic("stub") }
func (m *Mount) Rename(old, new string) error                                   { panic("stub") }

// List returns the snapshots, oldest first.
func (m *Mount) List() ([]snapshot.Info, error) { panic("stub") }

// Status gathers what `snapfs status --json` prints (fields as in the interface text).
func (m *Mount) Status() (Status, error) { panic("stub") }

type Status struct{}

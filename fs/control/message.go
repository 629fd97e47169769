package control

import "github.com/snapfs/snapfs/snapshot"

// Hello says who answers at the socket.
type Hello struct {
	PID        int    `json:"pid"`
	Version    string `json:"version"`
	MountPoint string `json:"mountpoint"`
	Ending     bool   `json:"ending,omitempty"` // the mount is gone, the store not yet closed
}

// SnapshotRequest asks for a snapshot.
type SnapshotRequest struct {
	Name        string `json:"name"` // "" means the time
	Description string `json:"description,omitempty"`
	NoWait      bool   `json:"no_wait,omitempty"`  // return once frozen
	Progress    bool   `json:"progress,omitempty"` // tell how far the writer is
	Frozen      bool   `json:"frozen,omitempty"`   // tell when the tree is frozen
}

// ViewRequest asks for a snapshot that is shown at a mount of the command's own.
type ViewRequest struct {
	Name        string `json:"name"` // "" means the time
	Description string `json:"description,omitempty"`
	Keep        bool   `json:"keep,omitempty"` // not temporary: it stays when the view ends
}

// Event is one line of a streamed answer. The last line has Taken, Closed or Error.
type Event struct {
	Frozen    *snapshot.Taken `json:"frozen,omitempty"`
	Progress  *Progress       `json:"progress,omitempty"`
	Taken     *snapshot.Taken `json:"taken,omitempty"`
	Serving   bool            `json:"serving,omitempty"`
	Unmounted bool            `json:"unmounted,omitempty"`
	Closed    bool            `json:"closed,omitempty"`
	Error     *Error          `json:"failure,omitempty"`
}

// Progress is how far the writer of a snapshot is, in pages.
type Progress struct {
	PagesWritten int64   `json:"pages_written"`
	PagesTotal   int64   `json:"pages_total"`
	Seconds      float64 `json:"seconds"`
}

// DeleteRequest asks for the deletion of snapshots, all of them or none.
type DeleteRequest struct {
	Names  []string `json:"names"`
	DryRun bool     `json:"dry_run,omitempty"`
}

// RenameRequest asks for another name for a snapshot.
type RenameRequest struct {
	Old string `json:"old"`
	New string `json:"new"`
}

package fs

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// The kernel leaves the atime of files to us (S_NOATIME in fuse_iget), and tells only of reads that its caches could not
// answer. After those it asks for the atime again by itself. What it has cached can only be read while the file is open, so one that was
// open for reading counts as read when it was opened, as soon as it is closed, if the rules of relatime let it: once after
// each change, and once a day. One that was open for writing as well, and was changed meanwhile (O_TRUNC for one), does not count.

// dates tells whether reads through an open file change its atime.
func dates(flags uint32) bool {
	return flags&unix.O_ACCMODE != unix.O_WRONLY && flags&(unix.O_NOATIME|unix.O_TRUNC) == 0
}

// readAtime notes that a live file was read at time t, and reports whether that changed its atime.
func (f *face) readAtime(h *handle, t snapshot.Time) bool {
	return h.dates && !f.m.flags.has(keepAtime) && h.live.Access(t, f.m.flags.has(strictAtime))
}

// closeAtime is for a read that the kernel did not tell of. It does not expect that this changes anything: it is told.
func (f *face) closeAtime(h *handle) {
	if f.readAtime(h, h.opened) {
		f.m.told(f.m.server.InodeNotify(uint64(h.node), -1, 0))
	}
}

// releaseAtime is closeAtime for a file that is closed.
func (f *face) releaseAtime(h *handle) {
	if h != nil && !(h.writes && h.live.ChangedSince(h.opened)) {
		f.closeAtime(h)
	}
}

// readdirAtime notes that a live directory was listed.
func (f *face) readdirAtime(node nodeID) {
	if node.isLive() && !f.m.flags.has(keepAtime|keepDirAtime) {
		f.live.Access(node.ino(), timeOf(time.Now()), f.m.flags.has(strictAtime))
	}
}

// readlinkAtime notes that a live symbolic link was followed or read.
func (f *face) readlinkAtime(node nodeID) {
	if node.isLive() && !f.m.flags.has(keepAtime) {
		f.live.Access(node.ino(), timeOf(time.Now()), f.m.flags.has(strictAtime))
	}
}

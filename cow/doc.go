// Package cow keeps the bytes of snapfs: live contents that are written while snapshots of them stay as they were.
//
// It knows contents by number and snapshots by epoch; it knows no names, no metadata store and no FUSE.
//
// # Words
//
// A content is the bytes of one file version line. Its newest bytes are in one complete base file at natural offsets,
// except for its private pages, whose newest bytes are only in a MAP_PRIVATE mapping of the base file. A page is
// protected while the newest snapshot may read it from the base file, and owned otherwise. The undo log of snapshot s
// holds pages as they were at s; it serves every snapshot <= s. To save a page is to append its old bytes to the undo
// log and make them durable, after which it is owned. To flush is to save, then write private pages into the base
// file, then drop them from memory. A freeze is the short exclusive moment of a snapshot; what it found private is a
// capture, held by a forked writer.
//
// # Invariants
//
// These are the rules that the code cites by number (I1 to I12; those about names and the commit of a snapshot, I4,
// I5 and I10, are kept together with package snapshot).
//
//   - I1: a base page that a snapshot reads is not overwritten before its old bytes are durable in an undo log, with a
//     header that says what they are. Kept by saver.commit, which every overwrite of a protected page comes after.
//   - I2: a live read returns the newest written bytes: the private page if there is one, else the base.
//   - I3: a snapshot reads the same bytes for ever. Kept by the order of resolution in Frozen.ReadAt, and by its check
//     that nothing was saved while it read the base.
//   - I6: a write that returned success does not fail later for lack of space: room for the undo page and for the
//     base block behind a hole, or in place of one that is shared with a clone, is reserved before the write is accepted. (Not
//     where the store's file system writes to new blocks in any case: btrfs.)
//   - I7: a writer that fails loses nothing: its pages are still private, and go back to the set of pages to be flushed.
//   - I8: the forked child never allocates, locks, or runs Go code that can. It does nothing before it is let go, and ends
//     where the daemon dies before that; once let go it finishes its plan also if the daemon dies, because everything that
//     it overwrites was saved (I1), so that what it holds is not lost. See fork_unsafe.go.
//   - I9: two processes never write one store: a writer keeps the store's lock descriptor open until it exits. The next daemon
//     waits for it.
//   - I11: a failed fsync is final: the content or the undo log that it hit answers EIO from then on.
//   - I12: private pages stay under a limit: a flush starts at half of it, above it writers wait.
//
// # Protected or owned
//
// A content has a reach: an upper bound, in bytes, of what snapshots may read from its base file. It grows at a
// freeze to the content's length and never shrinks. A page is protected if it lies below reach, a snapshot exists,
// and no undo log from the newest snapshot's on holds the page. Saving a page is what makes it owned, so this is
// derived from durable facts and the same after a crash; memory only caches it (content.owned).
//
// A base file may be longer than its content: what lies beyond the length is stale for the live view (it belongs to
// older snapshots, or was cut off). Whatever makes the content longer zeroes the stale bytes that it uncovers first,
// saving those that are protected, and makes that durable before it records the new length; and before it does so, the shorter length.
//
// A base file may become longer by the writer of a capture, whose pages were written on since they were mapped: content.baseEnd counts that. A
// capture ends where the content ended at the freeze: a write that has something behind that in private pages, and is not recorded yet,
// is stored once more in the new epoch.
//
// It may be shorter, too: what lies behind its end is zero, unless it is known to have been longer (lengths.go); then it is lost.
//
// # What a page of snapshot s is
//
//  1. the entry of the first undo log from s on that has the page; else
//  2. the newest capture still outstanding, not newer than s, that holds it (read from the writer's memory); else
//  3. the base file.
//
// # Locks
//
// In the order in which they are taken; none of the last four is held across disk I/O:
//
//	content.flushing  one flush, punch or save of a content at a time; held across I/O
//	content.change    one change of a content at a time (the kernel's inode lock, again); held across I/O
//	content.syncing   one fsync of a content at a time; held across I/O
//	Pool.measuring    known lengths are looked at and recorded by one; whoever holds it waits for no content
//	Pool.gate         held shared by every change around its memory work, exclusively by the freeze
//	content.mu        the sets of pages and the mapping of one content
//	Pool.mu           the tables of the pool
//	undoLog.mu        the end of one undo log
//
// Disk I/O that changes a base file happens outside the gate, registered with the epoch it began in (Pool.begin): the
// freeze does not wait for it, but the frozen bytes count as settled only when it is done.
package cow

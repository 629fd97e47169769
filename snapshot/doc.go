// Package snapshot keeps names and time: the live tree, the frozen ones, and what it takes to get from one to the other.
//
// A Store is a directory with a pool of bytes (package cow) and a metadata store (package meta). Everything in the
// namespace is stamped with the epoch in which it was written; a snapshot is a number that ends an epoch. So taking one
// writes one record, whatever the size of the tree, and reading one is reading the live tree with another number.
//
// # Invariants
//
// Besides those of package cow (I1 to I3, I6 to I9, I11, I12):
//
//   - I4: a snapshot command that returned success survives a power loss at the next instant; one that did not leaves no
//     half snapshot behind. Kept by Store.commit, whose comment has the crash table, and by recovery.
//   - I5: an fsync that returned success survives a power loss, and so does every change of the namespace that fsync of
//     the file or of its directory made durable. Kept by Handle.Sync and Live.Sync: first the bytes, then the records, whose
//     batches become durable in the order in which they were committed. Where bytes take the place of others (a rename over
//     a file, a write after a truncation to nothing) they go to the disk before the record, also without fsync (cow's Pool.Order).
//   - I10: recovery is idempotent: every step of it may be repeated, and a crash in the middle changes nothing.
//
// And in this package's own words: bytes are only removed after the change of the namespace that dropped them is durable
// (Store.tidy); a snapshot that is not durable is removed like any other, never by unlinking its undo log (Store.discard).
//
// # Order of commits
//
// Commits, deletions and the removal of failed snapshots take turns (queue), in the order of their freezes: a capture may
// only be written when the one before it has been. Freezes themselves do not wait for turns.
package snapshot

// Package powercut is for tests: it cuts the power of a store at work and says what must be there afterwards.
//
// A Disk is a real file system in an image file. Its power is cut in two ways: by an ioctl that shuts the file system down without
// flushing its log, so that nothing survives but what was synced; or by a copy of the image, taken in one instant while the file system is
// at work, which has the writes that had reached the device, in the order of the file system.
//
// A load (Run) is a process of its own that works on a Tree: files that are overwritten, truncated and synced, files that are replaced,
// names that move, snapshots that are taken and deleted, all at once. It writes a journal: each operation before it is begun,
// and each promise (fsync returned, the snapshot command returned) after it was given. A cut has two places in the journal. Promises
// before the first, fixed just before the cut, must hold. What was begun before the second, behind the cut, may be there.
// (An fsync that the cut overtakes may return success and still be lost, in ext4 and xfs themselves.)
//
// A Ledger reads the journal and compares a tree with it, to the byte.
package powercut

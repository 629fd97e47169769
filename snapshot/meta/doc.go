// Package meta keeps everything a store remembers besides bytes: the namespace by epoch, the snapshots, the index of
// the undo logs and a few counters. It is the only package that knows Pebble; nothing of Pebble shows in its API
// except the file system that fault tests pass in.
//
// # Versions
//
// An inode, a directory entry and an extended attribute are kept once per epoch in which they were written. The
// last eight bytes of such a key are the complement of the epoch, so the newest version sorts first and "the tree
// as of epoch e" is, for every key, the first version at or after the seek position of e: one seek, whatever the number
// of snapshots. A removal is a tombstone where an older version stays behind; where none does, the version itself goes.
//
// # Key space
//
// Integers are big-endian, so that keys sort by number. ^e is the complement of an epoch.
//
//	'b' content(8)                          known length         1 bytes(8) of its base file, see cow/lengths.go
//	'd' parent(8) hash(8) name 0x00 ^e(8)   directory entry      1 type(1) ino(8)          | 0
//	'g' content(8)                          garbage              empty
//	'i' ino(8) ^e(8)                        inode                see below                 | 0
//	'l' log(8)                              indexed length       bytes(8)
//	'm' name                                counter or mark      see below
//	'o' ino(8)                              orphan               empty
//	's' epoch(8)                            snapshot             1 JSON
//	't' epoch(8) key without ^e             touched in epoch     empty
//	'u' content(8) chunk(8) log(8)          undo index           1 { page(1) flags(1) crc(4) block(8) }...
//	'x' ino(8) name 0x00 ^e(8)              extended attribute   1 value                   | 0
//
// The first byte of a value is the version of its encoding, 1; a value that is the single byte 0 is a tombstone.
//
// hash is a 63-bit hash of the name, keyed by a salt drawn once per store. It is the cookie of readdir: a
// position in a directory stays valid while names come and go. Values below 16 are left for "." and "..". Two names
// of one directory that share a hash (about one chance in 10^5 with ten million names) are found by
// name like all others; only a listing that is interrupted exactly between them would skip the second.
//
// The value of an extended attribute is kept as the system call gave it; access control lists (system.posix_acl_access and
// _default) have the form of the kernel's linux/posix_acl_xattr.h.
//
// A chunk is 256 pages of a content; the page in a place is its number within the chunk. Places are sorted by
// page; bit 0 of flags says that the page was all zero and is not in the log.
//
// An inode record, 138 bytes and the target of a symlink:
//
//	 0  version (1)        28  content (8)          68  atime sec(8) nsec(4)
//	 1  flags (1)          36  born (8)             80  mtime
//	 2  reserved (2) = 0   44  size (8)             92  ctime
//	 4  mode (4)           52  reach (8)           104  btime
//	 8  nlink (4)          60  blocks (8)          116  parent (8)
//	12  uid (4)                                    124  reserved (8) = 0
//	16  gid (4)                                    132  length of target (2)
//	20  rdev (4)                                   134  target
//	24  reserved (4) = 0                           end - 4  CRC-32C of all before
//
// Marks under 'm':
//
//	format    version of this key space (4)        salt     key of the name hash (16)
//	ino       inode numbers below it may be out    clean    present after an orderly shutdown; 1: all lengths are known
//	content   content ids below it may be out      epoch    the current epoch (8)
//
// # Durability
//
// A batch is atomic. Batches become durable in the order in which they were committed; an unsynced one at the latest with
// the next Sync. A moment after its commit the kernel has it, so that it survives the daemon (carry.go). A failed write or sync of the log is final (I11): every later change and sync reports EIO, and what is there can be
// read on. A full disk is no such failure: a batch that might not find room is refused with ENOSPC. See guard.go.
package meta

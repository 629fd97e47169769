package meta

import (
	"cmp"
	"encoding/binary"
	"time"

	"github.com/snapfs/snapfs/cow"
)

// Ino is an inode number; never reused.
type Ino uint64

// maxIno bounds inode numbers: node ids of the mount keep the rest of the 64 bits for the view.
const maxIno = 1 << 40

// Time is a POSIX timestamp.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Before tells whether t is earlier than u.
func (t Time) Before(u Time) bool { return t.Sec < u.Sec || t.Sec == u.Sec && t.Nsec < u.Nsec }

// Add returns t+d.
func (t Time) Add(d time.Duration) Time {
	u := time.Unix(t.Sec, int64(t.Nsec)+int64(d))
	return Time{Sec: u.Unix(), Nsec: uint32(u.Nanosecond())}
}

// Inode is what is recorded of an inode in one epoch.
type Inode struct {
	Mode, Nlink, UID, GID, Rdev uint32

	Content cow.ID    // 0: no bytes were ever written
	Born    cow.Epoch // epoch in which the inode got Content: snapshots of this epoch and later ones see it
	Size    int64     // bytes
	Reach   int64     // bound, in bytes, of what snapshots may read from the base file (cow.File.Reach)
	Blocks  int64     // 512-byte units on disk
	Stable  bool      // the base file is known to be durable; if not, a missing one is an empty one

	Atime, Mtime, Ctime, Btime Time

	Parent Ino    // of a directory: what ".." is
	Target string // of a symlink, at most 65,535 bytes
}

// Inode returns the record of ino as of epoch at and the epoch in which it was written: 0 if there was none.
func (d *DB) Inode(ino Ino, at cow.Epoch) (rec Inode, e cow.Epoch, err error) {
	e, err = d.newest(inodeKey(ino), at, func(v []byte) (err error) {
		rec, err = decodeInode(v)
		return err
	})
	return rec, e, err
}

// InodeVersions visits the versions of an inode, newest first, until visit returns false; rec is nil for a tombstone.
func (d *DB) InodeVersions(ino Ino, visit func(e cow.Epoch, rec *Inode) bool) error {
	k := inodeKey(ino)
	return d.visitInodes(k.at(Latest), k.end(), func(_ Ino, e cow.Epoch, rec *Inode) bool { return visit(e, rec) })
}

// Inodes visits all versions of all inodes, by number, then newest first.
func (d *DB) Inodes(visit func(ino Ino, e cow.Epoch, rec *Inode) bool) error {
	return d.visitInodes([]byte{kindInode}, []byte{kindInode + 1}, visit)
}

func (d *DB) visitInodes(from, to []byte, visit func(Ino, cow.Epoch, *Inode) bool) error {
	var failed error
	err := d.scan(from, to, func(k, v []byte) bool {
		if len(k) != 1+8+epochSize {
			failed = damaged("key", k)
			return false
		}
		ino, e := Ino(binary.BigEndian.Uint64(k[1:])), cow.Epoch(^binary.BigEndian.Uint64(k[9:]))
		if isTombstone(v) {
			return visit(ino, e, nil)
		}
		rec, err := decodeInode(v)
		if err != nil {
			failed = err
			return false
		}
		return visit(ino, e, &rec)
	})
	return cmp.Or(failed, err)
}

// PutInode records rec as the version of epoch e. prev is the epoch of the version it follows, 0 if there is none.
func (b *Batch) PutInode(ino Ino, rec *Inode, e, prev cow.Epoch) {
	b.putVersion(inodeKey(ino), e, prev, encodeInode(rec))
}

// DeleteInode removes the inode in epoch e. The record it had was written in epoch prev; older says whether a version that is
// not a tombstone precedes that one (DB.Older).
func (b *Batch) DeleteInode(ino Ino, e, prev cow.Epoch, older bool) {
	b.deleteVersion(inodeKey(ino), e, prev, older)
}

// InodeKeyOf returns the key of an inode, for Older and Versions.
func InodeKeyOf(ino Ino) Key { return inodeKey(ino) }

package snapshot

import (
	"syscall"
	"time"

	"github.com/snapfs/snapfs/snapshot/meta"
)

// Ino is an inode number: never reused, below 1<<40.
type Ino = meta.Ino

// Root is the root directory of every view.
const Root Ino = 1

// Time is a POSIX timestamp.
type Time = meta.Time

// Attr is what stat(2) says of an inode. Mode holds the file type too. Blocks counts 512 bytes.
type Attr struct {
	Ino                        Ino
	Mode, Nlink, UID, GID      uint32
	Rdev                       uint32
	Size, Blocks               int64
	Atime, Mtime, Ctime, Btime Time
}

// dirSize is the size that directories show; programs that see 0 take them for pseudo files.
const dirSize = 4096

func attrOf(ino Ino, r *meta.Inode) Attr {
	a := Attr{Ino: ino, Mode: r.Mode, Nlink: r.Nlink, UID: r.UID, GID: r.GID, Rdev: r.Rdev, Size: r.Size, Blocks: r.Blocks,
		Atime: r.Atime, Mtime: r.Mtime, Ctime: r.Ctime, Btime: r.Btime}
	if isDir(r.Mode) {
		a.Size = dirSize
	}
	return a
}

func isDir(mode uint32) bool     { return mode&syscall.S_IFMT == syscall.S_IFDIR }
func isRegular(mode uint32) bool { return mode&syscall.S_IFMT == syscall.S_IFREG }

// withoutPriv is mode after a write by somebody who may not keep its set-id bits.
func withoutPriv(mode uint32) uint32 {
	mode &^= syscall.S_ISUID
	if mode&syscall.S_IXGRP != 0 {
		mode &^= syscall.S_ISGID
	}
	return mode
}

func now() Time {
	t := time.Now()
	return Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
}

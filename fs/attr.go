package fs

import (
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

const (
	// cacheTime is how long the kernel may believe a reply: all changes go through it.
	cacheTime = time.Hour

	// ioSize is stat(2)'s st_blksize. stdio buffers by it, and a request costs more than its bytes.
	ioSize = 64 << 10
)

// fillAttr tells the kernel about the inode called node.
func fillAttr(out *gofuse.Attr, node nodeID, a snapshot.Attr) {
	*out = gofuse.Attr{
		Ino:       uint64(node),
		Size:      uint64(a.Size),
		Blocks:    uint64(a.Blocks),
		Atime:     uint64(a.Atime.Sec),
		Mtime:     uint64(a.Mtime.Sec),
		Ctime:     uint64(a.Ctime.Sec),
		Atimensec: a.Atime.Nsec,
		Mtimensec: a.Mtime.Nsec,
		Ctimensec: a.Ctime.Nsec,
		Mode:      a.Mode,
		Nlink:     a.Nlink,
		Owner:     gofuse.Owner{Uid: a.UID, Gid: a.GID},
		Rdev:      a.Rdev,
		Blksize:   ioSize,
	}
}

// fillEntry answers a lookup of the inode called node.
func fillEntry(out *gofuse.EntryOut, node nodeID, a snapshot.Attr) {
	out.NodeId = uint64(node)
	out.SetEntryTimeout(cacheTime)
	out.SetAttrTimeout(cacheTime)
	fillAttr(&out.Attr, node, a)
}

// noEntry answers a lookup of a name that does not exist, and lets the kernel remember that.
func noEntry(out *gofuse.EntryOut) gofuse.Status {
	*out = gofuse.EntryOut{}
	out.SetEntryTimeout(cacheTime)
	return gofuse.OK
}

// fillStatx is fillAttr for statx(2), which also wants the time of birth.
func fillStatx(out *gofuse.Statx, node nodeID, a snapshot.Attr) {
	*out = gofuse.Statx{
		Mask:      unix.STATX_BASIC_STATS | unix.STATX_BTIME,
		Blksize:   ioSize,
		Nlink:     a.Nlink,
		Uid:       a.UID,
		Gid:       a.GID,
		Mode:      uint16(a.Mode),
		Ino:       uint64(node),
		Size:      uint64(a.Size),
		Blocks:    uint64(a.Blocks),
		Atime:     statxTime(a.Atime),
		Btime:     statxTime(a.Btime),
		Ctime:     statxTime(a.Ctime),
		Mtime:     statxTime(a.Mtime),
		RdevMajor: unix.Major(uint64(a.Rdev)),
		RdevMinor: unix.Minor(uint64(a.Rdev)),
	}
}

func statxTime(t snapshot.Time) gofuse.SxTime {
	return gofuse.SxTime{Sec: uint64(t.Sec), Nsec: t.Nsec}
}

// timeOf makes a snapshot.Time of a time.Time.
func timeOf(t time.Time) snapshot.Time {
	return snapshot.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
}

package fs

import (
	"fmt"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/snapfs/snapfs/snapshot"
)

// SetAttr is chmod, chown, truncate and utimensat in one request.
func (f *face) SetAttr(_ <-chan struct{}, in *gofuse.SetAttrIn, out *gofuse.AttrOut) gofuse.Status {
	node := nodeID(in.NodeId)
	if err := f.change(node); err != nil {
		return f.faults.status("setattr", in.NodeId, err)
	}
	if err := f.mayKillPriv(node, in); err != nil {
		return f.faults.status("setattr", in.NodeId, err)
	}
	attr, err := f.live.SetAttr(node.ino(), changeOf(&in.SetAttrInCommon))
	if err = f.settled(err, syncAll); err != nil {
		return f.faults.status("setattr", in.NodeId, err)
	}
	fillAttr(&out.Attr, node, attr)
	out.SetTimeout(cacheTime)
	return gofuse.OK
}

// setBits says what a bit of a setattr request asks for; constant.
var setBits = [...]struct {
	fattr uint32
	set   snapshot.ChangeSet
}{
	{gofuse.FATTR_MODE, snapshot.SetMode},
	{gofuse.FATTR_UID, snapshot.SetUID},
	{gofuse.FATTR_GID, snapshot.SetGID},
	{gofuse.FATTR_SIZE, snapshot.SetSize},
	{gofuse.FATTR_CTIME, snapshot.SetCtime}, // only with writeback: the kernel holds times back, too
}

// fattrFields are the bits of a setattr request that say what to set.
const fattrFields = gofuse.FATTR_MODE | gofuse.FATTR_UID | gofuse.FATTR_GID | gofuse.FATTR_SIZE |
	gofuse.FATTR_ATIME | gofuse.FATTR_MTIME | gofuse.FATTR_ATIME_NOW | gofuse.FATTR_MTIME_NOW

// killsPriv tells whether suid and sgid are to be cleared, which the kernel leaves to us (HANDLE_KILLPRIV_V2). A truncation
// says so, a change of the owner always means it, and so does a request that sets nothing: chown(2) to the same owner. (The
// kernel sends that one, too, before somebody who may keep the bits writes to a file with capabilities: a file that has
// both loses both.)
func killsPriv(valid uint32) bool {
	return valid&(gofuse.FATTR_KILL_SUIDGID|gofuse.FATTR_UID|gofuse.FATTR_GID) != 0 || valid&fattrFields == 0
}

// mayKillPriv checks what the kernel checks for file systems that clear suid and sgid themselves, but not for us: chown(2) to
// the same owner clears them, so it is a change of the mode, which only the owner and root may make. But just so the kernel asks before
// somebody writes, who then has the file open for writing, and loses the bits by that right.
func (f *face) mayKillPriv(node nodeID, in *gofuse.SetAttrIn) error {
	if in.Valid&fattrFields != 0 || in.InHeader.Uid == 0 || f.handles.isWritten(node.ino()) {
		return nil
	}
	attr, err := f.live.Stat(node.ino())
	if err != nil {
		return err
	}
	if attr.Mode&syscall.S_IFMT != syscall.S_IFDIR && attr.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0 && attr.UID != in.InHeader.Uid {
		return fmt.Errorf("clear suid and sgid: %w", syscall.EPERM)
	}
	return nil
}

// changeOf translates a setattr request.
func changeOf(in *gofuse.SetAttrInCommon) snapshot.Change {
	c := snapshot.Change{
		Mode:     in.Mode & 07777,
		UID:      in.Uid,
		GID:      in.Gid,
		Size:     int64(in.Size),
		Atime:    snapshot.Time{Sec: int64(in.Atime), Nsec: in.Atimensec},
		Mtime:    snapshot.Time{Sec: int64(in.Mtime), Nsec: in.Mtimensec},
		Ctime:    snapshot.Time{Sec: int64(in.Ctime), Nsec: in.Ctimensec},
		KillPriv: killsPriv(in.Valid),
	}
	for _, b := range setBits {
		if in.Valid&b.fattr != 0 {
			c.Set |= b.set
		}
	}
	c.Set |= timeBit(in.Valid, gofuse.FATTR_ATIME, gofuse.FATTR_ATIME_NOW, snapshot.SetAtime, snapshot.SetAtimeNow)
	c.Set |= timeBit(in.Valid, gofuse.FATTR_MTIME, gofuse.FATTR_MTIME_NOW, snapshot.SetMtime, snapshot.SetMtimeNow)
	return c
}

// timeBit chooses between a given time and the present.
func timeBit(valid, given, now uint32, set, setNow snapshot.ChangeSet) snapshot.ChangeSet {
	switch {
	case valid&now != 0:
		return setNow
	case valid&given != 0:
		return set
	}
	return 0
}

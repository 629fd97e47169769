package fs

import (
	"sync/atomic"
	"syscall"
	"time"

	"github.com/snapfs/snapfs/snapshot"
)

// answers remembers of which live inodes the kernel was told the attributes lately, outside of a request that changes them.
//
// After a change that it has asked for, the kernel forgets the attributes that have changed. But an answer to an earlier question may still
// be under way: when it arrives it is taken for news, and would be believed for an hour (fuse_change_attributes in fs/fuse/inode.c; only
// writes, truncations and the loss of a name count as newer there). A notification makes the kernel ignore what was asked before it. So
// whoever changes an inode notifies, between the change and his reply, if a question was answered lately: before it all answers are from
// before the change, and ignored, after it they are from after the change.
//
// Several inodes share a place in the table: that costs a notification too many, never one too few.
type answers struct {
	last [1 << 12]atomic.Int64 // Unix seconds of the last answer
}

// answerTime is how long an answer may be under way, from before it is made until the kernel has taken it in. In seconds.
const answerTime = 60

func (a *answers) place(n nodeID) *atomic.Int64 { return &a.last[uint64(n)%uint64(len(a.last))] }

// note is called before the attributes of an inode are read for an answer.
func (a *answers) note(n nodeID) { a.place(n).Store(time.Now().Unix()) }

// recent reports whether an answer about the inode may still be under way.
func (a *answers) recent(n nodeID) bool {
	last := a.place(n).Load()
	return last != 0 && time.Now().Unix()-last <= answerTime
}

// outdate makes the kernel ignore the answers about live inodes that were changed just now.
func (f *face) outdate(changed ...nodeID) {
	for _, n := range changed {
		if f.m.answers.recent(n) {
			f.m.told(f.m.server.InodeNotify(uint64(n), -1, 0))
		}
	}
}

// outdateWritten is outdate for data that the kernel wrote back. The inode may be about to go, and wait for this very reply: so it is
// notified afterwards.
func (f *face) outdateWritten(n nodeID) {
	if f.m.answers.recent(n) {
		go f.outdate(n)
	}
}

// outdateMoved is outdate for a rename. The cached listing of a directory has the directory that it is in.
func (f *face) outdateMoved(from, to nodeID, moved []snapshot.Attr) {
	f.outdate(from, to)
	for _, a := range moved {
		if a.Mode&syscall.S_IFMT == syscall.S_IFDIR && from != to {
			f.m.told(f.m.server.InodeNotify(uint64(liveNode(a.Ino)), 0, 0))
			continue
		}
		f.outdate(liveNode(a.Ino))
	}
}

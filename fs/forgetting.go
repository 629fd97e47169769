package fs

import (
	"sync"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/snapfs/snapfs/snapshot"
)

// forgetting lets go of the live inodes without a name that the kernel does not know any more.
//
// A FORGET says how many lookups it takes back, and we do not count them: nothing is kept for the inodes that the kernel knows. Nor does it
// say that the kernel does not know the inode: it may be late, from before the inode was looked up again and unlinked. So for one without
// a name, which would be dropped, the kernel is asked. If it knows the inode, another FORGET will come.
//
// Asking waits where the kernel is letting go of the inode at this moment, and while a FORGET is handled go-fuse may read no other
// request: so it is done beside.
type forgetting struct {
	mu    sync.Mutex
	queue []snapshot.Ino // GUARDED_BY(mu)
	wake  chan struct{}  // has room for one
	done  chan struct{}
}

func newForgetting() *forgetting {
	return &forgetting{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// add has an inode forgotten. Not after end.
func (f *forgetting) add(ino snapshot.Ino) {
	f.mu.Lock()
	f.queue = append(f.queue, ino)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default: // it is awake already
	}
}

// run calls forget for each inode, until end.
func (f *forgetting) run(forget func(snapshot.Ino)) {
	defer close(f.done)
	for range f.wake {
		f.mu.Lock()
		queue := f.queue
		f.queue = nil
		f.mu.Unlock()
		for _, ino := range queue {
			forget(ino)
		}
	}
}

// end returns when all that was added is forgotten.
func (f *forgetting) end() {
	close(f.wake)
	<-f.done
}

// knows reports whether the kernel knows a live inode. As a notification about its attributes would, this has it forget those. Where the
// kernel does not say, it may know it: the inode goes at the next mount, if no other FORGET comes.
func (m *Mount) knows(ino snapshot.Ino) bool {
	switch m.server.InodeNotify(uint64(liveNode(ino)), -1, 0) {
	case gofuse.ENOENT, gofuse.Status(syscall.ENODEV), gofuse.Status(syscall.ENOTCONN), gofuse.EBADF:
		return false // it does not, or the mount is gone
	}
	return true
}

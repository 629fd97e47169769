package fs

import (
	"errors"
	"log"
	"sync/atomic"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// faults counts and logs the errors that no errno explains, and those that mean trouble with the store. It is the only
// place where package fs logs errors of requests.
type faults struct {
	log   *log.Logger
	count atomic.Int64 // since the mount
	last  atomic.Int64 // time of the last line, in Unix seconds: one line a second is enough to notice
}

// status makes an errno of err, the only place that does. op and node name the request in the log.
func (f *faults) status(op string, node uint64, err error) gofuse.Status {
	if err == nil {
		return gofuse.OK
	}
	var errno syscall.Errno
	known := errors.As(err, &errno)
	switch {
	case known && errno == syscall.ENOSYS:
		// To the kernel ENOSYS means "never ask this again". Nothing below may cause that.
		return gofuse.ENOTSUP
	case known && errno != 0 && errno != syscall.EIO:
		return gofuse.Status(errno)
	}
	f.report(op, node, err)
	return gofuse.EIO
}

// report counts and logs a failure that no reply explains.
func (f *faults) report(op string, node uint64, err error) {
	n := f.count.Add(1)
	now := time.Now().Unix()
	if f.last.Swap(now) != now {
		f.log.Printf("%s of inode %#x: %v (failure %d of this mount)", op, node, err, n)
	}
}

package fs

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot"
)

// Showing is a frozen view at a mount of its own, with the inode numbers of the live tree: a tool that finds what changed by
// inode numbers finds the same ones at every showing. Somebody else has made the mount, in a mount namespace of his.
type Showing struct {
	m       *Mount
	view    *snapshot.Frozen
	server  *gofuse.Server
	handles *handles

	mu    sync.RWMutex // held shared by every request
	ended bool         // GUARDED_BY(mu): view and handles are given back
}

// Show begins to serve the snapshot of epoch e on device, an open /dev/fuse that is mounted already; it takes the device over.
// The snapshot's data stays until End, even if it is deleted.
func (m *Mount) Show(e cow.Epoch, device *os.File) (*Showing, error) {
	if err := isFuseDevice(device); err != nil {
		device.Close()
		return nil, err
	}
	fd, err := unix.FcntlInt(device.Fd(), unix.F_DUPFD_CLOEXEC, 3) // go-fuse closes it
	device.Close()
	if err != nil {
		return nil, fmt.Errorf("show epoch %d: %w", e, err)
	}
	view, err := m.store.View(e)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("show: %w", err)
	}
	s := &Showing{m: m, view: view, handles: newHandles()}
	options := m.mountOptions(false)
	options.ExtraCapabilities &^= gofuse.CAP_WRITEBACK_CACHE | gofuse.CAP_EXPORT_SUPPORT // nothing is written, nothing exported
	s.server, err = gofuse.NewServer(newShowingFace(s), fmt.Sprintf("/dev/fd/%d", fd), options)
	if err != nil {
		view.Release()
		return nil, fmt.Errorf("show epoch %d: %w", e, err)
	}
	go func() {
		s.server.Serve() // until the mount is gone
		s.End()
	}()
	return s, nil
}

// isFuseDevice keeps go-fuse from waiting for a greeting of something that is no FUSE device.
func isFuseDevice(f *os.File) error {
	const major, minor = 10, 229 // Documentation/admin-guide/devices.txt
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("look at the FUSE device: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(major, minor) {
		return fmt.Errorf("a file that is not %s: %w", devFuse, syscall.ENODEV)
	}
	return nil
}

// End gives the view back. Whoever still uses the mount gets ENOTCONN, or what the kernel has cached of the frozen tree.
func (s *Showing) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	for _, fh := range s.handles.all() {
		if h := s.handles.remove(fh); h.content != nil {
			if err := h.content.Close(); err != nil {
				s.m.faults.report("end of a showing", uint64(h.node), err)
			}
		}
	}
	s.view.Release()
}

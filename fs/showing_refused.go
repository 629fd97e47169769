package fs

import (
	"fmt"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

// Everything that would change a Showing is EROFS.

var errFrozen = fmt.Errorf("a snapshot does not change: %w", syscall.EROFS)

func (f *showingFace) SetAttr(_ <-chan struct{}, _ *gofuse.SetAttrIn, _ *gofuse.AttrOut) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) Mknod(_ <-chan struct{}, _ *gofuse.MknodIn, _ string, _ *gofuse.EntryOut) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) Mkdir(_ <-chan struct{}, _ *gofuse.MkdirIn, _ string, _ *gofuse.EntryOut) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) Symlink(_ <-chan struct{}, _ *gofuse.InHeader, _, _ string, _ *gofuse.EntryOut) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) Link(_ <-chan struct{}, _ *gofuse.LinkIn, _ string, _ *gofuse.EntryOut) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) Unlink(_ <-chan struct{}, _ *gofuse.InHeader, _ string) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) Rmdir(_ <-chan struct{}, _ *gofuse.InHeader, _ string) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) Rename(_ <-chan struct{}, _ *gofuse.RenameIn, _, _ string) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) Create(_ <-chan struct{}, _ *gofuse.CreateIn, _ string, _ *gofuse.CreateOut) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) Tmpfile(_ <-chan struct{}, _ *gofuse.CreateIn, _ *gofuse.CreateOut) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) SetXAttr(_ <-chan struct{}, _ *gofuse.SetXAttrIn, _ string, _ []byte) gofuse.Status {
	return gofuse.EROFS
}

func (f *showingFace) RemoveXAttr(_ <-chan struct{}, _ *gofuse.InHeader, _ string) gofuse.Status {
	return gofuse.EROFS
}

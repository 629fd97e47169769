package snapshot

import (
	"io"
	"math/rand/v2"
	"slices"
	"syscall"

	"github.com/snapfs/snapfs/cow"
)

// owner is a writer with its files.
type owner struct {
	c     *churn
	r     *rand.Rand
	files map[string]*owned
}

type owned struct {
	h     *Handle
	model []byte
}

const churnPages = 40 // most pages of a file

// change makes one random change of one of the owner's files, and of its model.
func (o *owner) change(name string) {
	o.c.moment.RLock()
	defer o.c.moment.RUnlock()
	f := o.files[name]
	if f == nil {
		a, err := o.c.s.live.Create(Root, name, Spec{Mode: syscall.S_IFREG | 0o600})
		agree(o.c.t, "create", err, nil)
		h, err := o.c.s.live.OpenFile(a.Ino)
		agree(o.c.t, "open", err, nil)
		o.files[name] = &owned{h: h}
		return
	}
	switch o.r.IntN(20) {
	case 0, 1, 2:
		o.truncate(f)
	case 3, 4, 5:
		o.zero(f)
	case 6, 7, 8:
		o.copy(f)
	case 9:
		agree(o.c.t, "sync", f.h.Sync(o.r.IntN(2) == 0), nil)
	case 10:
		o.reopen(name, f)
	case 11, 12:
		o.compare(name, f)
	default:
		o.write(f)
	}
}

// place returns a part of a file: pages, parts of them, or a few bytes.
func (o *owner) place() (off, n int) {
	off, n = o.r.IntN(churnPages*cow.PageSize), 1+o.r.IntN(200)
	switch o.r.IntN(3) {
	case 0:
		n = o.r.IntN(6*cow.PageSize) + 1
	case 1:
		off, n = off/cow.PageSize*cow.PageSize, (1+o.r.IntN(8))*cow.PageSize
	}
	return off, n
}

// grow makes the model at least size bytes long.
func (f *owned) grow(size int) {
	if n := size - len(f.model); n > 0 {
		f.model = append(f.model, make([]byte, n)...)
	}
}

func (o *owner) write(f *owned) {
	off, n := o.place()
	b := make([]byte, n)
	first := byte(o.r.Uint32())
	for i := range b {
		b[i] = first + byte(i>>8)
	}
	k, err := f.h.WriteAt(b, int64(off), false)
	if k != n || err != nil {
		o.c.t.Errorf("write of %d bytes: %d, %v", n, k, err)
	}
	f.grow(off + n)
	copy(f.model[off:], b)
}

func (o *owner) truncate(f *owned) {
	size := o.r.IntN(churnPages * cow.PageSize)
	switch o.r.IntN(6) {
	case 0:
		size = 0
	case 1:
		size = min(len(f.model)+o.r.IntN(3*cow.PageSize), churnPages*cow.PageSize)
	case 2:
		size = max(0, len(f.model)-o.r.IntN(2*cow.PageSize))
	}
	_, err := o.c.s.live.SetAttr(f.h.Ino(), Change{Set: SetSize, Size: int64(size)})
	agree(o.c.t, "truncate", err, nil)
	f.grow(size)
	f.model = slices.Clip(f.model[:size])
}

func (o *owner) zero(f *owned) {
	off, n := o.place()
	mode := []uint32{3, 0x10, 0x11, 0, 1}[o.r.IntN(5)] // punch, zero, zero and keep, allocate, allocate and keep
	agree(o.c.t, "fallocate", f.h.Fallocate(mode, int64(off), int64(n), false), nil)
	if mode&1 == 0 {
		f.grow(off + n)
	}
	if mode > 1 && off < len(f.model) {
		clear(f.model[off:min(off+n, len(f.model))])
	}
}

// copy copies from another file of the owner, or from a file in a snapshot.
func (o *owner) copy(f *owned) {
	off, n := o.place()
	from := o.r.IntN(churnPages * cow.PageSize)
	if o.r.IntN(2) == 0 { // aligned, as a clone has to be
		off, from, n = off/cow.PageSize*cow.PageSize, from/cow.PageSize*cow.PageSize, (n+cow.PageSize-1)/cow.PageSize*cow.PageSize
	}
	if o.r.IntN(2) == 0 {
		o.copyFrozen(f, from, off, n)
		return
	}
	for _, g := range o.files {
		if g != f {
			o.copyFrom(f, g.h, g.model, from, off, n)
			return
		}
	}
}

func (o *owner) copyFrozen(f *owned, from, off, n int) {
	_, img := o.c.pick(o.r)
	if img == nil {
		return
	}
	v, err := o.c.s.View(img.epoch)
	if err != nil {
		return // deleted meanwhile
	}
	defer v.Release()
	for name, b := range img.files {
		src := o.c.open(v, name)
		if src == nil {
			return
		}
		o.copyFrom(f, src, b, from, off, n)
		_ = src.Close()
		return
	}
}

func (o *owner) copyFrom(f *owned, src Content, want []byte, from, off, n int) {
	k, err := f.h.CopyFrom(src, int64(from), int64(off), int64(n), nil)
	if err != nil && !o.c.mayFail(err) {
		o.c.t.Errorf("copy: %v", err)
	}
	if least := min(n, len(want)-from); err == nil && int(k) < least && k == 0 {
		o.c.t.Errorf("copy of %d bytes at %d of %d: %d", n, from, len(want), k)
	}
	if k > 0 {
		f.grow(off + int(k))
		copy(f.model[off:], want[from:from+int(k)])
	}
}

// reopen closes the file, and may unlink it, which leaves the bytes to the snapshots.
func (o *owner) reopen(name string, f *owned) {
	ino := f.h.Ino()
	if o.r.IntN(2) == 0 {
		agree(o.c.t, "unlink", o.c.s.live.Unlink(Root, name), nil)
		agree(o.c.t, "close", f.h.Close(), nil)
		o.c.s.live.Forget(ino)
		delete(o.files, name)
		return
	}
	agree(o.c.t, "close", f.h.Close(), nil)
	h, err := o.c.s.live.OpenFile(ino)
	agree(o.c.t, "open", err, nil)
	f.h = h
}

func (o *owner) compare(name string, f *owned) {
	b := make([]byte, churnPages*cow.PageSize*2)
	n, err := f.h.ReadAt(b, 0)
	if err != io.EOF {
		o.c.t.Errorf("read %s: %v", name, err)
	}
	o.c.same("live "+name, b[:n], f.model)
}

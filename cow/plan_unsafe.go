package cow

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A plan is what a forked writer does: pointer-free data in memory that it shares with the daemon. The daemon fills it
// in after the fork, while the writer still waits, so that neither the freeze nor the fork pays for it; it is complete
// before the writer is let go, and is run once, by a loop without decisions (I8).
//
//	plan := planHeader, padded to a page | planStep ... | paths, each ended by a zero byte, growing down from the end
type plan struct {
	addr   uintptr
	length uint64
	steps  int
	paths  uintptr // lowest address used by a path
}

// planHeader is the part of a plan that changes while it is run. The writer stores, the daemon loads.
type planHeader struct {
	steps   uint64 // how many steps there are; set before the writer is let go
	done    uint64 // pages written
	status  uint64 // planRunning, planDone or planFailed
	errno   uint64 // of the step that failed
	atStep  uint64 // the step that failed
	name    [16]byte
	scratch [8]byte // where the writer reads its go into
}

const (
	planRunning = iota
	planDone
	planFailed
)

// planStep is one system call of a writer.
type planStep struct {
	kind uint64
	addr uintptr // planWrite: the bytes; planOpen: the path
	n    uint64  // planWrite: how many bytes
	off  uint64  // planWrite: where in the file
}

const (
	planOpen  = iota // open the base file at path addr
	planWrite        // write n bytes at addr to offset off of it
	planSync         // fdatasync it
	planClose
	planSyncFS // syncfs of the store's file system
)

const planStepSize = unsafe.Sizeof(planStep{})

// newPlan makes an empty plan with room for captures of up to pages pages.
func newPlan(pages int64) (*plan, error) {
	const perPage = 5 * 32 // a file of one page: open, write, sync, close and a path
	length := uint64(PageSize + (pages+1024)*perPage)
	length = (length + PageSize - 1) / PageSize * PageSize
	addr, err := mapShared(length)
	if err != nil {
		return nil, err
	}
	p := &plan{addr: addr, length: length, paths: addr + uintptr(length)}
	copy(p.header().name[:], "snapfs-writer")
	return p, nil
}

func (p *plan) free() { unmap(p.addr, p.length) }

//go:nocheckptr
func (p *plan) header() *planHeader { return *(**planHeader)(unsafe.Pointer(&p.addr)) }

// add appends a step; ENOMEM if the plan is full.
//
//go:nocheckptr
func (p *plan) add(kind uint64, addr uintptr, n, off int64) error {
	at := p.addr + PageSize + uintptr(p.steps)*planStepSize
	if at+planStepSize > p.paths {
		return unix.ENOMEM
	}
	**(**planStep)(unsafe.Pointer(&at)) = planStep{kind, addr, uint64(n), uint64(off)}
	p.steps++
	return nil
}

// path stores a path and returns its address.
func (p *plan) path(s string) (uintptr, error) {
	b := append([]byte(s), 0)
	at := p.paths - uintptr(len(b))
	if at < p.addr+PageSize+uintptr(p.steps+1)*planStepSize {
		return 0, unix.ENOMEM
	}
	copy(memory(at, len(b)), b)
	p.paths = at
	return at, nil
}

// seal sets the number of steps to run: all, or fewer where a test wants the run to end early.
func (p *plan) seal(steps int) { atomic.StoreUint64(&p.header().steps, uint64(steps)) }

// progress returns the pages written so far.
func (p *plan) progress() int64 { return int64(atomic.LoadUint64(&p.header().done)) }

// outcome returns how the run ended: done, or the errno (0 if the writer was killed) and the step of a failure.
func (p *plan) outcome() (done bool, errno unix.Errno, step uint64) {
	h := p.header()
	return atomic.LoadUint64(&h.status) == planDone, unix.Errno(atomic.LoadUint64(&h.errno)), atomic.LoadUint64(&h.atStep)
}

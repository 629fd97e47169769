package cow

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// writer is the daemon's side of a forked writer. The child is let go once, and reaped once.
type writer struct {
	pid  int
	plan *plan
	gate int // write end of the pipe on which the child waits; closing it without a word ends the child
}

// startWriter forks the daemon. The child holds every private page as it is now, and waits. REQUIRES the freeze gate
// exclusively, so that the pages are of one moment.
func (p *Pool) startWriter(pl *plan) (*writer, time.Duration, error) {
	if p.opt.NoFork {
		return nil, 0, fmt.Errorf("fork is switched off: %w", unix.EAGAIN)
	}
	if err := p.opt.Hook(Op{Kind: OpFork}); err != nil {
		return nil, 0, err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, 0, fmt.Errorf("pipe to the writer: %w", err)
	}
	defer unix.Close(pipe[0])
	a := &childArgs{plan: pl.addr, gate: uintptr(pipe[0]), base: uintptr(p.base.dir), parent: uintptr(os.Getpid())}
	a.keep = [3]uintptr{a.gate, a.base, a.base}
	if p.opt.LockFD > 0 {
		a.keep[2] = uintptr(p.opt.LockFD)
	}
	slices.Sort(a.keep[:])
	start := time.Now()
	pid, errno := forkWriter(a)
	took := time.Since(start)
	if errno != 0 {
		_ = unix.Close(pipe[1])
		return nil, took, fmt.Errorf("fork: %w", errno)
	}
	return &writer{pid: int(pid), plan: pl, gate: pipe[1]}, took, nil
}

// preferForKill makes the kernel choose the writer before the daemon when memory runs out: what the writer holds is still
// in the daemon, too. Failure changes nothing else.
func (w *writer) preferForKill() {
	_ = os.WriteFile("/proc/"+strconv.Itoa(w.pid)+"/oom_score_adj", []byte("1000"), 0)
}

// run lets the child go and waits for it. progress is told the pages written from time to time.
func (w *writer) run(cp *capture, progress func(int64)) error {
	if _, err := unix.Write(w.gate, []byte{1}); err != nil {
		w.abandon(cp)
		return fmt.Errorf("writer %d is gone: %w", w.pid, unix.EIO)
	}
	defer unix.Close(w.gate)
	exited := make(chan error, 1)
	go func() { exited <- w.reap(cp) }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-exited:
			if err == nil {
				progress(w.plan.progress())
			}
			return err
		case <-tick.C:
			progress(w.plan.progress())
		}
	}
}

// reap waits for exactly this child and says how it ended. Nobody reads the memory of a process with this number once
// it is reaped: the number may be given to another.
func (w *writer) reap(cp *capture) error {
	err := ignoringEINTR(func() error { return unix.Waitid(unix.P_PID, w.pid, nil, unix.WEXITED|unix.WNOWAIT, nil) })
	if err != nil {
		return fmt.Errorf("wait for writer %d: %w", w.pid, err)
	}
	cp.mu.Lock()
	cp.exited = true
	cp.mu.Unlock()
	var status syscall.WaitStatus
	err = ignoringEINTR(func() error {
		_, err := syscall.Wait4(w.pid, &status, 0, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for writer %d: %w", w.pid, err)
	}
	done, errno, step := w.plan.outcome()
	switch {
	case status.Exited() && status.ExitStatus() == exitDone && done:
		return nil
	case status.Signaled():
		return fmt.Errorf("writer %d was killed (%v): %w", w.pid, status.Signal(), unix.EIO)
	case errno != 0:
		return fmt.Errorf("writer %d failed at step %d: %w", w.pid, step, errno)
	default:
		return fmt.Errorf("writer %d ended with status %d: %w", w.pid, status.ExitStatus(), unix.EIO)
	}
}

// abandon ends a child that was not let go.
func (w *writer) abandon(cp *capture) {
	_ = unix.Close(w.gate)
	_ = w.reap(cp)
}

// forkRefused reports whether err means that there is no child to be had now, though the snapshot could be taken without one.
func forkRefused(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) ||
		errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

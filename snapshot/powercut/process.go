package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Process is a load at work.
type Process struct {
	cmd      *exec.Cmd
	journal  string
	complain bytes.Buffer // after a cut everything fails, and it says so
	exited   chan struct{}
}

// Start starts a load, which writes its journal to the given path.
func Start(cmd *exec.Cmd, journal string) (*Process, error) {
	if err := os.WriteFile(journal, nil, 0o600); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, journal: journal, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.complain, &p.complain
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// Until waits until the journal satisfies done; an error if the load ends before, or it takes a minute.
func (p *Process) Until(done func(journal string) bool) error {
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(200 * time.Microsecond) {
		text, err := p.said()
		if err != nil {
			return err
		}
		if done(text) {
			return nil
		}
		if i := strings.Index(text, "\nended "); i >= 0 || strings.HasPrefix(text, "ended ") {
			return fmt.Errorf("the load ended by itself: %s", text[i+1:])
		}
		select {
		case <-p.exited:
			return fmt.Errorf("the load is gone: %s", p.complain.String())
		default:
		}
	}
	return errors.New("the load does nothing")
}

// said returns the whole lines of the journal so far.
func (p *Process) said() (string, error) {
	text, err := os.ReadFile(p.journal)
	if err != nil {
		return "", err
	}
	return string(text[:bytes.LastIndexByte(text, '\n')+1]), nil
}

// Mark returns the place in the journal up to which promises are valid if the power is cut from now on.
func (p *Process) Mark() (int, error) {
	text, err := p.said()
	return len(text), err
}

// Tell tells a ledger what was promised before the mark, and what else was begun until now.
func (p *Process) Tell(l *Ledger, mark int) error {
	text, err := p.said()
	if err != nil {
		return err
	}
	l.Hear(text[:mark], true)
	l.Hear(text[mark:], false)
	return nil
}

// Killed reports whether the process was killed, be it by itself.
func (p *Process) Killed() bool {
	select {
	case <-p.exited:
		status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
		return ok && status.Signaled()
	default:
		return false
	}
}

// Kill ends the process and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

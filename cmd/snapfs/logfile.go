package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// logPath is where the daemon of a store writes its messages.
func logPath(store string) string { return filepath.Join(store, "snapfs.log") }

// maxLog is the size in bytes at which the log is put aside as snapfs.log.1, in place of an older one.
const maxLog = 1 << 20

// logFile is the log of a daemon. Until takeOver it writes to stderr; from then on stdout and stderr are the log, so that a crash of the
// runtime is found there too.
type logFile struct {
	path string

	mu   sync.Mutex
	file *os.File // GUARDED_BY(mu); nil before takeOver
	size int64    // GUARDED_BY(mu): bytes
}

// Write appends a message.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return os.Stderr.Write(b)
	}
	if l.size+int64(len(b)) > maxLog {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

// takeOver opens the log and makes it this process's stdout and stderr, and /dev/null its stdin.
func (l *logFile) takeOver() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), 0, 0); err != nil {
		return fmt.Errorf("stdin: %w", err)
	}
	return l.open()
}

// open opens the log, put aside before if it is full, and points stdout and stderr at it.
func (l *logFile) open() error { // REQUIRES(mu)
	if info, err := os.Stat(l.path); err == nil && info.Size() > maxLog/2 {
		if err := os.Rename(l.path, l.path+".1"); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() { // a fifo or worse in a store from somebody else
		err = fmt.Errorf("%s is not a file", l.path)
	}
	if err != nil {
		file.Close()
		return err
	}
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(file.Fd()), fd, 0); err != nil {
			file.Close()
			return fmt.Errorf("open %s: %w", l.path, err)
		}
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size = file, info.Size()
	return nil
}

package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// hearFusermount calls mount, and adds what is written to stderr meanwhile to its error: fusermount3, by which users other
// than root mount, says there what is wrong, while go-fuse knows only that it failed.
func hearFusermount(mount func() error) error {
	stderr, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	defer unix.Close(stderr)
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	if err := unix.Dup3(int(write.Fd()), 2, 0); err != nil {
		write.Close()
		return err
	}
	failure := mount()
	unix.Dup3(stderr, 2, 0)
	write.Close()
	text, err := io.ReadAll(read)
	if failure == nil {
		os.Stderr.Write(text)
		return err
	}
	if said := strings.TrimSpace(string(text)); said != "" {
		return fmt.Errorf("%w\n%s", failure, said)
	}
	return failure
}

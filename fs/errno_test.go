package fs

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"strings"
	"syscall"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

func TestStatusOfErrors(t *testing.T) {
	wrapped := func(errno syscall.Errno) error {
		return fmt.Errorf("outer: %w", fmt.Errorf("inner: %w", errno))
	}
	for _, c := range []struct {
		name   string
		err    error
		want   gofuse.Status
		counts bool
	}{
		{"none", nil, gofuse.OK, false},
		{"bare", syscall.ENOENT, gofuse.ENOENT, false},
		{"wrapped", wrapped(syscall.ENOTEMPTY), gofuse.Status(syscall.ENOTEMPTY), false},
		{"joined", errors.Join(errors.New("other"), syscall.ENOSPC), gofuse.Status(syscall.ENOSPC), false},
		{"no errno", errors.New("what"), gofuse.EIO, true},
		{"zero errno", wrapped(0), gofuse.EIO, true},
		{"EIO", wrapped(syscall.EIO), gofuse.EIO, true},
		{"ENOSYS would be for ever", wrapped(syscall.ENOSYS), gofuse.ENOTSUP, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			f := &faults{log: log.New(&out, "", 0)}
			if got := f.status("read", 0x10, c.err); got != c.want {
				t.Errorf("status(%v) = %v, want %v", c.err, got, c.want)
			}
			if counted := f.count.Load() == 1; counted != c.counts {
				t.Errorf("counted: %v, want %v", counted, c.counts)
			}
			if logged := out.Len() > 0; logged != c.counts {
				t.Errorf("logged %q", out.String())
			}
		})
	}
}

func TestFaultsDoNotFloodTheLog(t *testing.T) {
	var out bytes.Buffer
	f := &faults{log: log.New(&out, "", 0)}
	for range 1000 {
		f.status("read", 1, errors.New("disk on fire"))
	}
	if n := strings.Count(out.String(), "\n"); n > 5 {
		t.Errorf("1000 failures in no time made %d lines", n)
	}
	if got := f.count.Load(); got != 1000 {
		t.Errorf("counted %d of 1000 failures", got)
	}
}

package snapshot

import (
	"errors"
	"syscall"
	"testing"
)

func TestSpare(t *testing.T) {
	s := &spare{dir: scratch(t)}
	free, keep, err := diskRoom(s.dir)
	if err != nil || keep <= 0 {
		t.Fatalf("%d to keep, %v", keep, err)
	}
	if err := s.take(1); err != nil {
		t.Errorf("one byte of %d: %v", free, err)
	}
	if err := s.take(free - keep/2); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("all but half of what is to be kept: %v, want ENOSPC", err)
	}
	if err := s.take(1); err != nil {
		t.Errorf("one byte after that: %v", err)
	}
	if err := canOpen(s.dir); err != nil {
		t.Errorf("open with %d bytes free: %v", free, err)
	}
}

package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// brokenTables has a metadata store fail to write tables while on is set: in the background, its log is well.
type brokenTables struct{ on, hit atomic.Bool }

func (b *brokenTables) fault(op, path string) error {
	if b.on.Load() && strings.HasSuffix(path, ".sst") {
		b.hit.Store(true)
		return fmt.Errorf("%s %s: %w", op, filepath.Base(path), syscall.EIO)
	}
	return nil
}

// TestFailureInBackground: while the metadata store cannot write its tables the live tree cannot be changed, and says why; all can be read. When
// it can again, all goes on, in this life or in the next.
func TestFailureInBackground(t *testing.T) {
	for _, recovers := range []bool{false, true} {
		t.Run(fmt.Sprint("recovers ", recovers), func(t *testing.T) {
			var broken brokenTables
			var reported atomic.Int64
			dir := filepath.Join(scratch(t), "store")
			s, err := Open(dir, Options{Create: true, MetaFault: broken.fault, Report: func(error) { reported.Add(1) }})
			must(t, err)
			must(t, putFile(s, "file", 'a', 10_000))
			_, err = s.Snapshot(Request{Name: "before"})
			must(t, err)
			want := readFrozen(t, s, "before")
			broken.on.Store(true)
			for i := 0; err == nil && i < 1000; i++ {
				err = s.Live().SetXattr(Root, fmt.Sprint("user.", i%100), make([]byte, 60_000), 0)
			}
			if !errors.Is(err, syscall.EIO) || !broken.hit.Load() {
				t.Errorf("changes go on, or fail with %v", err)
			}
			if err := putFile(s, "new", 'b', 10); !errors.Is(err, syscall.EIO) {
				t.Errorf("create: %v, want EIO", err)
			}
			if _, err := s.Snapshot(Request{Name: "meanwhile"}); !errors.Is(err, syscall.EIO) {
				t.Errorf("snapshot: %v, want EIO", err)
			}
			if st := s.Stats(); st.Mode != "ro-after-error" || !strings.Contains(st.ModeReason, ".sst") {
				t.Errorf("mode %s, because of %q", st.Mode, st.ModeReason)
			}
			for start := time.Now(); reported.Load() == 0; time.Sleep(time.Millisecond) {
				if time.Since(start) > time.Minute {
					t.Fatal("nobody was told")
				}
			}
			if got := readFrozen(t, s, "before"); string(got["file"]) != string(want["file"]) {
				t.Errorf("the snapshot has changed: %d bytes", len(got["file"]))
			}
			if recovers {
				broken.on.Store(false)
				for start := time.Now(); s.Stats().Mode != "rw" && time.Since(start) < time.Minute; {
					time.Sleep(time.Millisecond)
				}
				must(t, putFile(s, "file", 'c', 10_000))
				must(t, s.Close())
			} else if err := s.Close(); !errors.Is(err, syscall.EIO) {
				t.Errorf("close: %v, want EIO", err)
			}
			wantFrozen(t, dir, frozenFiles{"before": want})
			report, err := Check(dir)
			if err != nil || len(report.Problems) > 0 {
				t.Errorf("check: %+v, %v", report.Problems, err)
			}
		})
	}
}

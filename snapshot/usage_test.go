package snapshot

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFirstUsage: whoever asks first waits for a measurement that takes longer than others wait for.
func TestFirstUsage(t *testing.T) {
	u := &usage{underWay: make(chan struct{})}
	dir := scratch(t)
	must(t, os.WriteFile(filepath.Join(dir, "file"), make([]byte, 100_000), 0o600))
	go func() {
		time.Sleep(2 * usageWait)
		u.measure(dir, u.underWay)
	}()
	first := u.bytes(dir)
	if first < 100_000 {
		t.Errorf("the first figure is %d", first)
	}
	must(t, os.WriteFile(filepath.Join(dir, "more"), make([]byte, 100_000), 0o600))
	if again := u.bytes(dir); again != first {
		t.Errorf("%d, and %d just before: it is measured all the time", again, first)
	}
	u.mu.Lock()
	u.at = u.at.Add(-usageAge)
	u.underWay = make(chan struct{}) // one that does not end
	u.mu.Unlock()
	if again := u.bytes(dir); again != first {
		t.Errorf("%d while it is measured anew, and %d before", again, first)
	}
}

// TestFirstStats: the figures of a store are there when it has just been opened.
func TestFirstStats(t *testing.T) {
	dir := filepath.Join(scratch(t), "store")
	makeDamageable(t, dir)
	s, err := Open(dir, Options{})
	must(t, err)
	defer s.Close()
	if st := s.Stats(); st.LiveFiles != 1+6+3*60 || st.LiveBytes != 21*9000 || st.StoreBytes < st.LiveBytes {
		t.Errorf("%d files with %d bytes, %d on disk", st.LiveFiles, st.LiveBytes, st.StoreBytes)
	}
	if _, ok := s.Writing(); ok {
		t.Error("a snapshot is being written")
	}
}

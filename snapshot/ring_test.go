package snapshot

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRingOfDirectories: nobody can make a directory that is below itself, but a store from an enemy may have one. A check ends, and names it,
// in the live tree and in snapshots, and names an entry that leads nowhere.
func TestRingOfDirectories(t *testing.T) {
	dir := filepath.Join(scratch(t), "store")
	s, err := Open(dir, Options{Create: true, quiet: true})
	if err != nil {
		t.Fatal(err)
	}
	outer, err := s.Live().Create(Root, "outer", Spec{Mode: unix.S_IFDIR | 0o755})
	agree(t, "mkdir", err, nil)
	inner, err := s.Live().Create(outer.Ino, "inner", Spec{Mode: unix.S_IFDIR | 0o755})
	agree(t, "mkdir", err, nil)
	b := s.db.NewBatch()
	b.PutDirent(inner.Ino, "ring", outer.Ino, unix.S_IFDIR, s.pool.Current(), 0)
	b.PutDirent(inner.Ino, "nowhere", 999, unix.S_IFREG, s.pool.Current(), 0)
	_, err = b.Commit(true)
	agree(t, "write the ring", err, nil)
	_, err = s.Snapshot(Request{Name: "s"})
	agree(t, "snapshot", err, nil)
	agree(t, "close", s.Close(), nil)
	r, err := Check(dir)
	agree(t, "check", err, nil)
	found := ""
	for _, p := range r.Problems {
		found += p.Path + ": " + p.What + "\n"
	}
	for _, want := range []string{"outer/inner/ring: a second name", ".snapshots/s/outer/inner/ring: a second name", "\nouter/inner/nowhere: "} {
		if !strings.Contains("\n"+found, want) {
			t.Errorf("check does not say %q but\n%s", want, found)
		}
	}
}

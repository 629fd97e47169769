package snapfs_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
)

// TestListingOfSnapshotsWhileTheyChange: what is there throughout is listed once, whatever comes and goes beside it, and a rewound handle
// shows what there is now.
func TestListingOfSnapshotsWhileTheyChange(t *testing.T) {
	m := newMount(t)
	var kept []string
	for i := range 12 {
		name := fmt.Sprintf("s%02d", i)
		m.snapshot(name)
		if i%3 > 0 {
			kept = append(kept, name)
		}
	}
	dir, err := os.Open(m.live(".snapshots"))
	need(t, err)
	defer dir.Close()
	names := func(n int) []string {
		t.Helper()
		got, err := dir.Readdirnames(n)
		need(t, err)
		return got
	}
	first := names(1)
	for i := 0; i < 12; i += 3 {
		need(t, os.Remove(m.frozen(fmt.Sprintf("s%02d", i))))
		m.snapshot(fmt.Sprint("new", i))
	}
	counts := map[string]int{}
	for _, name := range append(first, names(-1)...) {
		counts[name]++
	}
	for _, name := range kept {
		if counts[name] != 1 {
			t.Errorf("%s is listed %d times", name, counts[name])
		}
	}
	_, err = dir.Seek(0, 0)
	need(t, err)
	want := append(slices.Clone(kept), "new0", "new3", "new6", "new9")
	got := names(-1)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("rewound: %q, want %q", got, want)
	}
}

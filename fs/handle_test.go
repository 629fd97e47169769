package fs

import (
	"slices"
	"sync"
	"testing"

	"github.com/snapfs/snapfs/snapshot"
)

func TestHandlesCountWriters(t *testing.T) {
	table := newHandles()
	first := table.add(&handle{node: 20, writes: true})
	second := table.add(&handle{node: 20, writes: true})
	reader := table.add(&handle{node: 30})
	if first == 0 || first == second || second == reader {
		t.Fatalf("handle numbers %d, %d, %d", first, second, reader)
	}
	if got := table.written(); !slices.Equal(got, []snapshot.Ino{20}) {
		t.Errorf("written inodes: %v, want 20", got)
	}
	table.remove(first)
	if !table.isWritten(20) {
		t.Error("inode 20 has a writer left")
	}
	table.remove(second)
	if table.isWritten(20) || len(table.written()) != 0 {
		t.Error("inode 20 has no writer left")
	}
	if table.remove(second) != nil || table.get(second) != nil {
		t.Error("a removed handle is still there")
	}
	if table.count() != 1 || !slices.Equal(table.all(), []uint64{reader}) {
		t.Errorf("left: %v", table.all())
	}
}

func TestHandlesConcurrently(t *testing.T) {
	table := newHandles()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 1000 {
				h := &handle{node: nodeID(16 + i%3), writes: true}
				fh := table.add(h)
				if table.get(fh) != h || !table.isWritten(h.node.ino()) {
					t.Error("handle lost")
				}
				table.remove(fh)
			}
		})
	}
	wg.Wait()
	if table.count() != 0 || len(table.written()) != 0 {
		t.Errorf("%d handles and writers of %v left", table.count(), table.written())
	}
}

func TestHiddenNames(t *testing.T) {
	h := newHidden()
	if ino, ok := h.ino(h.name(12345)); !ok || ino != 12345 {
		t.Errorf("hidden name of 12345 means %d, %v", ino, ok)
	}
	for _, name := range []string{"", h.prefix, h.prefix + "x", h.prefix + "-1", h.prefix + "1099511627776", newHidden().name(5)} {
		if ino, ok := h.ino(name); ok {
			t.Errorf("%q means inode %d", name, ino)
		}
	}
	if h.prefix == newHidden().prefix {
		t.Error("two mounts share their hidden names")
	}
}

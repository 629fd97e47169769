package fs

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot"
)

func TestNodeIDsAreViewAndInode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := cow.Epoch(rapid.Uint64Range(1, uint64(maxEpoch)).Draw(t, "epoch"))
		ino := snapshot.Ino(rapid.Uint64Range(1, 1<<inoBits-1).Draw(t, "ino"))
		n := frozenNode(e, ino)
		if n.epoch() != e || n.ino() != ino || !n.isFrozen() || n.isLive() {
			t.Fatalf("frozenNode(%d, %d) = %#x: epoch %d, ino %d", e, ino, n, n.epoch(), n.ino())
		}
		if n>>63 != 0 {
			t.Fatalf("frozenNode(%d, %d) = %#x uses the bit that go-fuse's own inode has", e, ino, n)
		}
		if got := n.sibling(snapshot.Root); got != frozenNode(e, snapshot.Root) {
			t.Fatalf("sibling root of %#x = %#x", n, got)
		}
		if got := liveNode(ino).sibling(ino - 1); got != liveNode(ino-1) {
			t.Fatalf("sibling of live %d = %#x", ino, got)
		}
	})
}

func TestFixedNodeIDs(t *testing.T) {
	if liveNode(snapshot.Root) != rootNode || rootNode != 1 {
		t.Errorf("the live root is node %d, the kernel wants 1", liveNode(snapshot.Root))
	}
	if snapdirNode.isLive() || snapdirNode.isFrozen() {
		t.Error(".snapshots counts as an inode of a tree")
	}
	if !rootNode.isLive() {
		t.Error("the live root is not live")
	}
}

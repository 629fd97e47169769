package fs

import (
	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot"
)

// nodeID is what the kernel calls an inode, and what stat(2) shows as its number: view<<40 | ino.
//
//	 63 62        40 39             0
//	+--+------------+----------------+
//	| 0|    view    |      ino       |    view 0: the live tree; view e: the frozen epoch e
//	+--+------------+----------------+
//
// So inode numbers differ between the live tree and every snapshot, and need no table. Inode numbers are never reused,
// neither are epochs, so the kernel's generation is always 0. Two ids of view 0 are fixed: 1 is the live root (the kernel
// insists on it; snapshot.Root is 1 as well), 2 is the .snapshots directory, which is no inode of the tree: those start
// at 16. go-fuse keeps ^0 for itself, which bit 63 keeps apart from all of ours.
type nodeID uint64

const (
	inoBits  = 40
	viewBits = 23

	rootNode    nodeID = nodeID(snapshot.Root)
	snapdirNode nodeID = 2
)

// maxEpoch is the last epoch that can be browsed.
const maxEpoch cow.Epoch = 1<<viewBits - 1

func liveNode(ino snapshot.Ino) nodeID { return nodeID(ino) }

func frozenNode(e cow.Epoch, ino snapshot.Ino) nodeID {
	return nodeID(e)<<inoBits | nodeID(ino)
}

// sibling returns the id of another inode in the view of n.
func (n nodeID) sibling(ino snapshot.Ino) nodeID {
	return n>>inoBits<<inoBits | nodeID(ino)
}

// epoch returns the frozen epoch that n belongs to, 0 for the live tree and .snapshots.
func (n nodeID) epoch() cow.Epoch { return cow.Epoch(n >> inoBits) }

func (n nodeID) ino() snapshot.Ino { return snapshot.Ino(n & (1<<inoBits - 1)) }

func (n nodeID) isFrozen() bool { return n.epoch() != 0 }

// isLive reports whether n is an inode of the live tree.
func (n nodeID) isLive() bool { return !n.isFrozen() && n != snapdirNode }

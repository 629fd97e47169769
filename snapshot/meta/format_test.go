package meta

import (
	"encoding/hex"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/snapfs/snapfs/cow"
)

var goldenInode = Inode{Mode: 0o120777, Nlink: 2, UID: 3, GID: 4, Rdev: 5, Content: 6, Born: 7, Size: 8, Reach: 9, Blocks: 10,
	Stable: true, Atime: Time{11, 12}, Mtime: Time{-13, 14}, Ctime: Time{15, 16}, Btime: Time{17, 18}, Parent: 19, Target: "a/b"}

const goldenInodeHex = "01010000" + "0000a1ff" + "00000002" + "00000003" + "00000004" + "00000005" + "00000000" +
	"0000000000000006" + "0000000000000007" + "0000000000000008" + "0000000000000009" + "000000000000000a" +
	"000000000000000b" + "0000000c" + "fffffffffffffff3" + "0000000e" + "000000000000000f" + "00000010" + "0000000000000011" + "00000012" +
	"0000000000000013" + "0000000000000000" + "0003" + "612f62"

func checkHex(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if hex.EncodeToString(got) != want {
		t.Errorf("%s is\n%x, want\n%s", what, got, want)
	}
}

// TestGolden pins the bytes on disk: a change here is a change of the format.
func TestGolden(t *testing.T) {
	d := &DB{salt: [saltSize]byte{1, 2, 3}}
	b := encodeInode(&goldenInode)
	checkHex(t, "inode record", b[:len(b)-crcSize], goldenInodeHex)
	checkHex(t, "its checksum", b[len(b)-crcSize:], "e44b370e")
	checkHex(t, "directory entry", encodeDirent(0x1234, 0o040000), "01040000000000001234")
	checkHex(t, "length", encodeLength(0x1234), "010000000000001234")
	checkHex(t, "xattr", encodeXattr([]byte("v")), "0176")
	checkHex(t, "inode key", inodeKey(5).at(2), "690000000000000005fffffffffffffffd")
	checkHex(t, "entry key", d.direntKey(5, "n").at(2), "640000000000000005"+"75620aa695ed1553"+"6e00"+"fffffffffffffffd")
	checkHex(t, "xattr key", xattrKey(5, "user.n").at(2), "780000000000000005"+"757365722e6e00"+"fffffffffffffffd")
	checkHex(t, "touched key", touchedKey(2, inodeKey(5)), "740000000000000002"+"690000000000000005")
	checkHex(t, "undo key", undoKey(1, 2, 3), "75000000000000000100000000000000020000000000000003")
	places := []cow.Place{{ID: 1, Page: 0x205, Log: 3, Block: 7, CRC: 9}, {ID: 1, Page: 0x201, Log: 3, Zero: true, CRC: 8}}
	checkHex(t, "undo places", encodePlaces(places), "01"+"0101000000080000000000000000"+"0500000000090000000000000007")
	s, err := encodeSnapshot(&Snapshot{Name: "n", Time: time.Unix(1, 5), State: Pending, NextContent: 4})
	want := "\x01" + `{"name":"n","time":1000000005,"state":"pending","next_content":4,"freeze_usec":0,"fork_usec":0,"captured_bytes":0,"seconds":0}`
	if err != nil || string(s) != want {
		t.Errorf("snapshot record is %q, %v", s, err)
	}
	s, err = encodeSnapshot(&Snapshot{Name: "n", Time: time.Unix(1, 5), State: Durable, Temporary: true})
	want = "\x01" + `{"name":"n","time":1000000005,"state":"durable","next_content":0,"freeze_usec":0,"fork_usec":0,"captured_bytes":0,"seconds":0,"temporary":true}`
	if err != nil || string(s) != want {
		t.Errorf("record of a temporary snapshot is %q, %v", s, err)
	}
}

func TestInodeRoundTrip(t *testing.T) {
	got, err := decodeInode(encodeInode(&goldenInode))
	if err != nil || got != goldenInode {
		t.Errorf("got %+v, %v", got, err)
	}
	b := encodeInode(&goldenInode)
	for i := range b {
		bad := slices.Clone(b)
		bad[i] ^= 0x40
		if _, err := decodeInode(bad); err == nil {
			t.Errorf("a flipped bit in byte %d goes unnoticed", i)
		}
	}
}

func FuzzDecode(f *testing.F) {
	s, _ := encodeSnapshot(&Snapshot{Name: "n", State: Pending})
	for _, b := range [][]byte{encodeInode(&goldenInode), encodeDirent(1, 0o040000), encodeLength(5), s, {0}, {}, inodeKey(5).at(2),
		encodePlaces([]cow.Place{{Page: 3}, {Page: 9, Zero: true}})} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeInode(b); err == nil && !slices.Equal(encodeInode(&r), b) {
			t.Errorf("inode record %x is not what its content encodes to", b)
		}
		if ino, typ, err := decodeDirent(b); err == nil && !slices.Equal(encodeDirent(ino, typ), b) {
			t.Errorf("directory entry %x is not what its content encodes to", b)
		}
		if n, err := decodeLength(b); err == nil && !slices.Equal(encodeLength(n), b) {
			t.Errorf("length %x is not what its content encodes to", b)
		}
		c := chunkKey{1, 2, 3}
		if ps, err := decodePlaces(c, b); err == nil {
			if again, err := decodePlaces(c, encodePlaces(slices.Clone(ps))); err != nil || !places(again, ps) {
				t.Errorf("undo places %x decode to %v, then to %v, %v", b, ps, again, err)
			}
		}
		if s, err := decodeSnapshot(b); err == nil {
			again, err := encodeSnapshot(&s)
			s2, err2 := decodeSnapshot(again)
			if err != nil || err2 != nil || !reflect.DeepEqual(s, s2) {
				t.Errorf("snapshot record %q decodes to %v, then to %v, %v, %v", b, s, s2, err, err2)
			}
		}
		if k, err := parseKey(b); err == nil {
			_, _, _ = k.Kind(), k.Ino(), k.Name()
		}
	})
}

// places compares what a chunk holds; the block of a zero page says nothing.
func places(a, b []cow.Place) bool {
	return slices.EqualFunc(a, b, func(x, y cow.Place) bool {
		if x.Zero {
			x.Block, y.Block = 0, 0
		}
		return x == y
	})
}

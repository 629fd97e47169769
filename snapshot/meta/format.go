package meta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/snapfs/snapfs/cow"
)

// formatVersion is the version of the key space; a store of a newer one is refused.
//
//	2  known lengths of contents, which a program of version 1 would not forget before it cuts a base file
const formatVersion = 2

// valueVersion starts every value; tombstone is the whole value of a removed key.
const (
	tombstone    = 0
	valueVersion = 1
)

// First bytes of keys.
const (
	kindLength   = 'b'
	kindDirent   = 'd'
	kindGarbage  = 'g'
	kindInode    = 'i'
	kindLog      = 'l'
	kindMark     = 'm'
	kindOrphan   = 'o'
	kindSnapshot = 's'
	kindTouched  = 't'
	kindUndo     = 'u'
	kindXattr    = 'x'
)

// Names of marks.
const (
	markFormat  = "format"
	markSalt    = "salt"
	markIno     = "ino"
	markContent = "content"
	markClean   = "clean"
	markEpoch   = "epoch"
)

const (
	saltSize   = 16
	epochSize  = 8
	minCookie  = 16
	firstIno   = 16  // 1 is the root; the others below are for callers, for what is no inode of the tree
	inodeFixed = 134 // bytes of an inode record before the target
	crcSize    = 4
)

// ErrDamaged is wrapped by the errors that report bytes which nobody could have written.
var ErrDamaged = errors.New("metadata is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ---- keys ----

func key1(kind byte, a uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 24), kind), a)
}

func key2(kind byte, a, b uint64) []byte {
	return binary.BigEndian.AppendUint64(key1(kind, a), b)
}

func inodeKey(ino Ino) Key { return Key(key1(kindInode, uint64(ino))) }

func (d *DB) direntKey(parent Ino, name string) Key {
	k := key2(kindDirent, uint64(parent), d.cookie(name))
	return Key(append(append(k, name...), 0))
}

func xattrKey(ino Ino, name string) Key {
	return Key(append(append(key1(kindXattr, uint64(ino)), name...), 0))
}

func markKey(name string) []byte { return append([]byte{kindMark}, name...) }

func undoKey(id cow.ID, chunk uint64, log cow.Epoch) []byte {
	return binary.BigEndian.AppendUint64(key2(kindUndo, uint64(id), chunk), uint64(log))
}

func touchedKey(e cow.Epoch, k Key) []byte {
	return append(key1(kindTouched, uint64(e)), k...)
}

// at returns the key of the version of k written in epoch e.
func (k Key) at(e cow.Epoch) []byte {
	b := append(make([]byte, 0, len(k)+epochSize), k...)
	return binary.BigEndian.AppendUint64(b, ^uint64(e))
}

// end returns a key after every version of k.
func (k Key) end() []byte { return append(k.at(0), 0) }

// splitVersion parts a stored key into the key and its epoch.
func splitVersion(stored []byte) (Key, cow.Epoch, error) {
	if len(stored) < 1+8+epochSize {
		return "", 0, damaged("key", stored)
	}
	n := len(stored) - epochSize
	return Key(stored[:n]), cow.Epoch(^binary.BigEndian.Uint64(stored[n:])), nil
}

// cookie is the position of a name in its directory.
func (d *DB) cookie(name string) uint64 {
	buf := make([]byte, 0, saltSize+256)
	sum := sha256.Sum256(append(append(buf, d.salt[:]...), name...))
	c := binary.BigEndian.Uint64(sum[:]) >> 1
	return max(c, minCookie)
}

// Key names an inode, a directory entry or an extended attribute, whatever its version.
type Key string

// Kind says what a key names.
type Kind byte

// What a Key can name.
const (
	KindInode  Kind = kindInode
	KindDirent Kind = kindDirent
	KindXattr  Kind = kindXattr
)

// Kind returns what the key names.
func (k Key) Kind() Kind { return Kind(k[0]) }

// Ino returns the inode: of a directory entry the directory's.
func (k Key) Ino() Ino { return Ino(binary.BigEndian.Uint64([]byte(k[1:9]))) }

// Name returns the name of a directory entry or an extended attribute, "" for an inode.
func (k Key) Name() string {
	switch k.Kind() {
	case KindDirent:
		return string(k[17 : len(k)-1])
	case KindXattr:
		return string(k[9 : len(k)-1])
	}
	return ""
}

// parseKey checks what is to be a Key, so that its accessors cannot fail.
func parseKey(b []byte) (Key, error) {
	if len(b) == 9 && b[0] == kindInode {
		return Key(b), nil
	}
	least := 10
	if len(b) > 0 && b[0] == kindDirent {
		least = 18
	} else if len(b) == 0 || b[0] != kindXattr {
		return "", damaged("key", b)
	}
	if len(b) < least || b[len(b)-1] != 0 {
		return "", damaged("key", b)
	}
	return Key(b), nil
}

// ---- values ----

func isTombstone(v []byte) bool { return len(v) == 1 && v[0] == tombstone }

func damaged(what string, b []byte) error {
	if len(b) > 64 {
		b = b[:64]
	}
	return fmt.Errorf("meta: %s %x: %w", what, b, ErrDamaged)
}

func encodeInode(r *Inode) []byte {
	b := make([]byte, 4, inodeFixed+len(r.Target)+crcSize)
	b[0] = valueVersion
	if r.Stable {
		b[1] = 1
	}
	be := binary.BigEndian
	for _, v := range [...]uint32{r.Mode, r.Nlink, r.UID, r.GID, r.Rdev, 0} {
		b = be.AppendUint32(b, v)
	}
	for _, v := range [...]uint64{uint64(r.Content), uint64(r.Born), uint64(r.Size), uint64(r.Reach), uint64(r.Blocks)} {
		b = be.AppendUint64(b, v)
	}
	for _, t := range [...]Time{r.Atime, r.Mtime, r.Ctime, r.Btime} {
		b = be.AppendUint32(be.AppendUint64(b, uint64(t.Sec)), t.Nsec)
	}
	b = be.AppendUint64(be.AppendUint64(b, uint64(r.Parent)), 0)
	b = be.AppendUint16(b, uint16(len(r.Target)))
	b = append(b, r.Target...)
	return be.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeInode(b []byte) (r Inode, err error) {
	be := binary.BigEndian
	n := len(b) - crcSize
	if n < inodeFixed || b[0] != valueVersion || b[1] > 1 || crc32.Checksum(b[:n], castagnoli) != be.Uint32(b[n:]) {
		return r, damaged("inode record", b)
	}
	if b[2] != 0 || b[3] != 0 || be.Uint32(b[24:]) != 0 || be.Uint64(b[124:]) != 0 || int(be.Uint16(b[132:])) != n-inodeFixed {
		return r, damaged("inode record", b)
	}
	r.Stable = b[1] == 1
	for i, v := range [...]*uint32{&r.Mode, &r.Nlink, &r.UID, &r.GID, &r.Rdev} {
		*v = be.Uint32(b[4+4*i:])
	}
	r.Content, r.Born = cow.ID(be.Uint64(b[28:])), cow.Epoch(be.Uint64(b[36:]))
	for i, v := range [...]*int64{&r.Size, &r.Reach, &r.Blocks} {
		*v = int64(be.Uint64(b[44+8*i:]))
	}
	if r.Size < 0 || r.Reach < 0 || r.Blocks < 0 {
		return r, damaged("inode record", b)
	}
	for i, t := range [...]*Time{&r.Atime, &r.Mtime, &r.Ctime, &r.Btime} {
		t.Sec, t.Nsec = int64(be.Uint64(b[68+12*i:])), be.Uint32(b[76+12*i:])
	}
	r.Parent = Ino(be.Uint64(b[116:]))
	r.Target = string(b[inodeFixed:n])
	return r, nil
}

func encodeDirent(ino Ino, typ uint32) []byte {
	return binary.BigEndian.AppendUint64([]byte{valueVersion, byte(typ >> 12)}, uint64(ino))
}

func decodeDirent(b []byte) (ino Ino, typ uint32, err error) {
	if len(b) != 10 || b[0] != valueVersion || b[1] > 15 {
		return 0, 0, damaged("directory entry", b)
	}
	return Ino(binary.BigEndian.Uint64(b[2:])), uint32(b[1]) << 12, nil
}

// lengthMeasured is the value of the mark of an orderly shutdown after which the length of every base file is known.
const lengthMeasured = 1

func encodeLength(n int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{valueVersion}, uint64(n))
}

func decodeLength(b []byte) (int64, error) {
	if len(b) != 9 || b[0] != valueVersion || int64(binary.BigEndian.Uint64(b[1:])) <= 0 {
		return 0, damaged("known length", b)
	}
	return int64(binary.BigEndian.Uint64(b[1:])), nil
}

func encodeXattr(value []byte) []byte { return append([]byte{valueVersion}, value...) }

func decodeXattr(b []byte) ([]byte, error) {
	if len(b) == 0 || b[0] != valueVersion {
		return nil, damaged("extended attribute", b)
	}
	return bytes.Clone(b[1:]), nil
}

// snapshotJSON is the form of a snapshot record on disk. Fields may be added with a default of zero.
type snapshotJSON struct {
	Name        string   `json:"name"`
	Time        int64    `json:"time"` // nanoseconds since 1970
	State       string   `json:"state"`
	Holds       []string `json:"holds,omitempty"`
	Description string   `json:"description,omitempty"`
	NextContent uint64   `json:"next_content"`
	FreezeUsec  int64    `json:"freeze_usec"`
	ForkUsec    int64    `json:"fork_usec"`
	Captured    int64    `json:"captured_bytes"`
	Seconds     float64  `json:"seconds"`
	Temporary   bool     `json:"temporary,omitempty"`
}

func encodeSnapshot(s *Snapshot) ([]byte, error) {
	j, err := json.Marshal(snapshotJSON{s.Name, s.Time.UnixNano(), string(s.State), s.Holds, s.Description,
		uint64(s.NextContent), s.FreezeUsec, s.ForkUsec, s.CapturedBytes, s.Seconds, s.Temporary})
	if err != nil {
		return nil, fmt.Errorf("meta: encode snapshot %q: %w", s.Name, err)
	}
	return append([]byte{valueVersion}, j...), nil
}

func decodeSnapshot(b []byte) (Snapshot, error) {
	var j snapshotJSON
	if len(b) == 0 || b[0] != valueVersion {
		return Snapshot{}, damaged("snapshot record", b)
	}
	if err := json.Unmarshal(b[1:], &j); err != nil {
		return Snapshot{}, fmt.Errorf("%w: %v", damaged("snapshot record", b), err)
	}
	s := Snapshot{Name: j.Name, Time: time.Unix(0, j.Time).UTC(), State: State(j.State), Holds: j.Holds, Description: j.Description,
		NextContent: cow.ID(j.NextContent), FreezeUsec: j.FreezeUsec, ForkUsec: j.ForkUsec, CapturedBytes: j.Captured, Seconds: j.Seconds, Temporary: j.Temporary}
	if !s.State.valid() || s.Name == "" {
		return Snapshot{}, damaged("snapshot record", b)
	}
	return s, nil
}

// Latest is later than every epoch: the live tree is read as of it.
const Latest cow.Epoch = math.MaxUint64

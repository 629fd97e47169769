package powercut

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Ledger is what must be, and what may be, after a cut.
type Ledger struct {
	files map[string]*file
	whole map[string]*versions // files that are replaced
	names names
	snaps map[string]*snapState
}

// file is one that is overwritten. durable is what it holds for sure where no operation has changed it since.
type file struct {
	there   bool // it cannot be missing
	durable []byte
	ops     []change // begun since
}

// change is one operation on a file.
type change struct {
	n         int
	truncate  bool
	off, size int64 // of a truncation only size
}

// versions are the contents that a replaced file may have.
type versions struct {
	promised int         // the oldest that may be there; 0: it may be missing
	size     map[int]int // length by version
}

// names are the symbolic links. Their changes become durable in order.
type names struct {
	durable map[string]string
	ops     []rename
}

type rename struct {
	n        int
	kind     string
	from, to string
}

type snapState struct {
	hash     string
	promised bool
	deleting bool
}

// NewLedger begins with an empty tree.
func NewLedger() *Ledger {
	return &Ledger{files: map[string]*file{}, whole: map[string]*versions{}, snaps: map[string]*snapState{}, names: names{durable: map[string]string{}}}
}

// fill returns what operation n writes: every 8 bytes say which operation it was, and where.
func fill(n, length int) []byte {
	b := make([]byte, (length+7)/8*8)
	for i := 0; i < len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], uint64(n)<<24|uint64(i))
	}
	return b[:length]
}

// Hear reads a part of a journal: whole lines. Promises count only if they are valid: given before the cut.
func (l *Ledger) Hear(journal string, promises bool) {
	for line := range strings.Lines(journal) {
		f := strings.Fields(line)
		switch f[0] {
		case "op":
			l.file(f[1]).begin(f[2:])
		case "replace":
			l.version(f[1]).size[number(f[2])] = number(f[3])
		case "name":
			l.names.ops = append(l.names.ops, rename{number(f[1]), f[2], f[3], strings.Join(f[4:], "")})
		case "snap":
			l.snaps[f[1]] = &snapState{hash: f[2]}
		case "delete":
			l.snaps[f[1]].deleting = true
		}
		if !promises {
			continue
		}
		switch f[0] {
		case "synced":
			l.file(f[1]).promise(number(f[2]))
		case "replaced":
			l.version(f[1]).promised = number(f[2])
		case "named":
			l.names.promise(number(f[1]))
		case "snapped":
			l.snaps[f[1]].promised = true
		case "deleted":
			delete(l.snaps, f[1])
		}
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic("journal: " + err.Error())
	}
	return n
}

func (l *Ledger) file(name string) *file {
	if l.files[name] == nil {
		l.files[name] = &file{}
	}
	return l.files[name]
}

func (l *Ledger) version(name string) *versions {
	if l.whole[name] == nil {
		l.whole[name] = &versions{size: map[int]int{}}
	}
	return l.whole[name]
}

func (f *file) begin(words []string) {
	c := change{n: number(words[0]), truncate: words[1] == "truncate", size: int64(number(words[len(words)-1]))}
	if !c.truncate {
		c.off = int64(number(words[2]))
	}
	f.ops = append(f.ops, c)
}

// promise makes everything up to operation n durable.
func (f *file) promise(n int) {
	f.there = true
	for len(f.ops) > 0 && f.ops[0].n <= n {
		f.durable = f.ops[0].apply(f.durable)
		f.ops = f.ops[1:]
	}
}

// apply returns what a content is after the change. The old one stays as it is.
func (c change) apply(old []byte) []byte {
	end := c.off + c.size
	if c.truncate {
		end = c.size
	}
	length := max(int64(len(old)), end)
	if c.truncate {
		length = end
	}
	b := make([]byte, length)
	copy(b, old)
	if !c.truncate {
		copy(b[c.off:], fill(c.n, int(c.size)))
	}
	return b
}

// promise makes everything up to operation n durable.
func (x *names) promise(n int) {
	for len(x.ops) > 0 && x.ops[0].n <= n {
		x.durable = x.ops[0].apply(x.durable)
		x.ops = x.ops[1:]
	}
}

func (r rename) apply(old map[string]string) map[string]string {
	m := maps.Clone(old)
	switch r.kind {
	case "link":
		m[r.from] = r.to
	case "rename":
		m[r.to] = m[r.from]
		delete(m, r.from)
	case "unlink":
		delete(m, r.from)
	}
	return m
}

// Clone returns a copy that may go its own way.
func (l *Ledger) Clone() *Ledger {
	c := NewLedger()
	for name, f := range l.files {
		c.files[name] = &file{f.there, f.durable, slices.Clone(f.ops)}
	}
	for name, v := range l.whole {
		c.whole[name] = &versions{v.promised, maps.Clone(v.size)}
	}
	for name, s := range l.snaps {
		s := *s
		c.snaps[name] = &s
	}
	c.names = names{l.names.durable, slices.Clone(l.names.ops)}
	return c
}

// Verify compares a tree, opened after a cut, with the ledger. Where they agree the tree as found is what the next cut is held
// to: opening a store after a crash makes durable what it shows.
func (l *Ledger) Verify(t Reader) error {
	for name, f := range l.files {
		if err := f.verify(t, name); err != nil {
			return err
		}
	}
	for name, v := range l.whole {
		if err := v.verify(t, name); err != nil {
			return err
		}
	}
	if err := l.names.verify(t); err != nil {
		return err
	}
	return l.verifySnapshots(t)
}

// sector is the smallest part of a file that is old or new as a whole.
const sector = 512

func (f *file) verify(t Reader, name string) error {
	got, err := t.Read(name)
	if errors.Is(err, iofs.ErrNotExist) && !f.there {
		*f = file{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	images := [][]byte{f.durable}
	for _, op := range f.ops {
		images = append(images, op.apply(images[len(images)-1]))
	}
	if !f.wasLong(images, len(got)) {
		return fmt.Errorf("%s is %d bytes long, which it never was since it was %d and durable", name, len(got), len(f.durable))
	}
	for at := 0; at < len(got); at += sector {
		part := got[at:min(at+sector, len(got))]
		if !slices.ContainsFunc(images, func(b []byte) bool { return holds(b, at, part) }) {
			return fmt.Errorf("%s at byte %d holds %x, which is none of %d contents since operation %d", name, at, part[:min(8, len(part))], len(images), f.since())
		}
	}
	*f = file{there: true, durable: got}
	return nil
}

// wasLong reports whether one of the images has a length, or a write that makes one of the next stopped there: its process was killed.
func (f *file) wasLong(images [][]byte, length int) bool {
	for i, b := range images {
		if len(b) == length || i > 0 && !f.ops[i-1].truncate && len(images[i-1]) < length && length < len(b) {
			return true
		}
	}
	return false
}

// since returns the first operation that is not durable.
func (f *file) since() int {
	if len(f.ops) == 0 {
		return 0
	}
	return f.ops[0].n
}

// holds reports whether image, continued with zeros, has part at byte at.
func holds(image []byte, at int, part []byte) bool {
	want := make([]byte, len(part))
	if at < len(image) {
		copy(want, image[at:])
	}
	return bytes.Equal(part, want)
}

func (v *versions) verify(t Reader, name string) error {
	got, err := t.Read(name)
	if errors.Is(err, iofs.ErrNotExist) && v.promised == 0 {
		v.size = map[int]int{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for n, size := range v.size {
		if n >= v.promised && bytes.Equal(got, fill(n, size)) {
			*v = versions{n, map[int]int{n: size}}
			return nil
		}
	}
	return fmt.Errorf("%s of %d bytes, beginning %x, is not whole, or older than version %d", name, len(got), got[:min(8, len(got))], v.promised)
}

func (x *names) verify(t Reader) error {
	got, err := t.Links()
	if err != nil {
		return fmt.Errorf("names: %w", err)
	}
	state := x.durable
	for i := 0; ; i++ {
		if maps.Equal(got, state) {
			*x = names{durable: got}
			return nil
		}
		if i == len(x.ops) {
			return fmt.Errorf("the names are %v, which they never were since they were %v and durable", got, x.durable)
		}
		state = x.ops[i].apply(state)
	}
}

func (l *Ledger) verifySnapshots(t Reader) error {
	found, err := t.Snapshots()
	if err != nil {
		return err
	}
	for _, name := range found {
		s := l.snaps[name]
		if s == nil {
			return fmt.Errorf("snapshot %s is there again", name)
		}
		got, err := t.Hash(name)
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", name, err)
		}
		if got != s.hash {
			return fmt.Errorf("snapshot %s has changed: its digest is %s, it was %s (acknowledged: %v)", name, got, s.hash, s.promised)
		}
		*s = snapState{hash: got, promised: true}
	}
	for name, s := range l.snaps {
		if slices.Contains(found, name) {
			continue
		}
		if s.promised && !s.deleting {
			return fmt.Errorf("snapshot %s is lost", name)
		}
		delete(l.snaps, name)
	}
	return nil
}

// Snapshots returns how many snapshots there are for sure.
func (l *Ledger) Snapshots() int { return len(l.snaps) }

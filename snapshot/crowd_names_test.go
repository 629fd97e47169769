package snapshot

import (
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
)

// thing is what an inode has to be.
type thing struct {
	ino    Ino
	typ    uint32
	data   []byte
	xattrs map[string]string
	names  int
	target string
	open   *Handle
}

// place is where a name can be.
type place struct {
	dir  Ino
	name string
}

// patch is a set of places and what is there: one of the crowd at a time changes them. Things have all of their names in one patch.
type patch struct {
	index int

	mu     sync.Mutex
	places []place
	things map[place]*thing // GUARDED_BY mu
}

// worker is one of those who change names.
type worker struct {
	l *Live
	r *rand.Rand
}

var patchList = acl{{aclUserObj, 6, noID}, {aclUser, 4, 7}, {aclGroupObj, 4, noID}, {aclMask, 4, noID}, {aclOther, 0, noID}}.encode()

// flicker makes and removes a name without bytes, which is quick, a few times.
func (w *worker) flicker(p *patch) (err error) {
	at := p.places[w.r.IntN(len(p.places))]
	for n := w.r.IntN(12); n >= 0 && err == nil; n-- {
		if p.things[at] != nil {
			err = w.remove(p, at)
		} else {
			err = w.makeLink(p, at)
		}
	}
	return err
}

func (w *worker) makeLink(p *patch, at place) error {
	t := &thing{typ: syscall.S_IFLNK, target: "to " + at.name, xattrs: map[string]string{}, names: 1}
	a, err := w.l.Create(at.dir, at.name, Spec{Mode: t.typ | 0o777, Target: t.target})
	if err != nil {
		return err
	}
	t.ino = a.Ino
	p.things[at] = t
	return nil
}

// step does one thing in patch p, or between p and q, both locked.
func (w *worker) step(p, q *patch) error {
	at := p.places[w.r.IntN(len(p.places))]
	to := p.places[w.r.IntN(len(p.places))]
	switch k := w.r.IntN(20); {
	case k < 4:
		return w.create(p, at)
	case k < 7:
		return w.remove(p, at)
	case k < 9:
		return w.link(p, at, to)
	case k < 12:
		return w.rename(p, at, p, to)
	case k < 13:
		return w.rename(p, at, q, q.places[w.r.IntN(len(q.places))])
	case k < 15:
		return w.write(p, at)
	case k < 16:
		return w.truncate(p, at)
	case k < 18:
		return w.xattr(p, at)
	case k < 19:
		return w.nameless(p, at)
	default:
		return w.sync(p, at)
	}
}

func (w *worker) create(p *patch, at place) error {
	if p.things[at] != nil {
		return nil
	}
	if w.r.IntN(4) == 0 {
		return w.makeLink(p, at)
	}
	t := &thing{typ: []uint32{syscall.S_IFREG, syscall.S_IFREG, syscall.S_IFDIR}[w.r.IntN(3)], xattrs: map[string]string{}, names: 1}
	a, err := w.l.Create(at.dir, at.name, Spec{Mode: t.typ | 0o640})
	if err != nil {
		return err
	}
	t.ino = a.Ino
	p.things[at] = t
	if t.typ == syscall.S_IFREG {
		return w.write(p, at)
	}
	return nil
}

func (w *worker) remove(p *patch, at place) error {
	t := p.things[at]
	if t == nil {
		return nil
	}
	remove := w.l.Unlink
	if t.typ == syscall.S_IFDIR {
		remove = w.l.Rmdir
	}
	if err := remove(at.dir, at.name); err != nil {
		return err
	}
	delete(p.things, at)
	return w.lost(t)
}

// lost is for a thing that lost a name: without one the kernel forgets it, before or after it is closed.
func (w *worker) lost(t *thing) (err error) {
	if t.names--; t.names > 0 {
		return nil
	}
	early := w.r.IntN(2) == 0
	if early {
		w.l.Forget(t.ino)
	}
	if t.open != nil {
		err = t.open.Close()
	}
	if !early {
		w.l.Forget(t.ino)
	}
	return err
}

func (w *worker) link(p *patch, from, to place) error {
	t := p.things[from]
	if t == nil || t.typ == syscall.S_IFDIR || p.things[to] != nil {
		return nil
	}
	if _, err := w.l.Link(t.ino, to.dir, to.name); err != nil {
		return err
	}
	t.names++
	p.things[to] = t
	return nil
}

func (w *worker) rename(p *patch, from place, q *patch, to place) error {
	t, over := p.things[from], q.things[to]
	if t == nil || t == over || p != q && (t.names > 1 || over != nil && over.names > 1) {
		return nil
	}
	if over != nil && w.r.IntN(3) == 0 {
		p.things[from], q.things[to] = over, t
		_, err := w.l.Rename(from.dir, from.name, to.dir, to.name, unix.RENAME_EXCHANGE)
		return err
	}
	if over != nil && (t.typ == syscall.S_IFDIR) != (over.typ == syscall.S_IFDIR) {
		return nil
	}
	if _, err := w.l.Rename(from.dir, from.name, to.dir, to.name, 0); err != nil {
		return err
	}
	delete(p.things, from)
	q.things[to] = t
	if over != nil {
		return w.lost(over)
	}
	return nil
}

// file has the file at a place open, if one is there.
func (w *worker) file(p *patch, at place) (t *thing, err error) {
	t = p.things[at]
	if t == nil || t.typ != syscall.S_IFREG {
		return nil, nil
	}
	if t.open == nil {
		t.open, err = w.l.OpenFile(t.ino)
	}
	return t, err
}

// leave closes a file, or not.
func (w *worker) leave(t *thing) error {
	if w.r.IntN(2) == 0 {
		return nil
	}
	h := t.open
	t.open = nil
	return h.Close()
}

func (w *worker) write(p *patch, at place) error {
	t, err := w.file(p, at)
	if t == nil || err != nil {
		return err
	}
	return errors.Join(w.fill(t), w.leave(t))
}

func (w *worker) fill(t *thing) error {
	data := make([]byte, w.r.IntN(2*cow.PageSize)+1)
	off := w.r.IntN(2 * cow.PageSize)
	b := byte(w.r.Uint32())
	for i := range data {
		data[i] = b
	}
	if _, err := t.open.WriteAt(data, int64(off), false); err != nil {
		return err
	}
	t.data = append(t.data, make([]byte, max(0, off+len(data)-len(t.data)))...)
	copy(t.data[off:], data)
	return nil
}

func (w *worker) truncate(p *patch, at place) error {
	t := p.things[at]
	if t == nil || t.typ != syscall.S_IFREG {
		return nil
	}
	size := w.r.IntN(2) * w.r.IntN(3*cow.PageSize)
	if _, err := w.l.SetAttr(t.ino, Change{Set: SetSize, Size: int64(size)}); err != nil {
		return err
	}
	t.data = append(t.data[:min(size, len(t.data)):min(size, len(t.data))], make([]byte, max(0, size-len(t.data)))...)
	return nil
}

func (w *worker) xattr(p *patch, at place) error {
	t := p.things[at]
	if t == nil || t.typ == syscall.S_IFLNK {
		return nil
	}
	name := []string{"user.a", "user.b", accessACL}[w.r.IntN(3)]
	if _, there := t.xattrs[name]; there && w.r.IntN(2) == 0 {
		delete(t.xattrs, name)
		return w.l.RemoveXattr(t.ino, name)
	}
	value := fmt.Appendf(nil, "%x", w.r.Uint32())
	if name == accessACL {
		value = patchList
	}
	t.xattrs[name] = string(value)
	return w.l.SetXattr(t.ino, name, value, 0)
}

// nameless makes a file without a name and gives it one, if the place is free, else lets go of it.
func (w *worker) nameless(p *patch, at place) error {
	a, err := w.l.CreateNameless(at.dir, Spec{Mode: syscall.S_IFREG | 0o600}, true)
	if err != nil {
		return err
	}
	t := &thing{ino: a.Ino, typ: syscall.S_IFREG, xattrs: map[string]string{}, names: 1}
	if t.open, err = w.l.OpenFile(t.ino); err != nil {
		return err
	}
	if err := w.fill(t); err != nil {
		return err
	}
	if p.things[at] != nil {
		return w.lost(t)
	}
	p.things[at] = t
	_, err = w.l.Link(t.ino, at.dir, at.name)
	return err
}

func (w *worker) sync(p *patch, at place) error {
	t, err := w.file(p, at)
	if err != nil {
		return err
	}
	if t == nil {
		return w.l.Sync()
	}
	return errors.Join(t.open.Sync(w.r.IntN(2) == 0), w.leave(t))
}

// differs says where the live tree is not what the patch says. p.mu is held, or nobody changes anything.
func (p *patch) differs(l *Live) error {
	for _, at := range p.places {
		a, err := l.Lookup(at.dir, at.name)
		t := p.things[at]
		if t == nil {
			if !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("%s is there: inode %d, %w", at.name, a.Ino, err)
			}
			continue
		}
		if err == nil {
			err = t.differs(l, a)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", at.name, err)
		}
	}
	return nil
}

func (t *thing) differs(l *Live, a Attr) error {
	want := fmt.Sprintf("inode %d type %o links %d xattrs %q target %q bytes %d %08x", t.ino, t.typ, t.links(), sorted(t.xattrs), t.target,
		len(t.data), crc32.ChecksumIEEE(t.data))
	xattrs := map[string]string{}
	names, err := l.Xattrs(a.Ino)
	for _, name := range names {
		value, err := l.Xattr(a.Ino, name)
		if err != nil {
			return err
		}
		xattrs[name] = string(value)
	}
	if err != nil {
		return err
	}
	target, typ := "", a.Mode&syscall.S_IFMT
	if typ == syscall.S_IFLNK {
		if target, err = l.Readlink(a.Ino); err != nil {
			return err
		}
	}
	data, err := readAll(l, a.Ino, a)
	if err != nil {
		return err
	}
	got := fmt.Sprintf("inode %d type %o links %d xattrs %q target %q bytes %d %08x", a.Ino, typ, a.Nlink, sorted(xattrs), target, len(data),
		crc32.ChecksumIEEE(data))
	if got != want {
		return fmt.Errorf("it is %s, and should be %s", got, want)
	}
	return nil
}

func (t *thing) links() int {
	if t.typ == syscall.S_IFDIR {
		return 2
	}
	return t.names
}

func sorted(m map[string]string) (out []string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return out
}

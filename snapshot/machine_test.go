package snapshot

import (
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// machine runs random operations on a space and on the model.
type machine struct {
	*space
	model   *model
	handles map[*Handle]Ino
	frozens map[cow.Epoch][2]string // what each frozen tree has to be: in the words of the model, and with times
}

func newMachine(s *space) *machine {
	return &machine{space: s, model: newModel(), handles: map[*Handle]Ino{}, frozens: map[cow.Epoch][2]string{}}
}

var names = rapid.SampledFrom([]string{"a", "b", "c", "dd"})

func (m *machine) dir(t *rapid.T) Ino {
	inos := m.model.alive(syscall.S_IFDIR)
	return inos[rapid.IntRange(0, len(inos)-1).Draw(t, "dir")]
}

func (m *machine) any(t *rapid.T) Ino {
	inos := m.model.alive(0)
	return inos[rapid.IntRange(0, len(inos)-1).Draw(t, "ino")]
}

// agree fails unless the file system answered what the model says.
func agree(t tester, what string, got, want error) {
	t.Helper()
	if want == nil && got != nil || !errors.Is(got, want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

func (m *machine) create(t *rapid.T) {
	parent, name := m.dir(t), names.Draw(t, "name")
	spec := Spec{Mode: rapid.SampledFrom([]uint32{0o644, 0o2755, 0o4711}).Draw(t, "mode"), UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid")}
	switch typ := rapid.SampledFrom([]uint32{syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFDIR, syscall.S_IFLNK, syscall.S_IFCHR}).Draw(t, "type"); typ {
	case syscall.S_IFLNK:
		spec.Mode, spec.Target = typ|0o777, "to "+name
	case syscall.S_IFCHR:
		spec.Mode, spec.Rdev = typ|spec.Mode, 0x103
	default:
		spec.Mode |= typ
	}
	a, err := m.live.Create(parent, name, spec)
	want := m.model.create(parent, name)
	agree(t, "create", err, want)
	if want == nil {
		m.model.made(parent, name, a.Ino, spec)
	}
}

func (m *machine) link(t *rapid.T) {
	ino, parent, name := m.any(t), m.dir(t), names.Draw(t, "name")
	_, err := m.live.Link(ino, parent, name)
	agree(t, "link", err, m.model.link(ino, parent, name))
}

func (m *machine) unlink(t *rapid.T) {
	parent, name := m.dir(t), names.Draw(t, "name")
	agree(t, "unlink", m.live.Unlink(parent, name), m.model.unlink(parent, name))
}

func (m *machine) rmdir(t *rapid.T) {
	parent, name := m.dir(t), names.Draw(t, "name")
	agree(t, "rmdir", m.live.Rmdir(parent, name), m.model.rmdir(parent, name))
}

func (m *machine) rename(t *rapid.T) {
	op, on, np, nn := m.dir(t), names.Draw(t, "old"), m.dir(t), names.Draw(t, "new")
	flags := rapid.SampledFrom([]uint{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(t, "flags")
	agree(t, "rename", failure(m.live.Rename(op, on, np, nn, flags)), m.model.rename(op, on, np, nn, flags))
}

func (m *machine) setAttr(t *rapid.T) {
	ino := m.any(t)
	c := Change{Set: ChangeSet(rapid.IntRange(0, 255).Draw(t, "set")) &^ SetSize, Mode: rapid.Uint32Range(0, 0o7777).Draw(t, "mode"),
		UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"), Mtime: Time{Sec: -5, Nsec: 7}, KillPriv: rapid.Bool().Draw(t, "kill")}
	a, err := m.live.SetAttr(ino, c)
	if err != nil {
		t.Fatal(err)
	}
	i := m.model.inodes[ino]
	if c.KillPriv && !isDir(i.mode) {
		i.mode &^= syscall.S_ISUID
		if i.mode&0o010 != 0 {
			i.mode &^= syscall.S_ISGID
		}
	}
	if c.Set&SetMode != 0 {
		i.mode = i.mode&syscall.S_IFMT | c.Mode
	}
	if c.Set&SetUID != 0 {
		i.uid = c.UID
	}
	if c.Set&SetGID != 0 {
		i.gid = c.GID
	}
	if c.Set&(SetMtime|SetMtimeNow) == SetMtime && a.Mtime != c.Mtime {
		t.Fatalf("mtime %v, want %v", a.Mtime, c.Mtime)
	}
}

func (m *machine) xattr(t *rapid.T) {
	ino, name, value := m.any(t), "user."+names.Draw(t, "xattr"), rapid.SampledFrom([]string{"", "v", "vv"}).Draw(t, "value")
	if rapid.Bool().Draw(t, "remove") {
		agree(t, "removexattr", m.live.RemoveXattr(ino, name), m.model.removeXattr(ino, name))
		return
	}
	flags := rapid.SampledFrom([]uint{0, unix.XATTR_CREATE, unix.XATTR_REPLACE}).Draw(t, "flags")
	agree(t, "setxattr", m.live.SetXattr(ino, name, []byte(value), flags), m.model.setXattr(ino, name, value, flags))
}

func (m *machine) openFile(t *rapid.T) {
	files := m.model.alive(syscall.S_IFREG)
	if len(files) == 0 {
		t.Skip("no file")
	}
	ino := rapid.SampledFrom(files).Draw(t, "file")
	h, err := m.live.OpenFile(ino)
	if err != nil {
		t.Fatal(err)
	}
	m.handles[h] = ino
	m.model.inodes[ino].opens++
}

func (m *machine) closeFile(t *rapid.T) {
	if len(m.handles) == 0 {
		t.Skip("no handle")
	}
	h, i := m.drawHandle(t)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	delete(m.handles, h)
	i.opens--
	m.model.sweep(false)
}

// forget is the kernel's: of an inode that has a name it changes nothing.
func (m *machine) forget(t *rapid.T) {
	for ino, i := range m.model.inodes {
		m.live.Forget(ino)
		i.forgotten = i.nlink == 0
	}
	m.model.sweep(false)
}

func (m *machine) freezeNow(t *rapid.T) {
	with, err := dumpView(m.live, true)
	if err != nil {
		t.Fatal(err)
	}
	m.frozens[m.freeze(t)] = [2]string{m.model.dump(), with}
}

func (m *machine) reopen(t *rapid.T) {
	for h := range m.handles {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	clear(m.handles)
	m.close(t)
	m.open(t)
	for _, i := range m.model.inodes {
		i.opens = 0
	}
	m.model.sweep(true)
}

// check compares the live tree with the model.
func (m *machine) check(t *rapid.T) {
	got, err := dumpView(m.live, false)
	if want := m.model.dump(); err != nil || got != want {
		t.Fatalf("live tree is\n%s%v, want\n%s", got, err, want)
	}
}

// checkAll compares the frozen trees too, and what is left of inodes without a name.
func (m *machine) checkAll(t *rapid.T) {
	m.check(t)
	for e, want := range m.frozens {
		for i, times := range []bool{false, true} {
			if got, err := dumpView(m.frozen(e), times); err != nil || got != want[i] {
				t.Fatalf("epoch %d is\n%s%v, want\n%s", e, got, err, want[i])
			}
		}
	}
	touched := map[cow.Epoch]map[meta.Key]bool{}
	err := m.db.Touched(0, meta.Latest-1, func(e cow.Epoch, k meta.Key) bool {
		if touched[e] == nil {
			touched[e] = map[meta.Key]bool{}
		}
		touched[e][k] = true
		return true
	})
	agree(t, "touched", err, nil)
	kept := map[Ino]bool{}
	err = m.db.Inodes(func(ino Ino, e cow.Epoch, rec *meta.Inode) bool {
		if _, seen := kept[ino]; !seen {
			kept[ino] = rec != nil
		}
		if !touched[e][meta.InodeKeyOf(ino)] {
			t.Fatalf("inode %d has a version of epoch %d, which is not marked as touched", ino, e)
		}
		return true
	})
	agree(t, "inodes", err, nil)
	for ino, there := range kept {
		if _, want := m.model.inodes[ino]; there != want {
			t.Fatalf("inode %d is there: %v, want %v", ino, there, want)
		}
	}
}

func TestNamespaceLikeAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(newSpace(t))
		m.live.nodes.limit = 4 // so that nodes come and go
		t.Repeat(map[string]func(*rapid.T){
			"create": m.create, "create2": m.create, "link": m.link, "unlink": m.unlink, "rmdir": m.rmdir, "rename": m.rename,
			"setattr": m.setAttr, "xattr": m.xattr, "open": m.openFile, "close": m.closeFile, "forget": m.forget,
			"freeze": m.freezeNow, "reopen": m.reopen, "all": m.checkAll, "": m.check,
		})
		m.checkAll(t)
		m.reopen(t)
		m.checkAll(t)
		m.close(t)
	})
}

// failure is the error of a call, without what it returns otherwise.
func failure[T any](_ T, err error) error { return err }

package snapshot

import (
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// model is a file system in plain maps: what the namespace has to be, without times.
type model struct {
	inodes map[Ino]*modelInode
}

type modelInode struct {
	mode, nlink, uid, gid, rdev uint32
	target                      string
	data                        []byte
	parent                      Ino            // of a directory
	entries                     map[string]Ino // of a directory
	xattrs                      map[string]string
	opens                       int
	forgotten                   bool
}

func newModel() *model {
	return &model{map[Ino]*modelInode{Root: {mode: syscall.S_IFDIR | 0o755, nlink: 2, parent: Root, entries: map[string]Ino{}, xattrs: map[string]string{}}}}
}

// alive returns the inodes that have a name, in order; type 0 means any.
func (m *model) alive(typ uint32) (inos []Ino) {
	for ino, i := range m.inodes {
		if i.nlink > 0 && (typ == 0 || i.mode&syscall.S_IFMT == typ) {
			inos = append(inos, ino)
		}
	}
	slices.Sort(inos)
	return inos
}

func (m *model) find(parent Ino, name string) (Ino, *modelInode, error) {
	p := m.inodes[parent]
	if !isDir(p.mode) {
		return 0, nil, syscall.ENOTDIR
	}
	if p.nlink == 0 {
		return 0, nil, syscall.ENOENT
	}
	ino, ok := p.entries[name]
	if !ok {
		return 0, nil, nil
	}
	return ino, m.inodes[ino], nil
}

// create checks a creation; made adds the inode under the number that the file system chose.
func (m *model) create(parent Ino, name string) error {
	_, old, err := m.find(parent, name)
	if err == nil && old != nil {
		err = syscall.EEXIST
	}
	return err
}

func (m *model) made(parent Ino, name string, ino Ino, s Spec) {
	p := m.inodes[parent]
	i := &modelInode{mode: s.Mode, nlink: 1, uid: s.UID, gid: s.GID, rdev: s.Rdev, target: s.Target, xattrs: map[string]string{}}
	if p.mode&syscall.S_ISGID != 0 {
		i.gid = p.gid
	}
	if isDir(s.Mode) {
		i.nlink, i.parent, i.entries = 2, parent, map[string]Ino{}
		i.mode |= p.mode & syscall.S_ISGID
		p.nlink++
	}
	m.inodes[ino], p.entries[name] = i, ino
}

func (m *model) link(ino, parent Ino, name string) error {
	_, old, err := m.find(parent, name)
	i := m.inodes[ino]
	switch {
	case err != nil:
		return err
	case old != nil:
		return syscall.EEXIST
	case isDir(i.mode):
		return syscall.EPERM
	case i.nlink == 0:
		return syscall.ENOENT
	}
	i.nlink++
	m.inodes[parent].entries[name] = ino
	return nil
}

func (m *model) unlink(parent Ino, name string) error {
	_, i, err := m.find(parent, name)
	switch {
	case err != nil && err != syscall.ENOTDIR:
		return err
	case i == nil:
		return syscall.ENOENT
	case isDir(i.mode):
		return syscall.EISDIR
	}
	delete(m.inodes[parent].entries, name)
	i.nlink--
	return nil
}

func (m *model) rmdir(parent Ino, name string) error {
	_, i, _ := m.find(parent, name)
	switch {
	case i == nil:
		return syscall.ENOENT
	case !isDir(i.mode):
		return syscall.ENOTDIR
	case len(i.entries) > 0:
		return syscall.ENOTEMPTY
	}
	p := m.inodes[parent]
	delete(p.entries, name)
	p.nlink--
	i.nlink = 0
	return nil
}

// within tells whether directory dir is top or below it.
func (m *model) within(dir, top Ino) bool {
	for ; dir != top; dir = m.inodes[dir].parent {
		if dir == Root {
			return false
		}
	}
	return true
}

func (m *model) rename(op Ino, on string, np Ino, nn string, flags uint) error {
	from, f, err := m.find(op, on)
	if err != nil {
		return err
	}
	to, t, err := m.find(np, nn)
	exchange := flags == unix.RENAME_EXCHANGE
	switch {
	case err != nil:
		return err
	case f == nil:
		return syscall.ENOENT
	case t != nil && flags == unix.RENAME_NOREPLACE:
		return syscall.EEXIST
	case t == nil && exchange:
		return syscall.ENOENT
	case to == from:
		return nil
	case isDir(f.mode) && m.within(np, from), exchange && isDir(t.mode) && m.within(op, to):
		return syscall.EINVAL
	case exchange || t == nil:
	case isDir(f.mode) && !isDir(t.mode):
		return syscall.ENOTDIR
	case !isDir(f.mode) && isDir(t.mode):
		return syscall.EISDIR
	case isDir(t.mode) && len(t.entries) > 0:
		return syscall.ENOTEMPTY
	}
	if t != nil && !exchange {
		if isDir(t.mode) {
			err = m.rmdir(np, nn)
		} else {
			err = m.unlink(np, nn)
		}
		if err != nil {
			return err
		}
	}
	delete(m.inodes[op].entries, on)
	m.place(f, from, op, np, nn)
	if exchange {
		m.place(t, to, np, op, on)
	}
	return nil
}

func (m *model) place(i *modelInode, ino, from, to Ino, name string) {
	m.inodes[to].entries[name] = ino
	if isDir(i.mode) {
		m.inodes[from].nlink--
		m.inodes[to].nlink++
		i.parent = to
	}
}

func (m *model) setXattr(ino Ino, name, value string, flags uint) error {
	x := m.inodes[ino].xattrs
	_, have := x[name]
	switch {
	case flags == unix.XATTR_CREATE && have:
		return syscall.EEXIST
	case flags == unix.XATTR_REPLACE && !have:
		return syscall.ENODATA
	}
	x[name] = value
	return nil
}

func (m *model) removeXattr(ino Ino, name string) error {
	x := m.inodes[ino].xattrs
	if _, have := x[name]; !have {
		return syscall.ENODATA
	}
	delete(x, name)
	return nil
}

// sweep drops the inodes that nobody can reach any more; all of them without a name if the file system was reopened.
func (m *model) sweep(reopened bool) {
	maps.DeleteFunc(m.inodes, func(_ Ino, i *modelInode) bool {
		return i.nlink == 0 && (reopened || i.forgotten && i.opens == 0)
	})
}

// dump describes the tree, a line per path.
func (m *model) dump() string {
	var b strings.Builder
	m.dumpDir(&b, "/", Root)
	return b.String()
}

func (m *model) dumpDir(b *strings.Builder, path string, ino Ino) {
	i := m.inodes[ino]
	xs := []string{}
	for _, name := range slices.Sorted(maps.Keys(i.xattrs)) {
		xs = append(xs, name+"="+i.xattrs[name])
	}
	size := int64(len(i.data) + len(i.target))
	if isDir(i.mode) {
		size = dirSize
	}
	fmt.Fprintf(b, "%s %d %o %d %d:%d %x %d %q %08x %q\n", path, ino, i.mode, i.nlink, i.uid, i.gid, i.rdev, size, i.target, crc32.ChecksumIEEE(i.data), xs)
	for _, name := range slices.Sorted(maps.Keys(i.entries)) {
		m.dumpDir(b, path+name+"/", i.entries[name])
	}
}

// dumpView describes a view in the words of model.dump, or, with times, with all that stat says.
func dumpView(v View, times bool) (string, error) {
	var b strings.Builder
	err := dumpViewDir(&b, v, "/", Root, Root, times)
	return b.String(), err
}

func dumpViewDir(b *strings.Builder, v View, path string, ino, parent Ino, times bool) error {
	a, err := v.Stat(ino)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	names, err := v.Xattrs(ino)
	if err != nil {
		return err
	}
	xs := []string{}
	for _, name := range names {
		value, err := v.Xattr(ino, name)
		if err != nil {
			return fmt.Errorf("%s: xattr %s: %w", path, name, err)
		}
		xs = append(xs, name+"="+string(value))
	}
	var target string
	if a.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		if target, err = v.Readlink(ino); err != nil {
			return err
		}
	}
	data, err := readAll(v, ino, a)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	fmt.Fprintf(b, "%s %d %o %d %d:%d %x %d %q %08x %q\n", path, ino, a.Mode, a.Nlink, a.UID, a.GID, a.Rdev, a.Size, target, crc32.ChecksumIEEE(data), xs)
	if times {
		fmt.Fprintln(b, a.Atime, a.Mtime, a.Ctime, a.Btime)
	}
	if !isDir(a.Mode) {
		return nil
	}
	return dumpEntries(b, v, path, ino, parent, times)
}

func dumpEntries(b *strings.Builder, v View, path string, ino, parent Ino, times bool) error {
	if p, err := v.Parent(ino); err != nil || p != parent {
		return fmt.Errorf("%s: its parent is %d, not %d: %w", path, p, parent, err)
	}
	var ents []Dirent
	if err := v.ReadDir(ino, 0, func(e Dirent) bool { ents = append(ents, e); return true }); err != nil {
		return err
	}
	slices.SortFunc(ents, func(x, y Dirent) int { return strings.Compare(x.Name, y.Name) })
	for _, e := range ents {
		a, err := v.Lookup(ino, e.Name)
		if err != nil || a.Ino != e.Ino || a.Mode&syscall.S_IFMT != e.Type {
			return fmt.Errorf("%s%s: lookup says inode %d mode %o, %w; readdir says %+v", path, e.Name, a.Ino, a.Mode, err, e)
		}
		if err := dumpViewDir(b, v, path+e.Name+"/", e.Ino, ino, times); err != nil {
			return err
		}
	}
	return nil
}

func readAll(v View, ino Ino, a Attr) ([]byte, error) {
	if !isRegular(a.Mode) {
		return nil, nil
	}
	c, err := v.Open(ino)
	if err != nil {
		return nil, err
	}
	data := make([]byte, a.Size)
	if a.Size > 0 {
		n, err := c.ReadAt(data, 0)
		if n < len(data) {
			return nil, fmt.Errorf("read %d of %d bytes: %w", n, len(data), err)
		}
	}
	if c.Size() != a.Size {
		return nil, fmt.Errorf("open file has %d bytes, stat says %d", c.Size(), a.Size)
	}
	return data, c.Close()
}

package snapshot

import (
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Spec describes an inode to be made. Mode holds the file type; the umask is applied to it unless the directory has a
// default access control list.
type Spec struct {
	Mode, Umask, UID, GID, Rdev uint32
	Target                      string // of a symlink
}

// entry is a directory entry as it was found before a change, with what the change has to know to replace or remove it.
type entry struct {
	parent Ino
	meta.Dirent
	epoch cow.Epoch // of the version found; 0: there is no such entry
	older bool      // an older version stays behind when this one goes
}

func (e *entry) exists() bool { return e.epoch != 0 }

// entry looks an entry up. l.mu is held, so it stays as it is until the change is made.
func (l *Live) entry(parent Ino, name string) (entry, error) {
	ent, epoch, err := l.db.Dirent(parent, name, meta.Latest)
	return entry{parent: parent, Dirent: ent, epoch: epoch}, err
}

// doomed is entry for one that is to be removed; it has to exist.
func (l *Live) doomed(op string, parent Ino, name string) (entry, error) {
	if err := checkEntryName(op, parent, name); err != nil {
		return entry{}, err
	}
	e, err := l.entry(parent, name)
	if err != nil {
		return e, err
	}
	if !e.exists() {
		return e, &opError{op, parent, name, syscall.ENOENT}
	}
	e.older, err = l.db.Older(l.db.DirentKeyOf(parent, name), e.epoch)
	return e, err
}

func (c *change) putEntry(e *entry, ino Ino, typ uint32) {
	c.full = true
	c.b.PutDirent(e.parent, e.Name, ino, typ, c.epoch, e.epoch)
}

func (c *change) removeEntry(e *entry) {
	c.full = true
	c.b.DeleteDirent(e.parent, e.Name, c.epoch, e.epoch, e.older)
}

// directory returns the node of a directory that can get entries.
func (l *Live) directory(op string, ino Ino) (*node, error) {
	n, err := l.node(ino)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	mode, nlink := n.rec.Mode, n.rec.Nlink
	n.mu.Unlock()
	switch {
	case !isDir(mode):
		err = &opError{op, ino, "", syscall.ENOTDIR}
	case nlink == 0:
		err = &opError{op, ino, "", syscall.ENOENT} // removed while somebody was in it
	default:
		return n, nil
	}
	l.nodes.put(n)
	return nil, err
}

// Create makes an inode of any type.
func (l *Live) Create(parent Ino, name string, spec Spec) (Attr, error) {
	if err := checkEntryName("create", parent, name); err != nil {
		return Attr{}, err
	}
	if err := checkSpec(parent, name, spec); err != nil {
		return Attr{}, err
	}
	if err := l.disk.take(entryBytes); err != nil {
		return Attr{}, &opError{"create", parent, name, err}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	dir, err := l.directory("create in", parent)
	if err != nil {
		return Attr{}, err
	}
	defer l.nodes.put(dir)
	ent, err := l.entry(parent, name)
	if err == nil && ent.exists() {
		err = &opError{"create", parent, name, syscall.EEXIST}
	}
	if err != nil {
		return Attr{}, err
	}
	return l.create(dir, &ent, spec)
}

func (l *Live) create(dir *node, ent *entry, spec Spec) (Attr, error) {
	lists, err := l.inherit(dir, &spec)
	if err != nil {
		return Attr{}, err
	}
	n, err := l.newNode()
	if err != nil {
		return Attr{}, err
	}
	defer l.nodes.put(n)
	c, err := l.begin(dir, n)
	if err != nil {
		return Attr{}, err
	}
	defer c.end()
	t := now()
	p, rec := c.touchDir(dir, t), c.rec(n)
	*rec = newRecord(p, &spec, t)
	if isDir(spec.Mode) {
		rec.Nlink, rec.Parent = 2, dir.ino
		rec.Mode |= p.Mode & syscall.S_ISGID
		p.Nlink++
	}
	c.putEntry(ent, n.ino, spec.Mode&syscall.S_IFMT)
	c.bequeath(n, lists)
	if err := c.commit(); err != nil {
		l.nodes.forsake(n)
		return Attr{}, err
	}
	return attrOf(n.ino, rec), nil
}

func checkSpec(parent Ino, name string, spec Spec) error {
	var errno syscall.Errno
	switch spec.Mode & syscall.S_IFMT {
	case syscall.S_IFLNK:
		if spec.Target == "" {
			errno = syscall.ENOENT
		} else if len(spec.Target) > maxTarget {
			errno = syscall.ENAMETOOLONG
		}
	case syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK:
		if spec.Target != "" {
			errno = syscall.EINVAL
		}
	default:
		errno = syscall.EINVAL
	}
	if errno != 0 {
		return &opError{"create", parent, name, errno}
	}
	return nil
}

// Link gives an inode one more name.
func (l *Live) Link(ino, parent Ino, name string) (Attr, error) {
	if err := checkEntryName("link", parent, name); err != nil {
		return Attr{}, err
	}
	if err := l.disk.take(entryBytes); err != nil {
		return Attr{}, &opError{"link", parent, name, err}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	dir, err := l.directory("link in", parent)
	if err != nil {
		return Attr{}, err
	}
	defer l.nodes.put(dir)
	n, err := l.node(ino)
	if err != nil {
		return Attr{}, err
	}
	defer l.nodes.put(n)
	ent, err := l.entry(parent, name)
	if err == nil && ent.exists() {
		err = &opError{"link", parent, name, syscall.EEXIST}
	}
	if err != nil {
		return Attr{}, err
	}
	c, err := l.begin(dir, n)
	if err != nil {
		return Attr{}, err
	}
	defer c.end()
	if errno := linkable(n); errno != 0 {
		return Attr{}, &opError{"link", ino, name, errno}
	}
	t := now()
	c.touchDir(dir, t)
	rec := c.rec(n)
	if rec.Nlink == 0 {
		c.adopt(n)
	}
	rec.Nlink++
	rec.Ctime = t
	c.putEntry(&ent, ino, rec.Mode&syscall.S_IFMT)
	return attrOf(ino, rec), c.commit()
}

// linkable says why a node, which is locked, cannot get one more name. What lost its last one gets no other.
func linkable(n *node) syscall.Errno {
	switch rec := &n.rec; {
	case isDir(rec.Mode):
		return syscall.EPERM
	case rec.Nlink == 0 && !n.linkable:
		return syscall.ENOENT
	case rec.Nlink >= maxLinks:
		return syscall.EMLINK
	}
	return 0
}

// Unlink removes a name of something that is no directory. An inode without a name stays until it is closed and forgotten.
func (l *Live) Unlink(parent Ino, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ent, err := l.doomed("unlink", parent, name)
	if err == nil && isDir(ent.Type) {
		err = &opError{"unlink", parent, name, syscall.EISDIR}
	}
	if err != nil {
		return err
	}
	return l.remove(&ent)
}

// Rmdir removes an empty directory.
func (l *Live) Rmdir(parent Ino, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ent, err := l.doomed("rmdir", parent, name)
	if err == nil && !isDir(ent.Type) {
		err = &opError{"rmdir", parent, name, syscall.ENOTDIR}
	}
	if err == nil {
		err = l.needEmpty("rmdir", &ent)
	}
	if err != nil {
		return err
	}
	return l.remove(&ent)
}

// needEmpty fails unless the directory that ent leads to is empty.
func (l *Live) needEmpty(op string, ent *entry) error {
	empty := true
	err := l.db.ReadDir(ent.Ino, meta.Latest, 0, func(Dirent) bool {
		empty = false
		return false
	})
	if err == nil && !empty {
		err = &opError{op, ent.parent, ent.Name, syscall.ENOTEMPTY}
	}
	return err
}

func (l *Live) remove(ent *entry) error {
	ns, err := l.nodesOf(ent.parent, ent.Ino)
	if err != nil {
		return err
	}
	defer l.nodes.put(ns...)
	dir, n := ns[0], ns[1]
	c, err := l.begin(dir, n)
	if err != nil {
		return err
	}
	defer c.end()
	t := now()
	p := c.touchDir(dir, t)
	if isDir(ent.Type) {
		p.Nlink--
	}
	c.removeEntry(ent)
	c.unname(n, t)
	return c.commit()
}

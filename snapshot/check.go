package snapshot

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Problem is something that a check found wrong. Path is relative to the store, or a path of the tree where it is known.
type Problem struct {
	Path string `json:"path"`
	What string `json:"what"`
}

// Report is the outcome of a check.
type Report struct {
	Problems  []Problem `json:"problems"`
	Snapshots int64     `json:"snapshots"`
	Files     int64     `json:"files"`  // inodes of all views
	Pages     int64     `json:"pages"`  // saved pages whose checksums were verified
	Unused    int64     `json:"unused"` // base files that nobody reads: no damage, they take space
}

// Check opens the store in dir, verifies it and closes it again. What recovery mends is mended. A store that cannot be opened
// because it is damaged is reported as that one problem.
func Check(dir string) (Report, error) {
	s, err := Open(dir, Options{})
	if errors.Is(err, ErrDamaged) {
		return Report{Problems: []Problem{{filepath.Base(dir), err.Error()}}}, nil
	}
	if err != nil {
		return Report{}, err
	}
	r, err := s.Check()
	return r, errors.Join(err, s.Close())
}

// Check verifies the structures of an open store: every inode has its base file, every directory entry its inode, link counts agree, every
// saved page its checksum. What changes meanwhile is not held against it.
func (s *Store) Check() (Report, error) {
	if err := s.enter(); err != nil {
		return Report{}, err
	}
	defer s.busy.Done()
	turn := s.turns.ticket() // no snapshot comes to be or goes meanwhile
	turn.wait()
	defer turn.done()
	r := Report{Problems: []Problem{}}
	report := func(p cow.Problem) { r.Problems = append(r.Problems, Problem{p.Path, p.What}) }
	var err error
	if r.Pages, err = s.pool.Check(report); err != nil {
		return r, err
	}
	used, err := s.checkInodes(&r, report)
	if err != nil {
		return r, err
	}
	entries := s.snaps.entries()
	r.Snapshots = int64(len(entries))
	for _, e := range entries {
		if err := s.checkTree(frozenTree(s.db, e.rec.Epoch), e.rec.Name, &r); err != nil {
			return r, err
		}
	}
	bound := s.db.ContentBound()
	err = s.pool.BaseIDs(func(id cow.ID) {
		if !used[id] {
			r.Unused++
		}
		if id >= bound {
			report(cow.Problem{Path: fmt.Sprintf("base/../%d", id), What: "a base file with a number that was never given out"})
		}
	})
	return r, err
}

// checkInodes verifies that every version of an inode has its base file, and returns the contents in use.
func (s *Store) checkInodes(r *Report, report func(cow.Problem)) (used map[cow.ID]bool, err error) {
	used = map[cow.ID]bool{}
	var previous meta.Ino
	err = s.db.Inodes(func(ino meta.Ino, _ cow.Epoch, rec *meta.Inode) bool {
		if ino != previous {
			r.Files++
			previous = ino
		}
		if rec != nil && rec.Content != 0 && !used[rec.Content] {
			used[rec.Content] = true
			if !s.live.mayBeLost(rec) {
				s.pool.CheckBase(rec.Content, report)
			}
		}
		return true
	})
	return used, err
}

// checkTree walks a frozen tree: every entry leads to an inode, and every inode has as many names as it says.
func (s *Store) checkTree(t tree, name string, r *Report) error {
	problem := func(path, what string) {
		r.Problems = append(r.Problems, Problem{filepath.Join(".snapshots", name, path), what})
	}
	names := map[Ino]uint32{}
	type dir struct {
		ino  Ino
		path string
	}
	for queue := []dir{{Root, "/"}}; len(queue) > 0; {
		d := queue[0]
		queue = queue[1:]
		subdirs := uint32(0)
		err := t.ReadDir(d.ino, 0, func(ent Dirent) bool {
			path := filepath.Join(d.path, ent.Name)
			attr, err := t.Stat(ent.Ino)
			if err != nil {
				problem(path, err.Error())
				return true
			}
			if isDir(attr.Mode) {
				subdirs++
				queue = append(queue, dir{ent.Ino, path})
			} else {
				names[ent.Ino]++
			}
			return true
		})
		if err != nil {
			problem(d.path, err.Error())
			continue
		}
		if attr, err := t.Stat(d.ino); err == nil && attr.Nlink != subdirs+2 {
			problem(d.path, fmt.Sprintf("says %d links, has %d", attr.Nlink, subdirs+2))
		}
	}
	for ino, n := range names {
		if attr, err := t.Stat(ino); err == nil && attr.Nlink != n {
			problem(fmt.Sprintf("inode %d", ino), fmt.Sprintf("says %d links, has %d names", attr.Nlink, n))
		}
	}
	return nil
}

package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Problem is something that a check found wrong. Path is relative to the store, or a path of the tree where it is known.
type Problem struct {
	Path  string   `json:"path"`
	What  string   `json:"what"`
	Files []string `json:"files,omitempty"` // what has lost bytes by it, as paths below the mount point; the first mostFiles
}

// mostFiles bounds Problem.Files.
const mostFiles = 20

// Report is the outcome of a check.
type Report struct {
	Problems  []Problem `json:"problems"`
	Repaired  []Problem `json:"repaired,omitempty"` // what was wrong, and was mended
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
		return Report{Problems: unopened(dir, err)}, nil
	}
	if err != nil {
		return Report{}, err
	}
	r, err := s.check(true)
	return r, errors.Join(err, s.Close())
}

// Check verifies the structures of an open store: every inode has its base file, as long as it was, every directory entry its inode, link
// counts agree, every saved page its checksum. Names of the live tree, which may change meanwhile, are looked at by Check of a store that is
// not mounted. Damage is no error: it is in the report.
func (s *Store) Check() (Report, error) { return s.check(false) }

func (s *Store) check(quiet bool) (Report, error) {
	if err := s.enter(); err != nil {
		return Report{}, err
	}
	defer s.busy.Done()
	turn := s.turns.ticket() // no snapshot comes to be or goes meanwhile
	turn.wait()
	defer turn.done()
	c := newChecker(s)
	c.quiet = quiet
	err := c.run()
	return c.r, err
}

// checker is one check of a store.
type checker struct {
	s       *Store
	r       Report
	quiet   bool              // nobody changes the live tree
	partial bool              // metadata could not be read: what was not seen may be there
	used    map[cow.ID]bool   // contents that an inode has, in whatever epoch
	unused  []cow.ID          // base files that none has
	strange []cow.ID          // those with numbers that were not given out
	lost    map[cow.ID][]loss // what contents have lost
	highest meta.Ino          // of all inodes
	newest  cow.ID            // of all contents that an inode has
	began   cow.ID            // contents from it on have come since the check began
}

// loss is a part of a content that cannot be read.
type loss struct {
	problem int        // index into Report.Problems
	page    *cow.Place // nil: of the base file
	part    *cow.Part  // of the base file; nil: all of it
}

func newChecker(s *Store) *checker {
	return &checker{s: s, r: Report{Problems: []Problem{}}, used: map[cow.ID]bool{}, lost: map[cow.ID][]loss{},
		began: s.db.ContentBound()}
}

func (c *checker) run() error {
	steps := []func() error{c.checkPages, c.checkInodes, c.checkTrees, c.checkBase}
	for _, step := range steps {
		err := step()
		if errors.Is(err, meta.ErrDamaged) {
			c.partial = true
			c.problem("meta", err.Error())
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) problem(path, what string) {
	c.r.Problems = append(c.r.Problems, Problem{Path: path, What: what})
}

// report takes a problem of the bytes.
func (c *checker) report(p cow.Problem) {
	if p.ID != 0 {
		c.lost[p.ID] = append(c.lost[p.ID], loss{len(c.r.Problems), p.Page, p.Part})
	}
	c.problem(p.Path, p.What)
}

func (c *checker) checkPages() (err error) {
	c.r.Pages, err = c.s.pool.Check(c.report)
	return err
}

// checkInodes verifies that every version of an inode has its base file.
func (c *checker) checkInodes() error {
	var previous meta.Ino
	var failed error
	err := c.s.db.Inodes(func(ino meta.Ino, _ cow.Epoch, rec *meta.Inode) bool {
		if ino != previous {
			c.r.Files++
			previous = ino
			c.highest = max(c.highest, ino)
		}
		if rec != nil && rec.Content != 0 && !c.used[rec.Content] {
			c.used[rec.Content] = true
			c.newest = max(c.newest, rec.Content)
			failed = c.s.pool.CheckBase(rec.Content, c.s.live.mayBeLost(rec), func(p cow.Problem) {
				if c.has(ino, rec.Content) { // else it was removed meanwhile: first the record, then the bytes
					c.report(p)
				}
			})
		}
		return failed == nil
	})
	return cmp.Or(failed, err)
}

// has reports whether an inode has a content now, in whatever epoch.
func (c *checker) has(ino meta.Ino, id cow.ID) (found bool) {
	err := c.s.db.InodeVersions(ino, func(_ cow.Epoch, rec *meta.Inode) bool {
		found = rec != nil && rec.Content == id
		return !found
	})
	return found || err != nil
}

// checkBase looks for base files that nobody has.
func (c *checker) checkBase() error {
	var others []cow.ID
	err := c.s.pool.BaseIDs(func(id cow.ID) {
		if !c.used[id] {
			others = append(others, id)
		}
	})
	bound := c.s.db.ContentBound() // now: a number is given out before there is a file
	for _, id := range others {
		if id >= bound {
			c.strange = append(c.strange, id)
		} else if id < c.began {
			c.unused = append(c.unused, id)
		}
	}
	for _, id := range c.strange {
		c.problem(cow.BasePath(id), "a base file with a number that was never given out: the metadata that knew of it is lost")
	}
	c.r.Unused = int64(len(c.unused) + len(c.strange))
	return err
}

// checkTrees walks the frozen trees, and where bytes are lost the live one, to tell whose they are.
func (c *checker) checkTrees() error {
	entries := c.s.snaps.entries()
	c.r.Snapshots = int64(len(entries))
	for _, e := range entries {
		c.checkTree(frozenTree(c.s.db, e.rec.Epoch), filepath.Join("/.snapshots", e.rec.Name), true)
	}
	if c.quiet || len(c.lost) > 0 {
		c.checkTree(frozenTree(c.s.db, meta.Latest), "/", c.quiet)
	}
	return nil
}

// checkTree walks a tree below top: every entry leads to an inode, and every inode has as many names as it says, if counted is set.
func (c *checker) checkTree(t tree, top string, counted bool) {
	names := map[Ino]uint32{}
	seen := map[Ino]bool{Root: true} // directories: a store from an enemy may have them in a ring
	type dir struct {
		ino  Ino
		path string
	}
	broken := func(path string, err error) {
		if counted || !errors.Is(err, syscall.ENOENT) { // what is removed meanwhile is not there any more
			c.problem(path[1:], err.Error())
		}
	}
	for queue := []dir{{Root, top}}; len(queue) > 0; {
		d := queue[0]
		queue = queue[1:]
		subdirs := uint32(0)
		err := t.ReadDir(d.ino, 0, func(ent Dirent) bool {
			path := filepath.Join(d.path, ent.Name)
			rec, err := t.inode(ent.Ino)
			if err != nil {
				broken(path, err)
				return true
			}
			if isDir(rec.Mode) && seen[ent.Ino] {
				c.problem(path[1:], "a second name of a directory")
			} else if isDir(rec.Mode) {
				seen[ent.Ino] = true
				subdirs++
				queue = append(queue, dir{ent.Ino, path})
			} else {
				names[ent.Ino]++
				c.nameLosses(t.at, &rec, path[1:])
			}
			return true
		})
		if err != nil {
			broken(d.path, err)
			continue
		}
		if rec, err := t.inode(d.ino); counted && err == nil && rec.Nlink != subdirs+2 {
			c.problem(d.path[1:], fmt.Sprintf("says %d links, has %d", rec.Nlink, subdirs+2))
		}
	}
	for ino, n := range names {
		if rec, err := t.inode(ino); counted && err == nil && rec.Nlink != n {
			c.problem(fmt.Sprintf("%s, inode %d", top[1:], ino), fmt.Sprintf("says %d links, has %d names", rec.Nlink, n))
		}
	}
}

// nameLosses notes the path of an inode whose content has lost bytes, if a view of epoch at reads them.
func (c *checker) nameLosses(at cow.Epoch, rec *meta.Inode, path string) {
	for _, l := range c.lost[rec.Content] {
		reads, err := c.reads(at, rec, l)
		if p := &c.r.Problems[l.problem]; err == nil && reads && len(p.Files) < mostFiles {
			p.Files = append(p.Files, path)
		}
	}
}

// reads reports whether a view of epoch at reads what is lost.
func (c *checker) reads(at cow.Epoch, rec *meta.Inode, l loss) (bool, error) {
	switch {
	case l.page != nil:
		return c.s.pool.Reads(at, *l.page)
	case l.part != nil:
		return c.s.pool.ReadsBase(at, rec.Content, cow.Part{From: l.part.From, To: min(l.part.To, rec.Size)})
	}
	return true, nil
}

// unopened tells of a store that cannot be opened, and what of it is still there.
func unopened(dir string, err error) []Problem {
	problems := []Problem{{Path: filepath.Base(dir), What: err.Error()}}
	if errors.Is(err, meta.ErrDamaged) {
		problems = append(problems, Problem{Path: "meta", What: "the names and the list of snapshots are lost with it; the files below base/ are whole: " +
			"each has the newest contents of one file, without its name"})
	}
	return problems
}

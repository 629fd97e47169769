package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// Repair mends what can be proven in the store in dir, which nobody else has open, and reports what it mended and what is wrong still:
//
//   - a format file that is missing or damaged is written anew, if the metadata store is whole: it says nothing that
//     is not known from that;
//   - the header of an undo log is written anew from its batches, and pages that the index does not know are found again in
//     the logs (recovery does that whenever a store is opened);
//   - what an interrupted step left behind is removed, and so are base files that no view has, if all metadata could be read;
//   - base files of which the metadata knows nothing, because it lost its end, are moved to lost/, and numbers of inodes and
//     contents that are in use count as given out, so that none is given out again.
//
// Bytes that are lost stay lost, and are never replaced by others: what reads them gets EIO. Each step may be repeated (I10).
func Repair(dir string) (Report, error) {
	r := &repair{dir: dir}
	err := r.files()
	if err == nil {
		err = r.open()
	}
	if errors.Is(err, ErrDamaged) {
		return Report{Problems: unopened(dir, err), Repaired: r.mended}, nil
	}
	if err != nil {
		return Report{Repaired: r.mended}, err
	}
	err = r.metadata()
	var report Report
	if err == nil {
		report, err = r.s.Check()
	}
	report.Repaired = r.mended
	return report, errors.Join(err, r.s.Close())
}

// repair is one repair of a store.
type repair struct {
	dir    string
	s      *Store
	mended []Problem
}

func (r *repair) did(path, what string) { r.mended = append(r.mended, Problem{Path: path, What: what}) }

func (r *repair) open() (err error) {
	r.s, err = Open(r.dir, Options{})
	return err
}

// files mends what would keep the store from being opened.
func (r *repair) files() error {
	_, bad := readFormat(r.dir)
	if bad != nil && !errors.Is(bad, ErrDamaged) && !(errors.Is(bad, errNoStore) && wasStore(r.dir)) {
		return bad
	}
	held, err := lock(r.dir)
	if err != nil {
		return err
	}
	defer held.Close()
	if bad != nil {
		if err := r.format(bad); err != nil {
			return err
		}
	}
	left := formatFile + ".new"
	if err := os.Remove(filepath.Join(r.dir, left)); err == nil {
		r.did(left, "left behind; removed")
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return cow.RepairLogs(r.dir, func(p cow.Problem) { r.did(p.Path, p.What) })
}

// format writes the format file anew if the metadata store is whole; bad says why.
func (r *repair) format(bad error) error {
	path := filepath.Join(r.dir, "meta")
	if err := vetDir(path); err != nil {
		return err
	}
	db, err := meta.Open(path, meta.Options{Exists: true})
	if err == nil {
		err = db.Close()
	}
	if errors.Is(err, meta.ErrDamaged) {
		return fmt.Errorf("%w: %w: %w", ErrDamaged, bad, err)
	}
	if err != nil {
		return err
	}
	if err := writeFormat(r.dir); err != nil {
		return err
	}
	r.did(formatFile, "was damaged or missing; written anew")
	return nil
}

// wasStore reports whether a directory that has no format file is a store that has lost it.
func wasStore(dir string) bool { return wasUsed(dir) && isDirectory(filepath.Join(dir, "meta")) }

// wasUsed reports whether a store was complete once: base/ is made after the metadata store, and removed before it.
func wasUsed(dir string) bool { return isDirectory(filepath.Join(dir, "base")) }

func isDirectory(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// metadata mends what a check finds in the open store.
func (r *repair) metadata() error {
	c := newChecker(r.s)
	if err := c.run(); err != nil {
		return err
	}
	raised, err := r.s.db.AtLeast(c.highest+1, c.newest+1)
	if err != nil {
		return err
	}
	if raised {
		r.did("meta", fmt.Sprintf("inodes up to %d and contents up to %d are in use, and count as given out now", c.highest, c.newest))
	}
	for _, id := range c.strange {
		if err := r.moveToLost(id); err != nil {
			return err
		}
	}
	if c.partial {
		return nil // what nobody was seen to use may be used
	}
	for _, id := range c.unused {
		if err := r.s.pool.Remove(id); err != nil {
			return err
		}
		r.did(cow.BasePath(id), "a base file that nobody has; removed")
	}
	if len(c.unused) > 0 {
		return r.s.db.ForgetLengths(c.unused)
	}
	return nil
}

// lostDir is where base files go that are in the way of new ones.
const lostDir = "lost"

// moveToLost moves a base file out of the way. A crash leaves it in one place or the other.
func (r *repair) moveToLost(id cow.ID) error {
	dir := filepath.Join(r.dir, lostDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	from, to := filepath.Join(r.dir, cow.BasePath(id)), filepath.Join(dir, fmt.Sprint(id))
	for n := 1; ; n++ { // another one of that number may have been lost before
		if _, err := os.Lstat(to); errors.Is(err, os.ErrNotExist) {
			break
		}
		to = filepath.Join(dir, fmt.Sprintf("%d.%d", id, n))
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	r.did(cow.BasePath(id), "a base file that the metadata does not know; moved to "+filepath.Join(lostDir, filepath.Base(to)))
	return errors.Join(syncDir(dir), syncDir(filepath.Dir(from)), syncDir(r.dir))
}

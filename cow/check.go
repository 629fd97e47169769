package cow

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Problem is something that Check found wrong. Path is relative to the store.
type Problem struct {
	Path string
	What string
	ID   ID     // the content that has lost bytes; 0: none
	Page *Place // which page of it; nil: its base file
	Part *Part  // of the base file, what is lost; nil: all of it
}

// Part is a range of bytes of a base file.
type Part struct{ From, To int64 }

// Check verifies every undo log: the checksums of the pages that the index knows, and the headers. It calls report for what is
// wrong and returns how many pages it verified. The error is one of the check itself.
func (p *Pool) Check(report func(Problem)) (pages int64, err error) {
	if pages, err = p.checkPages(report); err != nil {
		return pages, err
	}
	for _, l := range p.logsIn(0, ^Epoch(0)) {
		if err := p.checkHeaders(l, report); err != nil {
			return pages, err
		}
	}
	names, err := listDir(p.undoDir)
	if err != nil {
		return pages, err
	}
	for _, name := range names {
		if _, ok := logEpoch(name); !ok {
			report(Problem{Path: "undo/" + name, What: "not a file of this store"})
		}
	}
	return pages, nil
}

// checkPages reads every page that the index knows.
func (p *Pool) checkPages(report func(Problem)) (pages int64, err error) {
	buf := make([]byte, PageSize)
	var bad []Problem
	err = p.opt.Index.Places(func(pl Place) bool {
		pages++
		if err := p.readPlace(pl, buf); err != nil && !errors.Is(err, unix.ESTALE) {
			what := err.Error()
			if errors.Is(err, ErrDamaged) && p.log(pl.Log) != nil {
				what = fmt.Sprintf("page %d of content %d at block %d: bad checksum", pl.Page, pl.ID, pl.Block)
			}
			bad = append(bad, Problem{Path: "undo/" + logName(pl.Log), What: what, ID: pl.ID, Page: &pl})
		}
		return true
	})
	if err != nil {
		return pages, err
	}
	for _, problem := range bad {
		if p.newestUpTo(problem.Page.Log) == 0 {
			continue // no snapshot reads it
		}
		there, err := p.hasPlace(*problem.Page) // else it was given back meanwhile
		if err != nil {
			return pages, err
		}
		if there {
			report(problem)
		}
	}
	return pages, nil
}

func (p *Pool) checkHeaders(l *undoLog, report func(Problem)) error {
	l.life.RLock()
	defer l.life.RUnlock()
	if l.closed {
		return nil
	}
	if l.cut != nil {
		report(Problem{Path: "undo/" + logName(l.epoch), What: l.cut.Error()})
	}
	end, synced := int64(PageSize), l.synced.Load()
	err := l.scan(PageSize, func(h *batchHeader) error {
		if end = h.offset + h.size(); end >= synced {
			return errTorn
		}
		return nil
	})
	if end < synced {
		report(Problem{Path: "undo/" + logName(l.epoch), What: "bad batch header at offset " + strconv.FormatInt(end, 10)})
	}
	if errors.Is(err, errTorn) {
		err = nil
	}
	return err
}

// Reads reports whether snapshot s reads page pl of its content from there: no log from s on has it earlier.
func (p *Pool) Reads(s Epoch, pl Place) (bool, error) {
	if s > pl.Log {
		return false, nil
	}
	log, err := p.firstPlace(pl, s)
	return log == pl.Log, err
}

// hasPlace reports whether the index knows pl.
func (p *Pool) hasPlace(pl Place) (known bool, err error) {
	err = p.opt.Index.Find(pl.ID, pl.Page, pl.Page, pl.Log, func(found Place) bool {
		known = found == pl
		return false
	})
	return known, err
}

// ReadsBase reports whether snapshot s, or the live content for an epoch that is none yet, reads any page of the part of the base file.
func (p *Pool) ReadsBase(s Epoch, id ID, part Part) (bool, error) {
	if part.From >= part.To {
		return false, nil
	}
	first, last := pagesOf(part.From, part.To-part.From)
	saved, err := p.savedPages(id, first, last, s)
	return uint64(saved.len()) < last-first+1, err
}

// CheckBase calls report if the base file of id is missing, or shorter than it was. mayBeMissing says that nobody has synced it, as far
// as the namespace knows.
func (p *Pool) CheckBase(id ID, mayBeMissing bool, report func(Problem)) error {
	known, err := p.opt.Index.Length(id)
	if err != nil {
		return err
	}
	n, err := p.base.length(id)
	if errors.Is(err, unix.ENOENT) && mayBeMissing && known == 0 {
		return nil
	}
	if err == nil && n < known {
		// It may have been cut by us since: then the length was forgotten before.
		if known, err = p.opt.Index.Length(id); err != nil || n >= known {
			return err
		}
		what := fmt.Sprintf("it is %d bytes long, and was %d: bytes are lost", n, known)
		report(Problem{Path: BasePath(id), What: what, ID: id, Part: &Part{n, known}})
		return nil
	}
	if err == nil {
		err = p.base.use(id, func(int) error { return nil }) // it is a file, and can be opened
	}
	if err != nil {
		report(Problem{Path: BasePath(id), What: err.Error(), ID: id})
	}
	return nil
}

// BaseIDs calls visit for every base file in the store.
func (p *Pool) BaseIDs(visit func(ID)) error {
	for i := range 256 {
		names, err := p.base.names(i)
		if err != nil {
			return err
		}
		for _, name := range names {
			if id, err := strconv.ParseUint(name, 10, 64); err == nil && fanOut(ID(id)) == i {
				visit(ID(id))
			}
		}
	}
	return nil
}

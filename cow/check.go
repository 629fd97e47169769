package cow

import (
	"errors"
	"fmt"
	"strconv"
)

// Problem is something that Check found wrong. Path is relative to the store.
type Problem struct {
	Path string
	What string
}

// Check verifies every undo log: headers, checksums of the pages that the index knows, and that the durable part is all
// readable. It calls report for what is wrong and returns how many pages it verified. The error is one of the check itself.
func (p *Pool) Check(report func(Problem)) (pages int64, err error) {
	for _, l := range p.logsIn(0, ^Epoch(0)) {
		n, err := p.checkLog(l, report)
		pages += n
		if err != nil {
			return pages, err
		}
	}
	names, err := listDir(p.undoDir)
	if err != nil {
		return pages, err
	}
	for _, name := range names {
		if _, ok := logEpoch(name); !ok {
			report(Problem{"undo/" + name, "not a file of this store"})
		}
	}
	return pages, nil
}

func (p *Pool) checkLog(l *undoLog, report func(Problem)) (pages int64, err error) {
	path := "undo/" + logName(l.epoch)
	places, _ := l.all()
	end := int64(PageSize)
	buf := make([]byte, PageSize)
	for _, pl := range places {
		indexed, err := p.hasPlace(pl)
		if err != nil {
			return pages, err
		}
		if !indexed {
			continue // given back
		}
		pages++
		if err := l.readPage(pl, buf); errors.Is(err, ErrDamaged) {
			report(Problem{path, fmt.Sprintf("page %d of content %d at block %d: bad checksum", pl.Page, pl.ID, pl.Block)})
		} else if err != nil {
			report(Problem{path, err.Error()})
		}
	}
	l.life.RLock()
	defer l.life.RUnlock()
	if l.closed {
		return pages, nil
	}
	synced := l.synced.Load()
	err = l.scan(PageSize, func(h *batchHeader) error {
		if end = h.offset + h.size(); end >= synced {
			return errTorn
		}
		return nil
	})
	if end < synced {
		report(Problem{path, "bad batch header at offset " + strconv.FormatInt(end, 10)})
	}
	if errors.Is(err, errTorn) {
		err = nil
	}
	return pages, err
}

// hasPlace reports whether the index knows pl.
func (p *Pool) hasPlace(pl Place) (known bool, err error) {
	err = p.opt.Index.Find(pl.ID, pl.Page, pl.Page, pl.Log, func(found Place) bool {
		known = found == pl
		return false
	})
	return known, err
}

// CheckBase calls report if the base file of id is missing.
func (p *Pool) CheckBase(id ID, report func(Problem)) {
	if err := p.base.use(id, func(int) error { return nil }); err != nil {
		report(Problem{"base/" + basePath(id), err.Error()})
	}
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

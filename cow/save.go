package cow

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// saver saves pages of several contents with one sync (I1).
type saver struct {
	p    *Pool
	log  *undoLog
	from Epoch // pages that a log from this one on holds are saved already

	promised bool  // writes have promised room for the pages; else add does
	reserved int64 // pages that add promised room for

	entries []entry
	data    []byte
	end     int64 // end of the last batch written
	saved   map[*content]int64
}

// savePages is how many pages go into one batch.
const savePages = 1024

func (p *Pool) newSaver(log *undoLog, from Epoch) *saver {
	return &saver{p: p, log: log, from: from, promised: true, saved: map[*content]int64{}}
}

// add appends the base file's bytes of those pages that a snapshot may read and that are not saved yet. Nobody may
// write them in the base file meanwhile: the caller holds c.flushing, or is the commit of a capture.
func (s *saver) add(c *content, pages pageSet) error {
	if pages.isEmpty() {
		return nil
	}
	c.mu.RLock()
	reach := pagesUpTo(c.reach)
	c.mu.RUnlock()
	todo := pages.clone()
	if last := todo.maximum(); last >= reach {
		todo.removeRange(reach, last+1)
	}
	for _, r := range pages.runs(1 << 20) {
		saved, err := s.p.savedPages(c.id, r.first, r.first+r.n-1, s.from)
		if err != nil {
			return err
		}
		todo.andNot(saved)
	}
	if !s.promised {
		if err := s.log.promise(todo.len()); err != nil {
			return err
		}
		s.reserved += todo.len()
	}
	buf := make([]byte, placeChunk*PageSize)
	for _, r := range todo.runs(placeChunk) {
		b := buf[:r.n*PageSize]
		if err := c.readBase(b, int64(r.first)*PageSize); err != nil {
			return err
		}
		for i := range r.n {
			if err := s.addPage(c.id, r.first+i, b[i*PageSize:][:PageSize]); err != nil {
				return err
			}
		}
	}
	s.saved[c] += todo.len()
	return nil
}

func (s *saver) addPage(id ID, page uint64, b []byte) error {
	e := entry{id: id, page: page, zero: bytes.Equal(b, zeros[:])}
	if !e.zero {
		e.crc = checksum(s.log.salt, b)
		s.data = append(s.data, b...)
	}
	s.entries = append(s.entries, e)
	if len(s.entries) >= savePages {
		return s.write()
	}
	return nil
}

func (s *saver) write() error {
	if len(s.entries) == 0 {
		return nil
	}
	end, err := s.log.append(s.entries, s.data)
	if err != nil {
		return err
	}
	s.end = end
	s.entries, s.data = s.entries[:0], s.data[:0]
	return nil
}

// commit makes everything added durable, and findable in the index. After it the pages may be overwritten (I1).
// It counts a save of each content, so that a frozen read which began before it looks again (I3).
func (s *saver) commit() error {
	if err := s.write(); err != nil {
		return err
	}
	if s.end > 0 {
		if err := s.log.sync(s.end); err != nil {
			return err
		}
	}
	total := int64(0)
	for c, n := range s.saved {
		c.saves.Add(1)
		total += n
	}
	s.log.settle(total)
	s.reserved = 0
	s.p.stats.savedPages.Add(total)
	return nil
}

// giveBack ends the use of a saver, be it committed or not: what add promised and nobody saved is free again.
func (s *saver) giveBack() { s.log.settle(s.reserved) }

// save saves pages of one content before they are overwritten, for a change that began in the given epoch, when newest
// was the newest snapshot (0 if there was none). Nobody promised them room: it takes none of what others were promised (I6).
func (p *Pool) save(c *content, pages pageSet, newest, epoch Epoch) error {
	return p.saveGroup([]flushing{{c, pages}}, newest, epoch, false)
}

// saveTries is how often a save chooses a log. One that was removed under it is not chosen again.
const saveTries = 3

// saveGroup is save for several contents, with one sync. promised says that writes have reserved room for the pages.
func (p *Pool) saveGroup(group []flushing, newest, epoch Epoch, promised bool) (err error) {
	if newest == 0 {
		return nil
	}
	for range saveTries {
		if err = p.trySave(group, newest, epoch, promised); !errors.Is(err, unix.ESTALE) {
			return err
		}
		if p.newestSnapshot() == 0 {
			return nil // the last snapshot was deleted meanwhile: there is nobody to save for
		}
	}
	return err
}

func (p *Pool) trySave(group []flushing, newest, epoch Epoch, promised bool) error {
	var s *saver
	for _, f := range group {
		if f.pages.isEmpty() {
			continue
		}
		if s == nil {
			log, err := p.logFor(newest, epoch)
			if err != nil {
				return err
			}
			s = p.newSaver(log, newest)
			s.promised = promised
			defer s.giveBack()
		}
		if err := s.add(f.c, f.pages); err != nil {
			return fmt.Errorf("save pages of content %d: %w", f.c.id, err)
		}
	}
	if s == nil {
		return nil
	}
	return s.commit()
}

package cow

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The known length of a content says that its base file was at least so long, durably, so that one that is shorter has lost bytes: they
// are no hole, they are EIO. A base file may well be shorter than its content, which reads as zeros behind it: what was extended by
// truncate(2) is, and after a power loss so may be what nobody had synced.
//
// The index keeps it. It is raised in the background, after the base file was synced, and forgotten, durably, before the base file is cut
// (Tails). So at any time it is a length that the base file has had since, and has durably; that of a content that is written all the time,
// or was written just before a crash, may be too small, or missing.

// Length is the known length of a content.
type Length struct {
	ID    ID
	Bytes int64 // > 0
}

// lengthened notes that the base file reaches to n. REQUIRES c.mu exclusive.
func (c *content) lengthened(n int64) {
	if n > c.baseLen {
		c.baseLen = n
		c.p.dirty.grew(c.id)
	}
}

// Measure has the length of a base file recorded as soon as it is durable: after a crash, or where nobody did that before. If a greater
// one is known that stays: somebody has cut the file.
func (p *Pool) Measure(id ID) {
	p.dirty.suspect(id)
	p.dirty.grew(id)
}

// lengthBatch is how many lengths are recorded at once.
const lengthBatch = 512

// RecordLengths records the lengths of base files that were synced since they grew, until the given time. all says that no other
// is left to be recorded.
func (p *Pool) RecordLengths(until time.Time) (all bool, err error) {
	var busy []ID
	defer func() { p.dirty.giveBack(busy) }()
	for {
		ids := p.dirty.takeReady(lengthBatch)
		if len(ids) == 0 {
			return len(busy) == 0 && !p.dirty.unrecorded(), nil
		}
		some, err := p.recordLengths(ids)
		busy = append(busy, some...)
		if err != nil {
			p.dirty.giveBack(ids)
			return false, err
		}
		if time.Now().After(until) {
			return false, nil
		}
	}
}

// recordLengths records the lengths of some base files, and returns those that somebody is changing.
func (p *Pool) recordLengths(ids []ID) (busy []ID, err error) {
	p.measuring.Lock() // nobody forgets a length between our look and our record
	defer p.measuring.Unlock()
	var lengths []Length
	for _, id := range ids {
		n, isBusy, err := p.durableLength(id)
		if err != nil {
			return nil, err
		}
		if isBusy {
			busy = append(busy, id)
		}
		if n > 0 {
			lengths = append(lengths, Length{id, n})
		}
	}
	if len(lengths) == 0 {
		return busy, nil
	}
	return busy, p.opt.Index.SetLengths(lengths)
}

// durableLength returns the length of a base file if all of it is durable and more than is known, else 0. REQUIRES p.measuring.
func (p *Pool) durableLength(id ID) (n int64, busy bool, err error) {
	c := p.get(id)
	defer p.put(c)
	if !c.change.TryLock() {
		return 0, true, nil
	}
	defer c.change.Unlock()
	if p.dirty.stillDirty(id) || p.isCut(c) {
		return 0, false, nil
	}
	n, err = p.base.length(id)
	if errors.Is(err, unix.ENOENT) {
		return 0, false, nil // removed, or lost: that is for who wants to read it
	}
	if err != nil {
		return 0, false, err
	}
	c.mu.RLock()
	live, noted := c.live, c.baseLen
	c.mu.RUnlock()
	switch {
	case live && n < noted: // by somebody else
		return 0, false, nil
	case live && n > noted: // by a writer, or a freeze in process: they note it when it is synced, or marked as not
		return 0, true, nil
	}
	if p.dirty.isSuspect(id) { // else it has grown in this life of the pool, and nobody else has seen it
		known, err := p.opt.Index.Length(id)
		if err != nil || n <= known {
			return 0, false, err
		}
	}
	return n, false, nil
}

// isCut reports whether the base file of a content is to be cut, or is being cut: its length is looked at afterwards.
func (p *Pool) isCut(c *content) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.tails[c]
	return ok || c.cuts > 0
}

// wasSynced reports whether the content has a known length: then its base file was durable, and its loss is damage.
func (c *content) wasSynced() bool {
	known, err := c.p.opt.Index.Length(c.id)
	return err != nil || known > 0
}

// missing returns what has gone from the end of a base file that is have bytes long, of which need are used.
func (c *content) missing(have, need int64) (span, error) {
	if have >= need {
		return span{}, nil
	}
	known, err := c.p.opt.Index.Length(c.id)
	if err != nil || known <= have {
		return span{}, err
	}
	return span{have, known - have}, nil
}

// lostBehind returns what has gone from the end of the base file, where a read found it to end at have.
func (c *content) lostBehind(have int64) (span, error) {
	c.mu.RLock()
	live, lost := c.live, c.lost
	c.mu.RUnlock()
	if live {
		return lost, nil
	}
	return c.missing(have, MaxSize)
}

func (s span) end() int64 { return s.off + s.n }

// addLost adds to data the pages of [first, last] that are lost: they are no hole.
func (c *content) addLost(first, last uint64, data *pageSet) error {
	var have int64
	err := c.p.base.use(c.id, func(fd int) (err error) {
		have, err = fileSize(fd)
		return err
	})
	if err != nil {
		return pathError("stat", c.id, noEntryIsEIO(err))
	}
	if have >= pageEnd(last) {
		return nil
	}
	lost, err := c.lostBehind(have)
	if err != nil || lost.n == 0 {
		return err
	}
	from, to := pagesOf(lost.off, lost.n)
	if from, to = max(from, first), min(to, last); from <= to {
		data.addRange(from, to+1)
	}
	return nil
}

// intact returns EIO for a change up to byte end if that may reach into a page that has lost bytes, or would make the base file longer, so
// that zeros took the place of what is lost. Such a file can be made shorter, emptied, replaced and removed.
func (c *content) intact(end int64) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.lost.n > 0 && end > c.lost.off/PageSize*PageSize {
		return fmt.Errorf("the base file ends at byte %d, it was %d long: %w", c.lost.off, c.lost.end(), unix.EIO)
	}
	return nil
}

package meta

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/snapfs/snapfs/cow"
)

// chunkPages is how many pages of a content share a key of the undo index.
const chunkPages = 256

// placeSize is the length of a place in a packed value.
const placeSize = 1 + 1 + 4 + 8

const placeZero = 1 // flag: the page was all zero

var _ cow.Index = (*DB)(nil)

// chunkKey names the pages of one chunk that one log holds.
type chunkKey struct {
	id    cow.ID
	chunk uint64
	log   cow.Epoch
}

func (c chunkKey) bytes() []byte { return undoKey(c.id, c.chunk, c.log) }

// loadUndo finds out whether the undo index is empty: then Find costs nothing.
func (d *DB) loadUndo() error {
	return d.scan([]byte{kindUndo}, []byte{kindUndo + 1}, func(_, _ []byte) bool {
		d.undo.Store(true)
		return false
	})
}

// Add implements cow.Index. The batch is not synced: the log itself is the truth, and what is lost here is read from it again.
func (d *DB) Add(log cow.Epoch, upTo int64, places []cow.Place) error {
	d.undoMu.Lock()
	defer d.undoMu.Unlock()
	b := d.NewBatch()
	err := d.mergeChunks(b, places, func(have, now []cow.Place) []cow.Place {
		return append(without(have, now), now...)
	})
	if err != nil {
		b.Discard()
		return fmt.Errorf("meta: add to the index of undo log %d: %w", log, err)
	}
	b.set(key1(kindLog, uint64(log)), binary.BigEndian.AppendUint64(nil, uint64(upTo)))
	if len(places) > 0 {
		d.undo.Store(true) // before the commit: a reader that sees it too early only looks in vain
	}
	_, err = b.Commit(false)
	return err
}

// Remove implements cow.Index.
func (d *DB) Remove(places []cow.Place) error {
	d.undoMu.Lock()
	defer d.undoMu.Unlock()
	b := d.NewBatch()
	if err := d.mergeChunks(b, places, without); err != nil {
		b.Discard()
		return fmt.Errorf("meta: remove from the undo index: %w", err)
	}
	_, err := b.Commit(false)
	return err
}

// mergeChunks rewrites every chunk that places touch with what merge makes of its present places and the given ones.
func (d *DB) mergeChunks(b *Batch, places []cow.Place, merge func(have, given []cow.Place) []cow.Place) error {
	groups := map[chunkKey][]cow.Place{}
	for _, p := range places {
		c := chunkKey{p.ID, p.Page / chunkPages, p.Log}
		groups[c] = append(groups[c], p)
	}
	for c, given := range groups {
		var have []cow.Place
		v, ok, err := d.get(c.bytes())
		if err == nil && ok {
			have, err = decodePlaces(c, v)
		}
		if err != nil {
			return err
		}
		if now := merge(have, given); len(now) > 0 {
			b.set(c.bytes(), encodePlaces(now))
		} else if ok {
			b.delete(c.bytes())
		}
	}
	return nil
}

// without returns the places of have whose page is in none of given.
func without(have, given []cow.Place) (rest []cow.Place) {
	var drop [chunkPages]bool
	for _, p := range given {
		drop[p.Page%chunkPages] = true
	}
	for _, p := range have {
		if !drop[p.Page%chunkPages] {
			rest = append(rest, p)
		}
	}
	return rest
}

// Find implements cow.Index: one seek to the first chunk and one more per chunk whose logs before from have to be skipped.
func (d *DB) Find(id cow.ID, firstPage, lastPage uint64, from cow.Epoch, visit func(cow.Place) bool) error {
	if !d.undo.Load() || firstPage > lastPage {
		return nil
	}
	it, err := d.iterator(undoKey(id, firstPage/chunkPages, from), undoKey(id, lastPage/chunkPages+1, 0))
	if err != nil {
		return err
	}
	var failed error
	for ok := it.First(); ok && failed == nil; {
		c, err := parseUndoKey(it.Key())
		if err != nil {
			failed = err
		} else if c.log < from {
			ok = it.SeekGE(undoKey(id, c.chunk, from))
			continue
		}
		var more bool
		if more, failed = visitPlaces(c, it.Value(), firstPage, lastPage, visit); !more {
			break
		}
		ok = it.Next()
	}
	return cmp.Or(failed, d.ended(it))
}

func visitPlaces(c chunkKey, v []byte, firstPage, lastPage uint64, visit func(cow.Place) bool) (more bool, err error) {
	places, err := decodePlaces(c, v)
	if err != nil {
		return false, err
	}
	for _, p := range places {
		if p.Page >= firstPage && p.Page <= lastPage && !visit(p) {
			return false, nil
		}
	}
	return true, nil
}

// Places implements cow.Index.
func (d *DB) Places(visit func(cow.Place) bool) error {
	var failed error
	err := d.scan([]byte{kindUndo}, []byte{kindUndo + 1}, func(k, v []byte) bool {
		c, err := parseUndoKey(k)
		more := false
		if err == nil {
			more, err = visitPlaces(c, v, 0, math.MaxUint64, visit)
		}
		failed = err
		return more
	})
	return cmp.Or(failed, err)
}

// Indexed implements cow.Index.
func (d *DB) Indexed(log cow.Epoch) (int64, error) {
	v, ok, err := d.get(key1(kindLog, uint64(log)))
	if err != nil || !ok {
		return 0, err
	}
	if len(v) != 8 || int64(binary.BigEndian.Uint64(v)) < 0 {
		return 0, damaged("indexed length", v)
	}
	return int64(binary.BigEndian.Uint64(v)), nil
}

// RemoveContent implements cow.Index. Keys go one by one: most contents have none, and range tombstones would slow reads.
func (d *DB) RemoveContent(id cow.ID) error {
	if !d.undo.Load() {
		return nil
	}
	d.undoMu.Lock()
	defer d.undoMu.Unlock()
	b := d.NewBatch()
	n := 0
	err := d.scan(key1(kindUndo, uint64(id)), key1(kindUndo, uint64(id)+1), func(k, _ []byte) bool {
		b.delete(k)
		n++
		return true
	})
	if err != nil || n == 0 {
		b.Discard()
		return err
	}
	_, err = b.Commit(false)
	return err
}

// RemoveLog implements cow.Index.
func (d *DB) RemoveLog(log cow.Epoch) error {
	b := d.NewBatch()
	b.delete(key1(kindLog, uint64(log)))
	_, err := b.Commit(false)
	return err
}

func parseUndoKey(k []byte) (chunkKey, error) {
	if len(k) != 25 {
		return chunkKey{}, damaged("key", k)
	}
	be := binary.BigEndian
	return chunkKey{cow.ID(be.Uint64(k[1:])), be.Uint64(k[9:]), cow.Epoch(be.Uint64(k[17:]))}, nil
}

// encodePlaces packs the places of one chunk and log. It sorts them; of two of the same page the later given stays.
func encodePlaces(places []cow.Place) []byte {
	slices.SortStableFunc(places, func(a, b cow.Place) int { return int(a.Page%chunkPages) - int(b.Page%chunkPages) })
	b := append(make([]byte, 0, 1+len(places)*placeSize), valueVersion)
	for i, p := range places {
		if i+1 < len(places) && places[i+1].Page == p.Page {
			continue
		}
		var flags byte
		if p.Zero {
			flags = placeZero
			p.Block = 0
		}
		b = append(b, byte(p.Page%chunkPages), flags)
		b = binary.BigEndian.AppendUint32(b, p.CRC)
		b = binary.BigEndian.AppendUint64(b, p.Block)
	}
	return b
}

func decodePlaces(c chunkKey, b []byte) ([]cow.Place, error) {
	if len(b) < 1+placeSize || b[0] != valueVersion || (len(b)-1)%placeSize != 0 {
		return nil, damaged("undo places", b)
	}
	places := make([]cow.Place, 0, (len(b)-1)/placeSize)
	last := -1
	for e := b[1:]; len(e) > 0; e = e[placeSize:] {
		if int(e[0]) <= last || e[1] > placeZero {
			return nil, damaged("undo places", b)
		}
		last = int(e[0])
		places = append(places, cow.Place{ID: c.id, Page: c.chunk*chunkPages + uint64(e[0]), Log: c.log, Zero: e[1] == placeZero,
			CRC: binary.BigEndian.Uint32(e[2:]), Block: binary.BigEndian.Uint64(e[6:])})
	}
	return places, nil
}

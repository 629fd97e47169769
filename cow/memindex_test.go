package cow

import (
	"slices"
	"sync"
)

// memIndex is an Index in memory. It outlives the pools of a test, as the metadata store outlives a daemon.
type memIndex struct {
	mu      sync.Mutex
	places  map[ID]map[uint64][]Place // by page, each list sorted by log
	indexed map[Epoch]int64
	lengths map[ID]int64
	onFind  func() // if set: called before a look-up
	onSync  func() // if set: called by Sync
	addErr  error  // if set: Add fails with it
}

func newMemIndex() *memIndex {
	return &memIndex{places: map[ID]map[uint64][]Place{}, indexed: map[Epoch]int64{}, lengths: map[ID]int64{}}
}

func (m *memIndex) Add(log Epoch, upTo int64, places []Place) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.addErr != nil {
		return m.addErr
	}
	for _, pl := range places {
		pages := m.places[pl.ID]
		if pages == nil {
			pages = map[uint64][]Place{}
			m.places[pl.ID] = pages
		}
		list := slices.DeleteFunc(pages[pl.Page], func(x Place) bool { return x.Log == pl.Log })
		list = append(list, pl)
		slices.SortFunc(list, func(a, b Place) int { return int(a.Log) - int(b.Log) })
		pages[pl.Page] = list
	}
	m.indexed[log] = upTo
	return nil
}

func (m *memIndex) Places(visit func(Place) bool) error {
	m.mu.Lock()
	var all []Place
	for _, pages := range m.places {
		for _, list := range pages {
			all = append(all, list...)
		}
	}
	m.mu.Unlock()
	for _, pl := range all {
		if !visit(pl) {
			break
		}
	}
	return nil
}

func (m *memIndex) Find(id ID, first, last uint64, from Epoch, visit func(Place) bool) error {
	if m.onFind != nil {
		m.onFind()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	pages := m.places[id]
	var keys []uint64
	if last-first < uint64(len(pages)) {
		for p := first; p <= last; p++ {
			keys = append(keys, p)
		}
	} else {
		for p := range pages {
			if first <= p && p <= last {
				keys = append(keys, p)
			}
		}
		slices.Sort(keys)
	}
	for _, p := range keys {
		for _, pl := range pages[p] {
			if pl.Log >= from && !visit(pl) {
				return nil
			}
		}
	}
	return nil
}

func (m *memIndex) Indexed(log Epoch) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.indexed[log], nil
}

func (m *memIndex) Remove(places []Place) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.addErr != nil {
		return m.addErr
	}
	for _, pl := range places {
		pages := m.places[pl.ID]
		if pages == nil {
			continue
		}
		list := slices.DeleteFunc(pages[pl.Page], func(x Place) bool { return x == pl })
		if pages[pl.Page] = list; len(list) == 0 {
			delete(pages, pl.Page)
		}
	}
	return nil
}

func (m *memIndex) RemoveContent(id ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.places, id)
	return nil
}

func (m *memIndex) RemoveLog(log Epoch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.indexed, log)
	return nil
}

func (m *memIndex) Sync() error {
	if m.onSync != nil {
		m.onSync()
	}
	return nil
}

func (m *memIndex) Length(id ID) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lengths[id], nil
}

func (m *memIndex) SetLengths(lengths []Length) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.addErr != nil {
		return m.addErr
	}
	for _, l := range lengths {
		m.lengths[l.ID] = l.Bytes
	}
	return nil
}

func (m *memIndex) ForgetLengths(ids []ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.addErr != nil {
		return m.addErr
	}
	for _, id := range ids {
		delete(m.lengths, id)
	}
	return nil
}

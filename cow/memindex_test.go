package cow

import (
	"sort"
	"sync"
)

// memIndex is an Index in memory. It outlives the pools of a test, as the metadata store outlives a daemon.
type memIndex struct {
	mu      sync.Mutex
	places  map[ID][]Place // sorted by page, then log
	indexed map[Epoch]int64
}

func newMemIndex() *memIndex { return &memIndex{places: map[ID][]Place{}, indexed: map[Epoch]int64{}} }

func (m *memIndex) at(list []Place, page uint64, log Epoch) int {
	return sort.Search(len(list), func(i int) bool {
		return list[i].Page > page || list[i].Page == page && list[i].Log >= log
	})
}

func (m *memIndex) Add(log Epoch, upTo int64, places []Place) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pl := range places {
		list := m.places[pl.ID]
		i := m.at(list, pl.Page, pl.Log)
		if i < len(list) && list[i].Page == pl.Page && list[i].Log == pl.Log {
			list[i] = pl
			continue
		}
		list = append(list, Place{})
		copy(list[i+1:], list[i:])
		list[i] = pl
		m.places[pl.ID] = list
	}
	m.indexed[log] = upTo
	return nil
}

func (m *memIndex) Find(id ID, first, last uint64, from Epoch, visit func(Place) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.places[id]
	for i := m.at(list, first, 0); i < len(list) && list[i].Page <= last; i++ {
		if list[i].Log >= from && !visit(list[i]) {
			return nil
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
	for _, pl := range places {
		list := m.places[pl.ID]
		i := m.at(list, pl.Page, pl.Log)
		if i < len(list) && list[i] == pl {
			m.places[pl.ID] = append(list[:i:i], list[i+1:]...)
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

func (m *memIndex) Sync() error { return nil }

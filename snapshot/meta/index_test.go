package meta

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/snapfs/snapfs/cow"
)

// plainIndex is the undo index as a list.
type plainIndex struct {
	places  []cow.Place
	indexed map[cow.Epoch]int64
}

func samePage(a, b cow.Place) bool { return a.ID == b.ID && a.Page == b.Page && a.Log == b.Log }

func (x *plainIndex) remove(ps []cow.Place) {
	x.places = slices.DeleteFunc(x.places, func(p cow.Place) bool {
		return slices.ContainsFunc(ps, func(q cow.Place) bool { return samePage(p, q) })
	})
}

// find returns the places in the order in which one page's have to come.
func (x *plainIndex) find(id cow.ID, first, last uint64, from cow.Epoch) (found []cow.Place) {
	for _, p := range x.places {
		if p.ID == id && p.Page >= first && p.Page <= last && p.Log >= from {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, byPageAndLog)
	return found
}

func byPageAndLog(a, b cow.Place) int {
	if a.Page != b.Page {
		return int(a.Page) - int(b.Page)
	}
	return int(a.Log) - int(b.Log)
}

func TestIndexLikeAPlainList(t *testing.T) {
	d := open(t, vfs.NewMem())
	defer mustClose(t, d)
	rapid.Check(t, func(t *rapid.T) {
		plain := &plainIndex{indexed: map[cow.Epoch]int64{}}
		id := rapid.Custom(func(t *rapid.T) cow.ID { return cow.ID(rapid.IntRange(1, 3).Draw(t, "id")) })
		log := rapid.Custom(func(t *rapid.T) cow.Epoch { return cow.Epoch(rapid.IntRange(1, 4).Draw(t, "log")) })
		page := rapid.Custom(func(t *rapid.T) uint64 {
			return uint64(rapid.SampledFrom([]int{0, 1, 2, 254, 255, 256, 257, 511, 512, 100000}).Draw(t, "page"))
		})
		batch := func(t *rapid.T, l cow.Epoch) (ps []cow.Place) {
			for range rapid.IntRange(0, 6).Draw(t, "n") {
				p := cow.Place{ID: id.Draw(t, ""), Page: page.Draw(t, ""), Log: l, CRC: rapid.Uint32().Draw(t, "crc")}
				if p.Zero = rapid.Bool().Draw(t, "zero"); !p.Zero {
					p.Block = rapid.Uint64().Draw(t, "block")
				}
				if !slices.ContainsFunc(ps, func(q cow.Place) bool { return samePage(p, q) }) {
					ps = append(ps, p)
				}
			}
			return ps
		}
		check := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				l := log.Draw(t, "")
				ps := batch(t, l)
				check(d.Add(l, int64(len(ps)), ps))
				plain.remove(ps)
				plain.places = append(plain.places, ps...)
				plain.indexed[l] = int64(len(ps))
			},
			"remove": func(t *rapid.T) {
				ps := batch(t, log.Draw(t, ""))
				check(d.Remove(ps))
				plain.remove(ps)
			},
			"remove content": func(t *rapid.T) {
				c := id.Draw(t, "")
				check(d.RemoveContent(c))
				plain.places = slices.DeleteFunc(plain.places, func(p cow.Place) bool { return p.ID == c })
			},
			"remove log": func(t *rapid.T) {
				l := log.Draw(t, "")
				check(d.RemoveLog(l))
				delete(plain.indexed, l)
			},
			"": func(t *rapid.T) {
				c, from, a, b := id.Draw(t, ""), log.Draw(t, ""), page.Draw(t, ""), page.Draw(t, "")
				checkFind(t, d, plain, c, min(a, b), max(a, b), from)
				for l := range cow.Epoch(5) {
					if n, err := d.Indexed(l); err != nil || n != plain.indexed[l] {
						t.Fatalf("log %d is indexed to %d, %v, want %d", l, n, err, plain.indexed[l])
					}
				}
			},
		})
		for c := range cow.ID(4) {
			check(d.RemoveContent(c))
		}
		for l := range cow.Epoch(5) {
			check(d.RemoveLog(l))
		}
	})
}

func checkFind(t *rapid.T, d *DB, plain *plainIndex, id cow.ID, first, last uint64, from cow.Epoch) {
	var got []cow.Place
	logOf := map[uint64]cow.Epoch{}
	err := d.Find(id, first, last, from, func(p cow.Place) bool {
		if logOf[p.Page] >= p.Log {
			t.Fatalf("page %d: log %d comes after log %d", p.Page, p.Log, logOf[p.Page])
		}
		logOf[p.Page] = p.Log
		got = append(got, p)
		return true
	})
	slices.SortFunc(got, byPageAndLog)
	if want := plain.find(id, first, last, from); err != nil || !slices.Equal(got, want) {
		t.Fatalf("find %d [%d,%d] from %d: %v, %v, want %v", id, first, last, from, got, err, want)
	}
	if len(got) > 1 {
		n := 0
		if err := d.Find(id, first, last, from, func(cow.Place) bool { n++; return false }); err != nil || n != 1 {
			t.Fatalf("find went on %d times after it was told to stop, %v", n, err)
		}
	}
}

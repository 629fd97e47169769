package cow

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func fill(seed byte, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotKeepsBytes(t *testing.T) {
	for _, fork := range []bool{true, false} {
		w := newWorld(t, Options{NoFork: !fork})
		id := w.create()
		must(t, w.write(id, 0, fill(1, 10*PageSize+100)))
		s1, err := w.freeze()
		must(t, err)
		must(t, w.write(id, 5000, fill(2, 9000))) // private
		w.verify()
		must(t, w.commit(s1))
		w.verify()
		s2, err := w.freeze() // captures
		must(t, err)
		if fork && s2.fz.cp == nil {
			t.Fatal("nothing was captured")
		}
		must(t, w.write(id, 0, fill(3, 3*PageSize)))
		w.verify()
		must(t, w.commit(s2))
		w.verify()
		must(t, w.sync(id))
		w.verify()
		must(t, w.truncate(id, 6000))
		must(t, w.truncate(id, 30000))
		w.verify()
		must(t, w.zero(id, 4000, 20000, true, true))
		w.verify()
		w.reopen()
		w.verify()
		w.check()
		must(t, w.remove(s1))
		w.verify()
		must(t, w.remove(s2))
		w.verify()
		w.check()
		must(t, w.pool.Close())
	}
}

func TestSparseAndGrow(t *testing.T) {
	w := newWorld(t, Options{})
	id := w.create()
	must(t, w.truncate(id, 100*PageSize)) // a base file shorter than its content
	s1, err := w.freeze()
	must(t, err)
	must(t, w.commit(s1))
	must(t, w.write(id, 50*PageSize+10, []byte("middle")))
	w.verify()
	must(t, w.sync(id))
	w.verify()
	f := w.file(id)
	if at, err := f.SeekExtent(0, false); err != nil || at != 50*PageSize {
		t.Fatalf("data at %d, %v; want %d", at, err, 50*PageSize)
	}
	if at, err := f.SeekExtent(50*PageSize, true); err != nil || at != 51*PageSize {
		t.Fatalf("hole at %d, %v; want %d", at, err, 51*PageSize)
	}
	fr, err := w.pool.OpenFrozen(id, s1.epoch, 100*PageSize)
	must(t, err)
	if at, err := fr.SeekExtent(0, true); err != nil || at != 0 {
		t.Fatalf("snapshot: hole at %d, %v; want 0", at, err)
	}
	if _, err := fr.SeekExtent(0, false); err == nil {
		t.Fatal("snapshot: found data where there is none")
	}
	fr.Close()
	if !bytes.Equal(w.live[id][50*PageSize+10:][:6], []byte("middle")) {
		t.Fatal("model")
	}
	w.check()
	must(t, w.pool.Close())
}

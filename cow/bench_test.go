package cow

import (
	"fmt"
	"testing"
	"time"
)

// benchFile makes a snapshotted content of n pages.
func benchFile(b *testing.B, pages int64, opt Options) (*world, ID, *frozenWorld) {
	w := newWorld(b, opt)
	id := w.create()
	f := w.file(id)
	buf := fill(1, 1<<20)
	for off := int64(0); off < pages*PageSize; off += int64(len(buf)) {
		_, err := f.WriteAt(buf[:min(int64(len(buf)), pages*PageSize-off)], off, w.record(id))
		must(b, err)
	}
	return w, id, freezeNow(b, w)
}

func freezeNow(b *testing.B, w *world) *frozenWorld {
	s := &frozenWorld{files: map[ID][]byte{}, bound: w.next}
	fz, err := w.pool.Freeze(func(e Epoch) error { s.epoch = e; return nil })
	must(b, err)
	s.fz = fz
	w.snaps = append(w.snaps, s)
	must(b, w.commit(s))
	return s
}

// BenchmarkFreeze measures how long changes have to wait for a snapshot, against the private bytes it finds.
func BenchmarkFreeze(b *testing.B) {
	for _, mib := range []int64{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("private=%dMiB", mib), func(b *testing.B) {
			pages := mib << 20 / PageSize
			w, id, _ := benchFile(b, pages, Options{DirtyLimit: 1 << 30})
			buf := fill(2, 1<<20)
			var freeze, fork, total time.Duration
			b.ResetTimer()
			for i := range b.N {
				buf[0] = byte(i)
				for off := int64(0); off < pages*PageSize; off += int64(len(buf)) {
					_, err := w.file(id).WriteAt(buf, off, w.record(id))
					must(b, err)
				}
				start := time.Now()
				s := &frozenWorld{files: map[ID][]byte{}, bound: w.next}
				fz, err := w.pool.Freeze(func(e Epoch) error { s.epoch = e; return nil })
				must(b, err)
				s.fz = fz
				w.snaps = append(w.snaps, s)
				if fz.Captured != pages*PageSize {
					b.Fatalf("captured %d bytes, want %d", fz.Captured, pages*PageSize)
				}
				freeze, fork = freeze+fz.Took, fork+fz.Fork
				must(b, w.commit(s))
				total += time.Since(start)
				b.StopTimer()
				must(b, w.remove(w.snaps[0]))
				b.StartTimer()
			}
			b.ReportMetric(float64(freeze.Microseconds())/float64(b.N), "freeze-us/op")
			b.ReportMetric(float64(fork.Microseconds())/float64(b.N), "fork-us/op")
			b.ReportMetric(float64(total.Milliseconds())/float64(b.N), "durable-ms/op")
		})
	}
}

// BenchmarkOverwrite measures 4 KiB writes: of a page that was never snapshotted, the first and the second one after a
// snapshot, and one after the page was flushed.
func BenchmarkOverwrite(b *testing.B) {
	const pages = 4096
	data := fill(3, PageSize)
	write := func(b *testing.B, w *world, id ID, page int64) {
		if _, err := w.file(id).WriteAt(data, page*PageSize, w.record(id)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("owned", func(b *testing.B) {
		w, id, s := benchFile(b, pages, Options{})
		must(b, w.remove(s))
		b.ResetTimer()
		for i := range b.N {
			write(b, w, id, int64(i%pages))
		}
	})
	for _, round := range []string{"first", "second", "flushed"} {
		b.Run(round, func(b *testing.B) {
			w, id, _ := benchFile(b, pages, Options{})
			b.ResetTimer()
			for i := 0; i < b.N; i += pages {
				b.StopTimer()
				freezeNow(b, w)
				must(b, w.remove(w.snaps[0]))
				n := int64(min(pages, b.N-i))
				for p := int64(0); round != "first" && p < n; p++ {
					write(b, w, id, p)
				}
				if round == "flushed" {
					must(b, w.pool.Flush())
				}
				b.StartTimer()
				for p := range n {
					write(b, w, id, p)
				}
			}
			b.StopTimer()
			if round != "flushed" && w.pool.Stats().PrivateBytes == 0 {
				b.Fatal("no page became private")
			}
		})
	}
}

// BenchmarkFrozenRead reads 1 MiB of a snapshot: from its writer's memory, from the base file and from the undo log.
func BenchmarkFrozenRead(b *testing.B) {
	const pages = 4096
	read := func(b *testing.B, w *world, id ID, s Epoch, want byte) {
		fr, err := w.pool.OpenFrozen(id, s, pages*PageSize)
		must(b, err)
		defer fr.Close()
		buf := make([]byte, 1<<20)
		b.SetBytes(int64(len(buf)))
		b.ResetTimer()
		for i := range b.N {
			if _, err := fr.ReadAt(buf, int64(i%(pages/256))<<20); err != nil || buf[0] != want {
				b.Fatalf("%v, byte %d, want %d", err, buf[0], want)
			}
		}
		b.StopTimer()
	}
	change := func(b *testing.B, w *world, id ID, value byte) {
		buf := make([]byte, 1<<20)
		for i := range buf {
			buf[i] = value
		}
		for off := int64(0); off < pages*PageSize; off += 1 << 20 {
			_, err := w.file(id).WriteAt(buf, off, w.record(id))
			must(b, err)
		}
	}
	b.Run("writer", func(b *testing.B) {
		w, id, _ := benchFile(b, pages, Options{})
		change(b, w, id, 7)
		s, err := w.freeze()
		must(b, err)
		change(b, w, id, 8)
		read(b, w, id, s.epoch, 7)
		must(b, w.commit(s))
	})
	b.Run("base", func(b *testing.B) {
		w, id, _ := benchFile(b, pages, Options{})
		change(b, w, id, 7)
		s := freezeNow(b, w)
		read(b, w, id, s.epoch, 7)
	})
	b.Run("undo", func(b *testing.B) {
		w, id, _ := benchFile(b, pages, Options{})
		change(b, w, id, 7)
		s := freezeNow(b, w)
		change(b, w, id, 8)
		must(b, w.pool.Flush())
		read(b, w, id, s.epoch, 7)
	})
}

// BenchmarkFreezeManyFiles measures the freeze with one private page in each of many files.
func BenchmarkFreezeManyFiles(b *testing.B) {
	for _, files := range []int{1000, 8000} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) {
			w := newWorld(b, Options{})
			data := fill(1, PageSize)
			for range files {
				id := w.create()
				_, err := w.file(id).WriteAt(data, 0, w.record(id))
				must(b, err)
			}
			freezeNow(b, w)
			var freeze, fork time.Duration
			for range b.N {
				for id := ID(1); id < w.next; id++ {
					_, err := w.file(id).WriteAt(data, 0, w.record(id))
					must(b, err)
				}
				s := &frozenWorld{files: map[ID][]byte{}, bound: w.next}
				fz, err := w.pool.Freeze(func(e Epoch) error { s.epoch = e; return nil })
				must(b, err)
				if fz.Captured != int64(files)*PageSize {
					b.Fatalf("captured %d bytes of %d files", fz.Captured, files)
				}
				freeze, fork = freeze+fz.Took, fork+fz.Fork
				s.fz = fz
				w.snaps = append(w.snaps, s)
				must(b, w.commit(s))
				must(b, w.remove(w.snaps[0]))
			}
			b.ReportMetric(float64(freeze.Microseconds())/float64(b.N), "freeze-us/op")
			b.ReportMetric(float64(fork.Microseconds())/float64(b.N), "fork-us/op")
		})
	}
}

package snapshot

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// BenchmarkSnapshotOfTree measures a snapshot against the size of the tree: it must not matter.
func BenchmarkSnapshotOfTree(b *testing.B) {
	for _, files := range []int{10, 100000} {
		b.Run(fmt.Sprintf("files=%d", files), func(b *testing.B) {
			w := newStoreWorld(b, Options{})
			l := w.s.Live()
			var dir Ino
			for i := range files {
				if i%1000 == 0 {
					a, err := l.Create(Root, fmt.Sprint("dir", i), Spec{Mode: syscall.S_IFDIR | 0o755})
					w.ok("mkdir", err)
					dir = a.Ino
				}
				_, err := l.Create(dir, fmt.Sprint("file", i), Spec{Mode: syscall.S_IFREG | 0o644})
				w.ok("create", err)
			}
			a, err := l.Create(Root, "f", Spec{Mode: syscall.S_IFREG | 0o644})
			w.ok("create", err)
			h, err := l.OpenFile(a.Ino)
			w.ok("open", err)
			defer h.Close()
			var freeze time.Duration
			b.ResetTimer()
			for i := range b.N {
				_, err := h.WriteAt([]byte("something new"), 0, false)
				w.ok("write", err)
				t, err := w.s.Snapshot(Request{Name: fmt.Sprint("s", i)})
				w.ok("snapshot", err)
				freeze += time.Duration(t.FreezeUsec) * time.Microsecond
			}
			b.StopTimer()
			b.ReportMetric(float64(freeze.Microseconds())/float64(b.N), "freeze-us/op")
			v, err := w.s.Find(fmt.Sprint("s", b.N-1))
			w.ok("find", err)
			if v.State != Durable {
				b.Fatalf("snapshot is %s", v.State)
			}
		})
	}
}

package snapshot

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestCheckWhileFilesComeAndGo: a check of a store that is in use does not take for damage what comes and goes meanwhile.
func TestCheckWhileFilesComeAndGo(t *testing.T) {
	w := newStoreWorld(t, Options{})
	l := w.s.Live()
	write := func(name string) (Ino, error) {
		a, err := l.Create(Root, name, Spec{Mode: syscall.S_IFREG | 0o644})
		if err != nil {
			return 0, err
		}
		h, err := l.OpenFile(a.Ino)
		if err != nil {
			return 0, err
		}
		defer h.Close()
		if _, err := h.WriteAt([]byte(name), 0, false); err != nil {
			return 0, err
		}
		return a.Ino, h.Sync(false)
	}
	for i := range 500 { // so that a check takes a moment
		_, err := write(fmt.Sprint("stays", i))
		w.ok("write", err)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			name := fmt.Sprint("goes", i)
			ino, err := write(name)
			if err == nil {
				err = l.Unlink(Root, name)
			}
			l.Forget(ino)
			if err == nil {
				err = w.s.tidy()
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 50 {
		w.check()
		if t.Failed() {
			break
		}
	}
	stop.Store(true)
	wg.Wait()
}

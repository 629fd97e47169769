package cow

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCutBaseFile truncates a base file under the pool's feet: reads of what is lost, and writes over it, get EIO; nothing
// else suffers, and no frozen read makes zeros of it.
func TestCutBaseFile(t *testing.T) {
	w := newWorld(t, Options{})
	id, other := w.create(), w.create()
	must(t, w.write(id, 0, fill(1, 8*PageSize)))
	must(t, w.write(other, 0, fill(2, 8*PageSize)))
	s, err := w.freeze()
	must(t, err)
	must(t, w.commit(s))
	must(t, w.write(id, PageSize, fill(3, PageSize))) // mapped now
	must(t, os.Truncate(w.dir+"/base/"+basePath(id), 4*PageSize))
	b := make([]byte, PageSize)
	f := w.file(id)
	if _, err := f.ReadAt(b, 6*PageSize); !errors.Is(err, unix.EIO) {
		t.Errorf("read beyond the cut: %v, want EIO", err)
	}
	if _, err := f.ReadAt(b, 2*PageSize); err != nil {
		t.Errorf("read before the cut: %v", err)
	}
	if _, err := f.WriteAt(b[:10], 6*PageSize, w.record(id)); !errors.Is(err, unix.EIO) {
		t.Errorf("write into a page beyond the cut: %v, want EIO", err)
	}
	fr, err := w.pool.OpenFrozen(id, s.epoch, 8*PageSize)
	must(t, err)
	if _, err := fr.ReadAt(b, 6*PageSize); !errors.Is(err, unix.EIO) {
		t.Errorf("frozen read beyond the cut: %v, want EIO", err)
	}
	fr.Close()
	f = w.file(other)
	if n, err := f.ReadAt(b, 0); n != len(b) || err != nil {
		t.Errorf("read of another content: %d, %v", n, err)
	}
}

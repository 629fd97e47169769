package snapshot

import (
	"sync/atomic"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// totals counts the live inodes that have a name, and the lengths of the regular files among them: what changes add and take
// away, on top of what a look through the whole namespace, in the background, found when the store was opened.
type totals struct{ files, bytes atomic.Int64 }

// changed counts a record that took the place of another; nil stands for none.
func (t *totals) changed(old, rec *meta.Inode) {
	t.count(old, -1)
	t.count(rec, 1)
}

func (t *totals) count(rec *meta.Inode, sign int64) {
	if rec == nil || rec.Nlink == 0 {
		return
	}
	t.files.Add(sign)
	if isRegular(rec.Mode) {
		t.bytes.Add(sign * rec.Size)
	}
}

// totals returns the counts.
func (l *Live) totals() (files, bytes int64) { return l.sums.files.Load(), l.sums.bytes.Load() }

// countAll adds what is there now. It looks at the namespace as it was when it was called, and takes as long as the tree is large;
// started is closed when changes may begin. stop ends it early. measure says that the lengths of all base files are to be recorded.
func (l *Live) countAll(stop <-chan struct{}, started chan<- struct{}, measure bool) (all bool, err error) {
	var previous meta.Ino
	begun, stopped := false, false
	err = l.db.Inodes(func(ino meta.Ino, _ cow.Epoch, rec *meta.Inode) bool {
		if !begun {
			close(started)
			begun = true
		}
		if ino != previous { // the newest version comes first
			previous = ino
			l.sums.count(rec, 1)
		}
		if measure && rec != nil && rec.Content != 0 {
			l.pool.Measure(rec.Content)
		}
		select {
		case <-stop:
			stopped = true
			return false
		default:
			return true
		}
	})
	if !begun {
		close(started)
	}
	return err == nil && !stopped, err
}

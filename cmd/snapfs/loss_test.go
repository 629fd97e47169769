package main

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// TestWhatAKillLoses measures how old the oldest write is that a killed daemon loses. Of a file that no snapshot has, every write(2)
// within its length that returned is there afterwards, also where nothing was synced. Of one that becomes longer, the last lengths are lost
// that were still on their way to the log of the metadata store; of one that the newest snapshot has, the overwrites since the last flush.
// How old these are is logged, not judged: a slow machine takes longer.
func TestWhatAKillLoses(t *testing.T) {
	var appends, overwrites []time.Duration
	for range rounds(3) {
		a, o := loseOnce(t)
		appends, overwrites = append(appends, a), append(overwrites, o)
	}
	t.Logf("%d kills, flush interval 1s: the oldest write lost was old, median, nine of ten, most:", len(appends))
	for what, lost := range map[string][]time.Duration{"appended": appends, "overwritten, of what a snapshot has": overwrites} {
		slices.Sort(lost)
		at := func(part float64) time.Duration {
			return lost[int(part*float64(len(lost)-1))].Round(10 * time.Microsecond)
		}
		t.Logf("%s: %v, %v, %v", what, at(0.5), at(0.9), at(1))
	}
}

// lossPages is how many pages are written, each once.
const lossPages = 16384

func loseOnce(t *testing.T) (appends, overwrites time.Duration) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("protected"), strings.Repeat("-", lossPages*4096))
	snapfs(t, "snapshot", p.point, "s").ok()
	owned, appended, protected := openForLoss(t, p.in("owned")), openForLoss(t, p.in("appended")), openForLoss(t, p.in("protected"))
	if err := errors.Join(owned.Truncate(lossPages*4096), owned.Sync()); err != nil {
		t.Fatal(err)
	}
	var times []time.Time // of every write
	for stop := time.Now().Add(time.Second + time.Duration(rand.IntN(1500))*time.Millisecond); time.Now().Before(stop) && len(times) < lossPages; {
		b := binary.BigEndian.AppendUint64(nil, uint64(len(times)+1))
		for _, f := range []*os.File{owned, appended, protected} {
			if _, err := f.WriteAt(b, int64(len(times))*4096); err != nil {
				t.Fatal(err)
			}
		}
		times = append(times, time.Now())
		time.Sleep(100 * time.Microsecond)
	}
	pidfd, err := unix.PidfdOpen(p.daemon(t), 0) // asking takes a while
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	killed := time.Now()
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ENOTCONN", func() bool { return isDead(p.point) })
	if r := snapfs(t, "mount", p.store, p.point); r.code != control.Done { // it may say that it waits
		t.Fatal(r.stderr)
	}
	owned, appended, protected = openForLoss(t, p.in("owned")), openForLoss(t, p.in("appended")), openForLoss(t, p.in("protected"))
	for n, at := range times {
		if stampAt(t, owned, n) != uint64(n+1) {
			t.Fatalf("write %d of %d to a page that no snapshot had is lost", n+1, len(times))
		}
		if stampAt(t, appended, n) != uint64(n+1) {
			appends = max(appends, killed.Sub(at))
		}
		if stampAt(t, protected, n) != uint64(n+1) {
			overwrites = max(overwrites, killed.Sub(at))
		}
	}
	return appends, overwrites
}

func openForLoss(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// stampAt returns the number of the write that a page holds, 0 beyond the end.
func stampAt(t *testing.T, f *os.File, page int) uint64 {
	t.Helper()
	b := make([]byte, 8)
	if _, err := f.ReadAt(b, int64(page)*4096); err == io.EOF {
		return 0
	} else if err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint64(b)
}

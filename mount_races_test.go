package snapfs_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// raceTime is how long a test looks for a race.
const raceTime = 2 * time.Second

// during runs do until the test's time is up, while others run as well, again and again.
func during(t *testing.T, limit time.Duration, do func(i int) error, others ...func() error) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, other := range others {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := other(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i, end := 0, time.Now().Add(limit); time.Now().Before(end); i++ {
		if err := do(i); err != nil {
			t.Errorf("round %d: %v", i, err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// TestEmptiedWhileAppendedTo: a log that is emptied (: > log) while somebody appends to it has whole records without a gap at any time.
func TestEmptiedWhileAppendedTo(t *testing.T) {
	for _, back := range []bool{false, true} {
		t.Run(fmt.Sprint("writeback=", back), func(t *testing.T) {
			m := newMount(t, func(m *mounted) { m.opt.Writeback = back })
			path := m.live("log")
			log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
			need(t, err)
			defer log.Close()
			last := uint64(0)
			during(t, raceTime, func(int) error {
				last++
				_, err := log.Write(binary.BigEndian.AppendUint64(nil, last))
				return err
			}, func() error {
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
				if err != nil {
					return err
				}
				need(t, f.Close())
				time.Sleep(time.Millisecond)
				return readLog(path)
			})
			need(t, readLog(path))
		})
	}
}

// readLog checks that the records of a log are consecutive numbers.
func readLog(path string) error {
	log, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(log)%8 != 0 {
		return fmt.Errorf("the log has %d bytes", len(log))
	}
	for before := uint64(0); len(log) > 0; log = log[8:] {
		record := binary.BigEndian.Uint64(log)
		if record == 0 || before != 0 && record != before+1 {
			return fmt.Errorf("the log has %d after %d", record, before)
		}
		before = record
	}
	return nil
}

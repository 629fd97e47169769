package snapshot

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// reports passes on what fails in the background: of what fails again and again, as on a full disk, one a minute.
type reports struct {
	to   func(error)
	now  func() time.Time
	mu   sync.Mutex
	last map[string]*repeated // by the error's text without numbers
}

// repeated is an error that came before.
type repeated struct {
	told    time.Time
	skipped int
}

const (
	reportPeriod = time.Minute
	mostRepeated = 100 // kinds of errors that are remembered
)

func newReports(to func(error)) *reports {
	if to == nil {
		to = func(error) {}
	}
	return &reports{to: to, now: time.Now, last: map[string]*repeated{}}
}

func (r *reports) report(err error) {
	if err = r.due(err); err != nil {
		r.to(err)
	}
}

// due returns what is to be passed on now for err, nil for nothing.
func (r *reports) due(err error) error {
	kind := strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, err.Error())
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	again := r.last[kind]
	if again == nil {
		if len(r.last) >= mostRepeated {
			clear(r.last)
		}
		r.last[kind] = &repeated{told: now}
		return err
	}
	if now.Sub(again.told) < reportPeriod {
		again.skipped++
		return nil
	}
	if n := again.skipped; n > 0 {
		err = fmt.Errorf("%w (and %d times more since %s)", err, n, again.told.UTC().Format(time.TimeOnly))
	}
	*again = repeated{told: now}
	return err
}

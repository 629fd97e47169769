package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestReportsOfTheSameAreFew(t *testing.T) {
	var got []string
	r := newReports(func(err error) { got = append(got, err.Error()) })
	now := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)
	r.now = func() time.Time { return now }
	for i := range 100 {
		r.report(fmt.Errorf("flush of content %d: full", i))
	}
	r.report(errors.New("something else"))
	now = now.Add(reportPeriod)
	r.report(errors.New("flush of content 7: full"))
	r.report(errors.New("flush of content 8: full"))
	want := []string{"flush of content 0: full", "something else", "flush of content 7: full (and 99 times more since 10:00:00)"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	for i := range 10 * mostRepeated {
		r.report(fmt.Errorf("kind %s", string(rune('a'+i))))
	}
	if len(r.last) > mostRepeated {
		t.Errorf("remembers %d kinds", len(r.last))
	}
}

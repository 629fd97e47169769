package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/snapfs/snapfs/fs/control"
)

const cronScript = "../../scripts/snapshot-cron.sh"

// TestCronPolicy compares what the script deletes with the policy in other words, for snapshots at odd times, over the end of a year.
func TestCronPolicy(t *testing.T) {
	if _, err := exec.LookPath("awk"); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var times []time.Time
	for at := time.Date(2023, 12, 1, 0, 0, 0, 0, time.UTC); at.Before(time.Date(2024, 3, 10, 0, 0, 0, 0, time.UTC)); {
		times = append(times, at)
		at = at.Add(time.Duration(60+random.IntN(9000)) * time.Second)
		if random.IntN(60) == 0 {
			at = at.Add(time.Duration(random.IntN(9*24)) * time.Hour)
		}
	}
	for _, n := range [][3]int{{24, 7, 4}, {1, 1, 1}, {0, 0, 0}, {100, 0, 0}, {0, 30, 0}, {0, 0, 100}} {
		var list strings.Builder
		var names []string
		for i, at := range times {
			name := "auto-" + at.Format("2006-01-02T150405Z")
			names = append(names, name)
			fmt.Fprintf(&list, `{"name":%q,"epoch":%d,"held":%v,"description":"name:auto"}`+"\n", name, i, i == 5)
			if i%10 == 0 { // of somebody else
				fmt.Fprintf(&list, `{"name":"auto-%d","epoch":0,"held":false}`+"\n"+`{"name":"other-%s","epoch":0,"held":false}`+"\n", i, at.Format("2006-01-02T150405Z"))
			}
		}
		got := cronDeletes(t, list.String(), n)
		want := expired(times, names, n)
		if !slices.Equal(got, want) {
			t.Errorf("policy %v: it deletes %d, want %d:\n%v\n%v", n, len(got), len(want), got, want)
		}
	}
}

// expired is the policy: the newest of each of the last hours, days and weeks, the newest of all, and number 5, which is held.
func expired(times []time.Time, names []string, n [3]int) (gone []string) {
	periods := []func(time.Time) string{
		func(at time.Time) string { return at.Format("2006-01-02 15") },
		func(at time.Time) string { return at.Format("2006-01-02") },
		func(at time.Time) string { y, w := at.ISOWeek(); return fmt.Sprint(y, w) },
	}
	keep := map[int]bool{5: true, len(times) - 1: true}
	for kind, period := range periods {
		seen := map[string]bool{}
		for i := len(times) - 1; i >= 0 && len(seen) < n[kind]; i-- {
			if !seen[period(times[i])] {
				seen[period(times[i])], keep[i] = true, true
			}
		}
	}
	for i := len(times) - 1; i >= 0; i-- {
		if !keep[i] {
			gone = append(gone, names[i])
		}
	}
	return gone
}

// cronDeletes returns what the script would delete of a list that a program in place of snapfs prints.
func cronDeletes(t *testing.T, list string, n [3]int) (names []string) {
	t.Helper()
	dir := t.TempDir()
	stub := filepath.Join(dir, "snapfs")
	write(t, filepath.Join(dir, "list"), list)
	write(t, stub, "#!/bin/sh\ncat "+filepath.Join(dir, "list")+"\n")
	if err := os.Chmod(stub, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", cronScript, "-n", "--hourly", fmt.Sprint(n[0]), "--daily", fmt.Sprint(n[1]), "--weekly", fmt.Sprint(n[2]), "/mnt")
	cmd.Env = append(os.Environ(), "SNAPFS="+stub)
	for line := range strings.Lines(finish(t, cmd).ok()) {
		name, ok := strings.CutPrefix(line, "would delete ")
		if !ok {
			t.Errorf("it said %q", line)
		}
		names = append(names, strings.TrimSpace(name))
	}
	return names
}

// TestCron takes and thins for real.
func TestCron(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	stub := filepath.Join(p.dir, "snapfs")
	write(t, stub, "#!/bin/sh\nexport "+asCommand+"=1\nexec "+ownPath(t)+" \"$@\"\n")
	if err := os.Chmod(stub, 0o755); err != nil {
		t.Fatal(err)
	}
	cron := func(args ...string) result {
		cmd := exec.Command("sh", append([]string{cronScript}, args...)...)
		cmd.Env = append(os.Environ(), "SNAPFS="+stub)
		return finish(t, cmd)
	}
	for _, name := range []string{"auto-2020-01-01T000000Z", "auto-2020-01-01T001000Z", "auto-2020-02-02T000000Z", "mine"} {
		snapfs(t, "snapshot", p.point, name).ok()
	}
	if out := cron("-q", "--daily", "2", "--weekly", "2", "--hourly", "2", p.point).ok(); out != "" {
		t.Errorf("with -q it said %q", out)
	}
	list := snapfs(t, "list", p.point).ok()
	if strings.Count(list, "\n") != 4 || strings.Contains(list, "2020-01-01") || !strings.Contains(list, "2020-02-02") || !strings.Contains(list, "mine") {
		t.Errorf("there are\n%s", list)
	}
	if r := cron(p.dir); r.code != control.NoMount {
		t.Errorf("without a mount: %+v", r)
	}
	if r := cron("--hourly", "x", p.point); r.code != control.Usage {
		t.Errorf("a policy that is none: %+v", r)
	}
}

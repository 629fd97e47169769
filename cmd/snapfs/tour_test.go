package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

// TestTour is the README's tour.
func TestTour(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("notes"), "monday\n")
	if out := snapfs(t, "snapshot", p.point, "before", "-m", "a first one").ok(); out != "before\n" {
		t.Errorf("snapshot printed %q", out)
	}
	write(t, p.in("notes"), "tuesday\n")
	wantFile(t, p.in("notes"), "tuesday\n")
	wantFile(t, p.at("before", "notes"), "monday\n")

	table := snapfs(t, "list", p.point).ok()
	row := regexp.MustCompile(`(?m)^before +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +durable +[0-9.]+ (B|KiB) +a first one$`)
	if !strings.HasPrefix(table, "NAME ") || !row.MatchString(table) {
		t.Errorf("list printed\n%s", table)
	}
	snapfs(t, "rename", p.point, "before", "monday").ok()
	wantFile(t, p.at("monday", "notes"), "monday\n")
	if _, err := os.Stat(p.at("before", "notes")); !os.IsNotExist(err) {
		t.Errorf("the old name is still there: %v", err)
	}
	if out := snapfs(t, "delete", "--dry-run", p.point, "monday").ok(); !strings.HasPrefix(out, "would delete monday and free ") {
		t.Errorf("the dry run printed %q", out)
	}
	wantFile(t, p.at("monday", "notes"), "monday\n")
	if out := snapfs(t, "delete", p.point, "monday").ok(); !strings.HasPrefix(out, "deleted monday, freed ") {
		t.Errorf("delete printed %q", out)
	}
	if out := snapfs(t, "list", p.point).ok(); out != "no snapshots\n" {
		t.Errorf("list printed %q", out)
	}
	snapfs(t, "umount", p.point).ok()
}

// TestSurvival: what a snapshot holds is the same after a remount.
func TestSurvival(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	write(t, p.in("big"), big)
	snapfs(t, "snapshot", p.point, "one").ok()
	write(t, p.in("big"), strings.ToUpper(big))
	snapfs(t, "snapshot", p.point, "two").ok()
	write(t, p.in("big"), "short")
	for range 2 {
		wantFile(t, p.in("big"), "short")
		wantFile(t, p.at("one", "big"), big)
		wantFile(t, p.at("two", "big"), strings.ToUpper(big))
		snapfs(t, "umount", p.point).ok()
		snapfs(t, "check", p.store).ok()
		p.mount(t)
	}
}

func TestJSON(t *testing.T) {
	p := newPlace(t)
	p.mount(t, "dirty_limit=32M")
	write(t, p.in("file"), strings.Repeat("x", 10000))
	start := time.Now().Add(-time.Second)
	taken := lines[snapshot.Taken](t, snapfs(t, "snapshot", "--json", p.point, "one").ok())
	if len(taken) != 1 || taken[0].Name != "one" || taken[0].State != snapshot.Durable || taken[0].Epoch == 0 || taken[0].FreezeUsec <= 0 || taken[0].Time.Before(start) {
		t.Errorf("snapshot: %+v", taken)
	}
	name := strings.TrimSpace(snapfs(t, "snapshot", "--no-wait", "-m", "<&>\n", p.point).ok())
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d{6}\.\d{3}Z$`).MatchString(name) {
		t.Errorf("the default name is %q", name)
	}
	infos := lines[snapshot.Info](t, snapfs(t, "list", "--json", p.point).ok())
	if len(infos) != 2 || infos[0].Name != "one" || infos[1].Name != name || infos[1].Description != "<&>\n" || infos[0].Epoch >= infos[1].Epoch {
		t.Errorf("list: %+v", infos)
	}
	if table := snapfs(t, "list", p.point).ok(); strings.Count(table, "\n") != 3 || !strings.Contains(table, `<&>\n`) {
		t.Errorf("a control character breaks the table:\n%s", table)
	}
	status := lines[fs.Status](t, snapfs(t, "status", "--json", p.in("file")).ok())
	if len(status) != 1 {
		t.Fatalf("%d lines of status", len(status))
	}
	s := status[0]
	if s.MountPoint != p.point || s.Store != p.store || s.Mode != "rw" || s.Snapshots != 2 || s.DirtyLimitBytes != 32<<20 || s.LiveFiles < 1 ||
		s.LiveBytes != 10000 || s.TotalSnapshots != 2 || s.Last == nil || s.Last.Status != "ok" || s.ResidentBytes < 1<<20 {
		t.Errorf("status: %+v", s)
	}
	gone := lines[snapshot.Deleted](t, snapfs(t, "delete", "--json", p.point, "one", name).ok())
	if len(gone) != 2 || gone[0].Name != "one" || gone[1].Name != name {
		t.Errorf("delete: %+v", gone)
	}
	if out := snapfs(t, "list", "--json", p.point).ok(); out != "" {
		t.Errorf("an empty list is %q", out)
	}
	report := lines[snapshot.Report](t, snapfs(t, "check", "--json", p.store).ok()) // mounted: by the daemon
	if len(report) != 1 || len(report[0].Problems) != 0 || report[0].Files == 0 {
		t.Errorf("check: %+v", report)
	}
}

// TestStatusFields: the names that monitoring relies on are all there.
func TestStatusFields(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	snapfs(t, "snapshot", p.point).ok()
	var got map[string]any
	if err := json.Unmarshal([]byte(snapfs(t, "status", "--json", p.point).ok()), &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(`mountpoint store version uptime_seconds mode snapshots epoch live_files live_bytes store_bytes undo_bytes
		dirty_bytes dirty_limit_bytes snapshot_in_progress last_snapshot total_forks total_snapshots failed_snapshots
		changes_since_last_snapshot page_faults resident_bytes`) {
		if _, ok := got[name]; !ok {
			t.Errorf("no %s in the status", name)
		}
	}
	last, _ := got["last_snapshot"].(map[string]any)
	for _, name := range strings.Fields("name time status freeze_usec fork_usec captured_bytes cow_bytes seconds") {
		if _, ok := last[name]; !ok {
			t.Errorf("no last_snapshot.%s in the status", name)
		}
	}
	text := snapfs(t, "status", p.point).ok()
	for _, want := range []string{p.point + " (rw)", p.store, "last snapshot", "live tree"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestDirectoryOperations: mkdir, mv and rmdir in .snapshots do what the commands do.
func TestDirectoryOperations(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), "one")
	for _, c := range [][]string{{"mkdir", p.at("a", "")}, {"mv", p.at("a", ""), p.at("b", "")}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", c, err, out)
		}
	}
	wantFile(t, p.at("b", "file"), "one")
	if infos := lines[snapshot.Info](t, snapfs(t, "list", "--json", p.point).ok()); len(infos) != 1 || infos[0].Name != "b" || infos[0].State != snapshot.Durable {
		t.Errorf("list: %+v", infos)
	}
	if err := os.Remove(p.at("b", "")); err != nil {
		t.Error(err)
	}
	if out := snapfs(t, "list", p.point).ok(); out != "no snapshots\n" {
		t.Errorf("list printed %q", out)
	}
}

// TestFullOutput: output that cannot be written is a failure.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	cmd := command("version")
	cmd.Stdout = full
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("%v, %q", err, stderr.String())
	}
}

func TestManAndCompletion(t *testing.T) {
	dir := t.TempDir()
	snapfs(t, "man", dir).ok()
	for _, name := range []string{"snapfs", "snapfs-mount", "snapfs-umount", "snapfs-snapshot", "snapfs-list", "snapfs-delete", "snapfs-rename",
		"snapfs-status", "snapfs-check", "snapfs-version", "snapfs-man"} {
		page, err := os.ReadFile(filepath.Join(dir, name+".1"))
		if err != nil || !strings.HasPrefix(string(page), ".TH ") || !strings.Contains(string(page), "\n.SH EXAMPLES\n") {
			t.Errorf("%s: %v, %.40q", name, err, page)
		}
	}
	snapfs(t, "man", filepath.Join(dir, "missing")).fails(control.Unknown)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := snapfs(t, "completion", shell).ok(); !strings.Contains(out, "snapfs") {
			t.Errorf("completion %s printed %.40q", shell, out)
		}
	}
	if out := snapfs(t, "version").ok(); !strings.HasPrefix(out, "snapfs ") {
		t.Errorf("version printed %q", out)
	}
	if out := snapfs(t).ok(); !strings.Contains(out, "umount") || strings.Contains(out, "rollback") {
		t.Errorf("the help is\n%s", out)
	}
}

// TestInterrupted: Ctrl-C ends a command that waits, with code 130.
func TestInterrupted(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	pid := p.daemon(t)
	kill := exec.Command("kill", "-STOP", fmt.Sprint(pid))
	if err := kill.Run(); err != nil {
		t.Fatal(err)
	}
	cmd := command("status", p.point)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if err := exec.Command("kill", "-CONT", fmt.Sprint(pid)).Run(); err != nil {
		t.Fatal(err)
	}
	if cmd.ProcessState.ExitCode() != int(control.Interrupted) || stderr.String() != "snapfs: interrupted\n" {
		t.Errorf("code %d, stderr %q", cmd.ProcessState.ExitCode(), stderr.String())
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snapfs/snapfs/fs/control"
	"github.com/snapfs/snapfs/snapshot"
)

// wantDamage wants check to find problems, to say them on stdout, and to end with the code for that.
func wantDamage(t *testing.T, p place) {
	t.Helper()
	damagedOnPurpose[p.store] = true
	r := snapfs(t, "check", "--json", p.store)
	reports := lines[snapshot.Report](t, r.stdout)
	if r.code != control.Damaged || len(reports) != 1 || len(reports[0].Problems) == 0 {
		t.Errorf("check --json: code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	if e := lines[control.Error](t, r.stderr); len(e) != 1 || e[0].Code != control.Damaged {
		t.Errorf("check --json: stderr %q", r.stderr)
	}
	r = snapfs(t, "check", p.store)
	if r.code != control.Damaged || !strings.Contains(r.stdout, " problem") || !strings.HasPrefix(r.stderr, "snapfs: the store ") {
		t.Errorf("check: code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

// damagedStore is a store, not mounted, with a snapshot whose pages are in an undo log.
func damagedStore(t *testing.T) place {
	p := newPlace(t)
	p.mount(t)
	write(t, p.in("file"), strings.Repeat("old.", 4096))
	snapfs(t, "snapshot", p.point, "before").ok()
	f, err := os.OpenFile(p.in("file"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(strings.Repeat("new.", 4096))
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	snapfs(t, "umount", p.point).ok()
	snapfs(t, "check", p.store).ok()
	return p
}

func TestCheckFindsRottenPage(t *testing.T) {
	p := damagedStore(t)
	log := theOnly(t, filepath.Join(p.store, "undo", "*"))
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(text), "old.old.")
	if at < 0 {
		t.Fatalf("the old page is not in %s", log)
	}
	text[at] ^= 1
	if err := os.WriteFile(log, text, 0o600); err != nil {
		t.Fatal(err)
	}
	wantDamage(t, p)
}

func TestCheckFindsMissingFile(t *testing.T) {
	p := damagedStore(t)
	if err := os.Remove(theOnly(t, filepath.Join(p.store, "base", "*", "*"))); err != nil {
		t.Fatal(err)
	}
	wantDamage(t, p)
}

func TestCheckFindsBrokenMetadata(t *testing.T) {
	p := damagedStore(t)
	for _, path := range glob(t, filepath.Join(p.store, "meta", "*")) {
		if name := filepath.Base(path); strings.HasPrefix(name, "MANIFEST") {
			write(t, path, "nonsense")
		}
	}
	wantDamage(t, p)
	r := snapfs(t, "mount", p.store, p.point)
	r.fails(control.Damaged, p.store)
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names
}

func theOnly(t *testing.T, pattern string) string {
	t.Helper()
	names := glob(t, pattern)
	if len(names) != 1 {
		t.Fatalf("%s is %v, want one", pattern, names)
	}
	return names[0]
}

// TestRepair mends what can be mended, says so, and ends with 7 where something is left.
func TestRepair(t *testing.T) {
	p := damagedStore(t)
	log := theOnly(t, filepath.Join(p.store, "undo", "*"))
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	write(t, log, "nonsense"+string(text[8:]))
	write(t, filepath.Join(p.store, "format"), "")
	if r := snapfs(t, "check", p.store); r.code != control.Damaged {
		t.Errorf("check: code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	out := snapfs(t, "check", "--repair", p.store).ok()
	for _, want := range []string{"repaired format: ", "repaired undo/1: ", ": no problems\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("check --repair says %q, not %q", out, want)
		}
	}
	snapfs(t, "check", p.store).ok()
	if again := snapfs(t, "check", "--repair", "--json", p.store).ok(); strings.Contains(again, "repaired") {
		t.Errorf("the second repair says %q", again)
	}
	p.mount(t)
	if got, err := os.ReadFile(p.in(".snapshots/before/file")); err != nil || string(got) != strings.Repeat("old.", 4096) {
		t.Errorf("the snapshot has %d bytes, not what it had; %v", len(got), err)
	}
	snapfs(t, "check", "--repair", p.store).fails(control.Refused, "unmount")
	snapfs(t, "umount", p.point).ok()
	write(t, log, "")
	damagedOnPurpose[p.store] = true
	r := snapfs(t, "check", "--repair", "--json", p.store)
	reports := lines[snapshot.Report](t, r.stdout)
	if r.code != control.Damaged || len(reports) != 1 || len(reports[0].Repaired) != 1 || len(reports[0].Problems) == 0 {
		t.Fatalf("repair of an empty log: code %d, %q", r.code, r.stdout)
	}
	if files := reports[0].Problems[0].Files; len(files) != 1 || files[0] != ".snapshots/before/file" {
		t.Errorf("the report names %q", files)
	}
	snapfs(t, "check", "--repair", p.in("nothing")).fails(control.Unknown, "nothing")
}

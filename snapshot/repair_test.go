package snapshot

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/meta"
)

// wantRepair repairs a store twice: the first time mends paths and leaves problems, the second time does nothing.
func wantRepair(t *testing.T, dir string, mended, problems []string) {
	t.Helper()
	first, err := Repair(dir)
	if err != nil {
		t.Fatal(err)
	}
	paths := func(all []Problem) (out []string) {
		for _, p := range all {
			out = append(out, p.Path)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	if got := paths(first.Repaired); !slices.Equal(got, mended) {
		t.Errorf("mended %q, want %q: %v", got, mended, first.Repaired)
	}
	if got := paths(first.Problems); !slices.Equal(got, problems) {
		t.Errorf("left %q, want %q: %v", got, problems, first.Problems)
	}
	second, err := Repair(dir)
	if err != nil || len(second.Repaired) > 0 || !slices.Equal(paths(second.Problems), problems) {
		t.Errorf("the second repair: %+v, %v", second, err)
	}
}

func wantFrozen(t *testing.T, dir string, want frozenFiles) {
	t.Helper()
	s, err := Open(dir, Options{quiet: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, files := range want {
		for file, got := range readFrozen(t, s, name) {
			if !bytes.Equal(got, files[file]) {
				t.Errorf("%s has changed in snapshot %s", file, name)
			}
			delete(files, file)
		}
		for file := range files {
			t.Errorf("%s is lost in snapshot %s", file, name)
		}
	}
}

func overwrite(t *testing.T, path string, at int64, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte(text), at)
	must(t, err)
	must(t, f.Close())
}

// TestRepair damages a store in all the ways that can be mended, and in some that cannot.
func TestRepair(t *testing.T) {
	source := filepath.Join(scratch(t), "store")
	want := makeDamageable(t, source)
	for _, x := range []struct {
		name             string
		harm             func(t *testing.T, dir string)
		mended, problems []string
	}{
		{"nothing", func(*testing.T, string) {}, nil, nil},
		{"format", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "format"), 40, "x") }, []string{"format"}, nil},
		{"no format", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "format"))) }, []string{"format"}, nil},
		{"left behind", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "format.new"), []byte("snapfs"), 0o600))
		}, []string{"format.new"}, nil},
		{"header of a log", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, "undo", "2"), 16, "xxxxxxxx") }, []string{"undo/2"}, nil},
		{"empty new log", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "undo", "99"), nil, 0o600))
		}, []string{"undo/99"}, nil},
		{"file that nobody has", func(t *testing.T, dir string) { orphanBase(t, dir) }, []string{"base/0a/10"}, nil},
		{"file from the future", func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, "base", "e7"), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, "base", "e7", "999"), []byte("whose?"), 0o600))
		}, []string{"base/e7/999"}, nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := copyStore(t, source)
			x.harm(t, dir)
			wantRepair(t, dir, x.mended, x.problems)
			files := frozenFiles{}
			for name, all := range want {
				files[name] = map[string][]byte{}
				for file, b := range all {
					files[name][file] = b
				}
			}
			wantFrozen(t, dir, files)
			if x.name == "file from the future" {
				if b, err := os.ReadFile(filepath.Join(dir, "lost", "999")); err != nil || string(b) != "whose?" {
					t.Errorf("lost/999 is %q, %v", b, err)
				}
			}
		})
	}
}

// orphanBase makes a base file that no inode has, with a number that was given out.
func orphanBase(t *testing.T, dir string) {
	t.Helper()
	db, err := meta.Open(filepath.Join(dir, "meta"), meta.Options{Exists: true})
	must(t, err)
	_, err = db.AtLeast(0, 11)
	must(t, err)
	must(t, db.Close())
	must(t, os.MkdirAll(filepath.Join(dir, "base", "0a"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, cow.BasePath(10)), []byte("orphan"), 0o600))
}

// TestRepairOfLoss: bytes that are lost stay lost, and check names the files.
func TestRepairOfLoss(t *testing.T) {
	source := filepath.Join(scratch(t), "store")
	makeDamageable(t, source)
	for _, x := range []struct {
		name, path string
		harm       func(path string) error
		files      []string // some of those that are named
	}{
		{"log", "undo/3", os.Remove, []string{".snapshots/s10/file0", ".snapshots/s10/file5"}},
		{"base file", "base/04/4", os.Remove, []string{"file3", ".snapshots/s21/file3"}},
		{"base file, cut", "base/04/4", func(path string) error { return os.Truncate(path, 5000) }, []string{"file3", ".snapshots/s21/file3"}},
		{"page of a log", "undo/3", func(path string) error {
			b, err := os.ReadFile(path)
			if err == nil {
				b[2*cow.PageSize] ^= 1 // the first page of the first batch
				err = os.WriteFile(path, b, 0o600)
			}
			return err
		}, []string{".snapshots/s10/file0"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := copyStore(t, source)
			must(t, x.harm(filepath.Join(dir, x.path)))
			wantRepair(t, dir, nil, []string{x.path})
			report, err := Check(dir)
			must(t, err)
			var files []string
			for _, p := range report.Problems {
				files = append(files, p.Files...)
			}
			for _, file := range x.files {
				if !slices.Contains(files, file) {
					t.Errorf("check names %q, not %s", files, file)
				}
			}
			if !strings.HasPrefix(x.path, "base/") && slices.ContainsFunc(files, func(f string) bool { return !strings.HasPrefix(f, ".snapshots/") }) {
				t.Errorf("check says that live files have lost bytes: %q", files)
			}
		})
	}
	t.Run("metadata", func(t *testing.T) {
		dir := copyStore(t, source)
		tables, err := filepath.Glob(filepath.Join(dir, "meta", "*.sst"))
		must(t, err)
		for _, table := range tables {
			must(t, os.Truncate(table, 100))
		}
		wantRepair(t, dir, nil, []string{"meta", filepath.Base(dir)})
	})
}

// TestRepairIsRefused: a directory that is no store is not made one, and a store in use is left alone.
func TestRepairIsRefused(t *testing.T) {
	dir := scratch(t)
	must(t, os.WriteFile(filepath.Join(dir, "letter"), nil, 0o600))
	if r, err := Repair(dir); err == nil {
		t.Errorf("no store: %+v", r)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("repair of no store left %v, %v", names, err)
	}
	s, err := Open(filepath.Join(dir, "store"), Options{Create: true, quiet: true})
	must(t, err)
	defer s.Close()
	if _, err := Repair(s.Dir()); fmt.Sprint(err) == "" || err == nil {
		t.Error("a store in use was repaired")
	}
}

package snapfs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// scripts are what TestLikeExt4 runs on both file systems.
var scripts = []struct {
	name string
	run  func(*place)
}{
	{"names", scriptNames}, {"bytes", scriptBytes}, {"paths", scriptPaths}, {"dots", scriptDots}, {"links", scriptLinks},
	{"rename matrix", scriptRenameMatrix}, {"rename", scriptRename}, {"in use", scriptInUse}, {"directories", scriptDirectories},
	{"open", scriptOpen}, {"path handles", scriptPathHandles}, {"write", scriptWrite}, {"truncate", scriptTruncate},
	{"fallocate", scriptFallocate}, {"transfer", scriptTransfer}, {"special", scriptSpecial}, {"locks", scriptLocks}, {"watch", scriptWatch}, {"run", scriptRun},
	{"attributes", scriptAttributes}, {"rights", scriptRights}, {"owners", scriptOwners}, {"sticky", scriptSticky}, {"setgid", scriptSetgid},
	{"xattrs", scriptXattrs}, {"lists", scriptLists}, {"inherit", scriptInherit}, {"list rights", scriptListRights}, {"nameless", scriptNameless},
}

// newExt4 mounts a new ext4 file system with the mount options of snapfs until the end of the test, and returns its root.
func newExt4(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount images")
	}
	dir := t.TempDir()
	need(t, os.Chmod(filepath.Dir(dir), 0o755))
	image, point := filepath.Join(dir, "image"), filepath.Join(dir, "ext4")
	need(t, os.Mkdir(point, 0o755))
	run(t, dir, "truncate", "-s", "1G", image)
	run(t, dir, "mkfs.ext4", "-q", "-F", "-O", "ea_inode", image) // extended attributes of 64 KiB
	if out, err := exec.Command("mount", "-o", "loop,nosuid,nodev,noatime", image, point).CombinedOutput(); err != nil {
		t.Skipf("no loop mounts here: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", point).CombinedOutput(); err != nil {
			t.Errorf("umount: %s", out)
		}
	})
	return point
}

// TestLikeExt4 runs each script of system calls in a directory of ext4 and in one of snapfs. What the calls return and
// what they change has to be the same, but for the differences in the table.
func TestLikeExt4(t *testing.T) {
	ext4, m := newExt4(t), newMount(t)
	for i, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			dir := filepath.Join("scripts", fmt.Sprint(i))
			want := play(t, filepath.Join(ext4, dir), false, s.run)
			got := play(t, m.live(dir), true, s.run)
			t.Logf("%d calls", len(want))
			compareRecords(t, s.name, want, got)
		})
	}
}

// difference is one from ext4 that snapfs has on purpose.
type difference struct{ script, call, ext4, snapfs, doc string }

// accepted are all of them. docs/posix.md has a row for each, which begins with doc.
var accepted = []difference{
	{"special", `write @fifo "through"`, "7; fifo ~mc", "7", "Times of fifos and devices"},
	{"xattrs", `lsetxattr f user.same "value"(5) 0`, "ok", "ok; f ~c", "Setting an extended attribute to the value it has"},
	{"write", `pwrite @f "odd" 1`, "EINVAL; f ~mc", "3; f ~mc, f: ", "`O_DIRECT` without alignment"},
}

// accept returns what an accepted difference is called in the docs, "" if it is none.
func accept(script string, want, got line) string {
	for _, d := range accepted {
		if d.script == script && d.call == want.call && d.call == got.call &&
			d.ext4 == outcome(want) && strings.HasPrefix(outcome(got), d.snapfs) {
			return d.doc
		}
	}
	return ""
}

// outcome is a record without the call.
func outcome(l line) string { return strings.TrimSuffix(l.result+"; "+l.changes, "; ") }

// shownDifferences is how many of a script are worth showing.
const shownDifferences = 40

// compareRecords fails the test at each call that two places answered differently, and at accepted differences that did not show.
func compareRecords(t *testing.T, script string, want, got []line) {
	t.Helper()
	if len(want) < 10 || len(want) != len(got) {
		t.Fatalf("%d calls were recorded on ext4, %d on snapfs", len(want), len(got))
	}
	shown, met := 0, make(map[string]bool)
	for i := range want {
		if want[i] == got[i] {
			continue
		}
		if doc := accept(script, want[i], got[i]); doc != "" {
			met[doc] = true
			continue
		}
		if shown++; shown <= shownDifferences {
			t.Errorf("call %d:\n\text4   %v\n\tsnapfs %v", i, want[i], got[i])
		}
	}
	if shown > shownDifferences {
		t.Errorf("%d calls differ", shown)
	}
	for _, d := range accepted {
		if d.script == script && !met[d.doc] {
			t.Errorf("no difference any more, strike it out: %s", d.doc)
		}
	}
}

// TestPosixDocs holds docs/posix.md to the tables of the tests: every accepted difference and every refusal is in it, with its
// errno, and no other.
func TestPosixDocs(t *testing.T) {
	text, err := os.ReadFile("docs/posix.md")
	need(t, err)
	rows := make(map[string]string) // second cell by first
	for _, row := range strings.Split(string(text), "\n") {
		cells := strings.Split(row, " | ")
		if first, ok := strings.CutPrefix(cells[0], "| "); ok && len(cells) > 2 {
			rows[first] = cells[1]
		}
	}
	for _, d := range accepted {
		if _, ok := rows[d.doc]; !ok {
			t.Errorf("docs/posix.md has no row %q", d.doc)
		}
	}
	for _, r := range refusals {
		name := unix.ErrnoName(r.errno)
		if r.errno == unix.EOPNOTSUPP { // ENOTSUP is the same number
			name = "EOPNOTSUPP"
		}
		if got, ok := rows[r.doc]; !ok || got != name {
			t.Errorf("docs/posix.md has %q for %q, the test %q", got, r.doc, name)
		}
		delete(rows, r.doc)
	}
	for doc, errno := range rows {
		if strings.HasPrefix(errno, "E") && strings.ToUpper(errno) == errno {
			t.Errorf("docs/posix.md says that %q gives %s: no test does", doc, errno)
		}
	}
}

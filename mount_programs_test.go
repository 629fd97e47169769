package snapfs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestSQLite runs a database on the live tree, takes snapshots in the middle of its transactions, and opens each.
func TestSQLite(t *testing.T) {
	for _, mode := range []string{"WAL", "DELETE", "TRUNCATE"} {
		t.Run(mode, func(t *testing.T) { testSQLite(t, newMount(t), mode) })
	}
	t.Run("WAL writeback", func(t *testing.T) { testSQLite(t, newMount(t, writeback), "WAL") })
}

const sqliteSetup = `PRAGMA journal_mode=%s; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=20; PRAGMA cache_size=10;
CREATE TABLE one(id INTEGER PRIMARY KEY, text TEXT); CREATE TABLE two(id INTEGER PRIMARY KEY, text TEXT);
CREATE INDEX texts ON two(text); SELECT 'ready';`

func testSQLite(t *testing.T, m *mounted, mode string) {
	const (
		snapshots    = 6
		transactions = 25 // between two
	)
	db := startActor(t, exec.Command("sqlite3", "-batch", m.live("data.db")))
	db.say(fmt.Sprintf(sqliteSetup, mode))
	for db.hear() != "ready" {
	}
	var committed [snapshots]int
	last := 0
	hear := func() {
		n, err := strconv.Atoi(db.hear())
		need(t, err)
		last = n
	}
	for s := range snapshots {
		for i := range transactions {
			id := s*transactions + i + 1
			db.say(fmt.Sprintf("BEGIN; INSERT INTO one VALUES(%d, hex(randomblob(900))); INSERT INTO two VALUES(%d, hex(randomblob(900)));"+
				" DELETE FROM one WHERE id=%d; DELETE FROM two WHERE id=%d; COMMIT; SELECT %d;", id, id, id-40, id-40, id))
		}
		for range transactions / 2 { // the rest goes on during the snapshot
			hear()
		}
		committed[s] = last
		m.snapshot(fmt.Sprint(s))
		for range transactions - transactions/2 {
			hear()
		}
	}
	db.end()
	for s := range snapshots {
		checkSQLite(t, m.frozen(fmt.Sprint(s)), committed[s])
	}
	m.remount()
	for s := range snapshots {
		checkSQLite(t, m.frozen(fmt.Sprint(s)), committed[s])
	}
	checkSQLite(t, m.mnt, snapshots*transactions)
}

// checkSQLite opens a copy of the database in dir, which recovers as it would after a crash. At least the given
// transaction is in it, and each transaction as a whole.
func checkSQLite(t *testing.T, dir string, committed int) {
	t.Helper()
	to := t.TempDir()
	for _, name := range []string{"data.db", "data.db-wal", "data.db-journal"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			continue
		}
		need(t, err)
		need(t, os.WriteFile(filepath.Join(to, name), data, 0o644))
	}
	out := run(t, to, "sqlite3", "-batch", "data.db", "PRAGMA integrity_check; SELECT max(id) FROM one; SELECT max(id) FROM two;"+
		" SELECT count(*) FROM one JOIN two USING(id); SELECT count(*) FROM one; SELECT count(*) FROM two;")
	lines := strings.Fields(out)
	if len(lines) != 6 || lines[0] != "ok" {
		t.Fatalf("%s: %s", dir, out)
	}
	top, err := strconv.Atoi(lines[1])
	need(t, err)
	if top < committed || lines[2] != lines[1] || lines[3] != lines[4] || lines[4] != lines[5] {
		t.Errorf("%s: %d transactions were committed, the database has %q", dir, committed, lines)
	}
}

// TestGit works in a repository on the live tree; every snapshot of it is a sound one.
func TestGit(t *testing.T) {
	m := newMount(t)
	repo := m.live("repo")
	need(t, os.Mkdir(repo, 0o755))
	git := func(dir string, args ...string) string {
		t.Helper()
		return run(t, dir, "git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0",
			"-c", "safe.directory=*"}, args...)...)
	}
	git(repo, "init", "-q", "-b", "main")
	const rounds = 5
	var heads [rounds]string
	for r := range rounds {
		for i := range 20 {
			writeFile(t, filepath.Join(repo, fmt.Sprintf("file%02d", i)), strings.Repeat(fmt.Sprintln("line", r, i), 50+r))
		}
		git(repo, "add", "-A")
		git(repo, "commit", "-q", "-m", fmt.Sprint("round ", r))
		heads[r] = strings.TrimSpace(git(repo, "rev-parse", "HEAD"))
		if r == 2 {
			git(repo, "gc", "-q")
		}
		gitDuringSnapshot(t, m, git, repo, fmt.Sprint(r))
	}
	for r := range rounds {
		frozen := m.frozen(fmt.Sprint(r), "repo")
		git(frozen, "fsck", "--full", "--strict")
		if !strings.Contains(git(frozen, "log", "--format=%H", "--all"), heads[r]) {
			t.Errorf("snapshot %d lacks the commit that was made before it", r)
		}
		to := filepath.Join(t.TempDir(), "clone")
		git("/", "clone", "-q", frozen, to)
	}
	git(repo, "fsck", "--full", "--strict")
	if status := git(repo, "status", "--porcelain"); status != "" {
		t.Errorf("git status: %s", status)
	}
}

// gitDuringSnapshot commits to a side branch while a snapshot is taken.
func gitDuringSnapshot(t *testing.T, m *mounted, git func(string, ...string) string, repo, name string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		cmd := commandIn(repo, "sh", "-c", `set -e; for i in 1 2 3 4 5 6; do
			git -c user.name=t -c user.email=t@example.org commit -q --allow-empty -m "$i"
			git branch -f side HEAD; done`)
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	m.snapshot(name)
	need(t, <-done)
}

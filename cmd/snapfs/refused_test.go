package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// Bad input: for each, one clear line on stderr, the exit code, and nothing changed.

func bareErrno(err error) syscall.Errno {
	var errno syscall.Errno
	errors.As(err, &errno)
	return errno
}

func TestUsage(t *testing.T) {
	p := newPlace(t)
	unchanged(t, p.dir, func() {
		for _, line := range []string{
			"nonsense", "nonsense " + p.store, "mount", "mount " + p.store, "mount " + p.store + " " + p.point + " extra", "mount --nonsense a b",
			"mount -o nonsense " + p.store + " " + p.point, "mount -o save=60:100 " + p.store + " " + p.point,
			p.store + " " + p.point + " -o rw,nonsense", "mount -o dirty_limit=lots " + p.store + " " + p.point,
			"umount", "snapshot", "snapshot a b c", "list", "delete " + p.point, "rename " + p.point + " a", "status", "check", "version x", "man",
		} {
			snapfs(t, strings.Fields(line)...).fails(control.Usage)
		}
		snapfs(t, "mount", "", p.point).fails(control.Usage, "empty")
		snapfs(t, "mount", "-o", "nonsense=1", p.store, p.point).fails(control.Usage, `"nonsense=1"`, "snapdir=hidden|visible", "dirty_limit=SIZE")
	})
}

func TestRefusedStores(t *testing.T) {
	p := newPlace(t)
	other := filepath.Join(p.dir, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(other, "precious"), "data")
	file := filepath.Join(p.dir, "file")
	write(t, file, "")
	unchanged(t, p.dir, func() {
		snapfs(t, "mount", other, p.point).fails(control.Failed, other, "not a snapfs store", "not empty")
		snapfs(t, "mount", file, p.point).fails(control.Failed, file, "not a directory")
		snapfs(t, "mount", filepath.Join(file, "below"), p.point).fails(control.Failed, "not a directory")
	})
}

func TestRefusedFormats(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	snapfs(t, "umount", p.point).ok()
	path := filepath.Join(p.store, "format")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		text string
		code control.Code
		say  string
	}{
		{"", control.Damaged, "not a snapfs store"},
		{"garbage\n", control.Damaged, "not a snapfs store"},
		{string(good[:len(good)/2]), control.Damaged, "format"},
		{newerFormat(t, string(good)), control.Failed, "newer"},
	} {
		write(t, path, bad.text)
		unchanged(t, p.dir, func() { snapfs(t, "mount", p.store, p.point).fails(bad.code, p.store, bad.say) })
	}
	write(t, path, string(good))
	p.mount(t)
}

// newerFormat is a format file of a version that does not exist yet.
func newerFormat(t *testing.T, good string) string {
	newer := strings.Replace(good, "version 1\n", "version 999\n", 1)
	if newer == good {
		t.Fatalf("no version in %q", good)
	}
	return newer
}

func TestRefusedPoints(t *testing.T) {
	p := newPlace(t)
	p.mount(t, "noatime") // it is read to see that nothing changed
	pid := strconv.Itoa(p.daemon(t))
	full := filepath.Join(p.dir, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(full, "file"), "x")
	other := filepath.Join(p.dir, "other")
	free := filepath.Join(p.dir, "free")
	if err := os.Symlink(p.store, filepath.Join(p.dir, "link")); err != nil {
		t.Fatal(err)
	}
	unchanged(t, p.dir, func() {
		snapfs(t, "mount", other, full).fails(control.Failed, full, "not empty")
		snapfs(t, "mount", other, filepath.Join(full, "file")).fails(control.Failed, "not a directory")
		snapfs(t, "mount", other, p.point).fails(control.Refused, p.point, "busy", p.store)
		snapfs(t, "mount", other, "/proc").fails(control.Refused, "/proc", "busy")
		snapfs(t, "mount", p.store, free).fails(control.Refused, "locked by process "+pid, p.point)
		snapfs(t, "mount", other, other).fails(control.Failed, other)
		snapfs(t, "mount", other, filepath.Join(other, "mnt")).fails(control.Failed, "inside its own store")
		snapfs(t, "mount", p.store, filepath.Join(p.dir, "link", "mnt")).fails(control.Failed, "inside its own store")
		snapfs(t, "mount", filepath.Join(free, "store"), free).fails(control.Failed, "inside the mount point")
	})
}

func TestRefusedDisks(t *testing.T) {
	p := newPlace(t)
	disk := p.onTmpfs(t, 8<<10)
	unchanged(t, p.dir, func() {
		snapfs(t, "mount", p.store, p.point).fails(control.Failed, p.store, "no space left on device")
	})
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	unchanged(t, p.dir, func() {
		snapfs(t, "mount", p.store, p.point).fails(control.Failed, p.store, "read-only file system")
	})
}

// TestStoreOnReadOnlyDisk: a good store whose disk went read-only.
func TestStoreOnReadOnlyDisk(t *testing.T) {
	p := newPlace(t)
	disk := p.onTmpfs(t, 64<<20)
	p.mount(t)
	write(t, p.in("file"), "x")
	snapfs(t, "umount", p.point).ok()
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	unchanged(t, p.dir, func() {
		snapfs(t, "mount", p.store, p.point).fails(control.Failed, p.store, "read-only file system")
	})
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	p.mount(t)
	wantFile(t, p.in("file"), "x")
}

func TestRefusedNames(t *testing.T) {
	p := newPlace(t)
	p.mount(t)
	snapfs(t, "snapshot", p.point, "one").ok()
	snapfs(t, "snapshot", p.point, "two").ok()
	before := snapfs(t, "list", p.point).ok()
	snapfs(t, "snapshot", p.point, "one").fails(control.Exists, "one")
	for _, name := range []string{".", "..", "a/b", "-x", strings.Repeat("x", 256)} {
		snapfs(t, "snapshot", p.point, "--", name).fails(control.Usage)
		snapfs(t, "rename", p.point, "--", "one", name).fails(control.Usage)
	}
	snapfs(t, "rename", p.point, "one", "two").fails(control.Exists, "two")
	snapfs(t, "rename", p.point, "none", "three").fails(control.Unknown, "none")
	snapfs(t, "delete", p.point, "one", "none").fails(control.Unknown, "none")
	snapfs(t, "delete", "--dry-run", p.point, "none").fails(control.Unknown, "none")
	if after := snapfs(t, "list", p.point).ok(); after != before {
		t.Errorf("the list was\n%sand is\n%s", before, after)
	}
	r := snapfs(t, "snapshot", "--json", p.point, "one")
	e := lines[control.Error](t, r.stderr)
	if r.code != control.Exists || r.stdout != "" || len(e) != 1 || e[0].Code != control.Exists || !strings.Contains(e[0].Text, "one") {
		t.Errorf("with --json: code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

func TestNoMount(t *testing.T) {
	p := newPlace(t)
	for _, args := range [][]string{{"snapshot", p.dir}, {"list", p.dir}, {"delete", p.dir, "x"}, {"rename", p.dir, "x", "y"}, {"status", p.dir}, {"umount", p.dir},
		{"status", filepath.Join(p.dir, "missing")}} {
		snapfs(t, args...).fails(control.NoMount, args[1])
	}
	snapfs(t, "check", filepath.Join(p.dir, "missing")).fails(control.Unknown, "no store")
	snapfs(t, "check", p.dir).fails(control.Failed, p.dir)
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/snapfs/snapfs/fs/control"
)

// byMount8 runs a script of mount(8) in a mount namespace where it finds snapfs: its helper looks for programs in the system's
// directories only. The script may use S and M for the store and the mount point; "flags" prints those of the mount.
func byMount8(t *testing.T, p place, script string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount by mount(8)")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(p.dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	program := "#!/bin/sh\nexec env " + asCommand + "=1 GORACE=atexit_sleep_ms=0 " + self + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "snapfs"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	head := `set -e
mount --bind "$0" /usr/local/sbin
S=$1 M=$2
mkdir -p "$M"
flags() { awk -v m="$M" '$5 == m { print $6 "," $NF }' /proc/self/mountinfo | sed 's/,user_id=.*//'; }
`
	cmd := exec.Command("unshare", "-m", "sh", "-c", head+script, bin, p.store, p.point)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// TestMount8 mounts by mount(8), with its flags, and remounts.
func TestMount8(t *testing.T) {
	p := newPlace(t)
	got := byMount8(t, p, `
mount -t fuse.snapfs "$S" "$M"; flags
echo text >"$M/file"
mount -o remount,ro "$M"; flags
if touch "$M/other" 2>/dev/null; then echo written; fi
cat "$M/file"
snapfs snapshot "$M" while-ro
mount -o remount,rw "$M"; flags
echo more >>"$M/file"
cat "$M/.snapshots/while-ro/file"
mount -o remount,noatime,nosuid,nodev "$M"; flags
mount -o remount,relatime,sync "$M"; flags
echo synced >"$M/synced"
snapfs umount "$M"
mount -t fuse.snapfs -o nosuid,nodev,noexec,nodiratime,dirsync,lazytime,nosymfollow,nofail,_netdev,x-a=b "$S" "$M"; flags
mkdir "$M/d"; mv "$M/synced" "$M/d"; rm -r "$M/d"
snapfs umount "$M"
mount -t fuse.snapfs -o ro,strictatime "$S" "$M"; flags
if touch "$M/other" 2>/dev/null; then echo written; fi
mount -o remount,rw "$M"; flags
touch "$M/file"
snapfs umount "$M"
snapfs mount "$S" "$M"; flags
snapfs umount "$M"
`)
	want := `rw,relatime,rw
ro,relatime,ro
text
while-ro
rw,relatime,rw
text
rw,nosuid,nodev,noatime,rw
rw,nosuid,nodev,relatime,rw,sync
rw,nosuid,nodev,noexec,nodiratime,relatime,nosymfollow,rw,dirsync,lazytime
ro,ro
rw,rw
rw,nosuid,nodev,relatime,rw
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestFlags: devices and set-id programs work only where they are asked for.
func TestFlags(t *testing.T) {
	p := newPlace(t)
	got := byMount8(t, p, `
use() {
	if head -c 1 "$M/null" >/dev/null 2>&1; then echo device; fi
	cp /usr/bin/id "$M/id"; chmod 6755 "$M/id"; chown 1000:1000 "$M/id"; chmod 6755 "$M/id"
	"$M/id" -u
}
snapfs mount "$S" "$M"; mknod "$M/null" c 1 3; use; snapfs umount "$M"
snapfs mount -o dev,suid "$S" "$M"; use; snapfs umount "$M"
snapfs mount -o dev,suid,nodev,nosuid "$S" "$M"; use; snapfs umount "$M"
`)
	if want := "0\ndevice\n1000\n0\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRemountRefused(t *testing.T) {
	p := newPlace(t)
	if err := os.Mkdir(p.point, 0o755); err != nil {
		t.Fatal(err)
	}
	snapfs(t, "mount", p.store, p.point, "-o", "remount,ro").fails(control.NoMount, "not in a snapfs mount")
	p.mount(t)
	snapfs(t, "mount", p.dir, p.point, "-o", "remount,ro").fails(control.NoMount, "is not mounted at")
	if strings.Contains(snapfs(t, "status", p.point).ok(), "mode ro") {
		t.Error("the mount is read-only")
	}
}

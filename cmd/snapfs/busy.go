package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs/control"
)

// user is a process that keeps a mount busy.
type user struct {
	pid     int
	command string
	how     string // cwd, root, exe, fd or map
	path    string
}

func (u user) String() string {
	return fmt.Sprintf("%s (process %d) has %s open (%s)", printable(u.command), u.pid, printable(u.path), u.how)
}

// usersOf returns the processes that use m, each once, in the order of their numbers; those of other users only if we may look at them.
func usersOf(m control.Mounted) []user {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var users []user
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if how, path := useOf(filepath.Join("/proc", entry.Name()), m); how != "" {
			users = append(users, user{pid: pid, command: commandOf(pid), how: how, path: path})
		}
	}
	sort.Slice(users, func(i, j int) bool { return users[i].pid < users[j].pid })
	return users
}

// useOf returns how the process with the given /proc directory uses m, "" if it does not.
func useOf(proc string, m control.Mounted) (how, path string) {
	for _, link := range []string{"cwd", "root", "exe"} {
		if on(filepath.Join(proc, link), m) {
			return link, target(filepath.Join(proc, link))
		}
	}
	fds, _ := os.ReadDir(filepath.Join(proc, "fd")) // gone or not ours: nothing to say about it
	for _, fd := range fds {
		if link := filepath.Join(proc, "fd", fd.Name()); on(link, m) {
			return "fd " + fd.Name(), target(link)
		}
	}
	if path, ok := mapped(proc, m); ok {
		return "map", path
	}
	return "", ""
}

// on reports whether what a link in /proc points to is in m.
func on(link string, m control.Mounted) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	return err == nil && st.Dev_major == m.Major && st.Dev_minor == m.Minor
}

func target(link string) string {
	path, err := os.Readlink(link)
	if err != nil {
		return "a file"
	}
	return path
}

// mapped returns a file of m that the process has mapped. The lines of maps are: address perms offset major:minor inode path,
// the device in hexadecimal.
func mapped(proc string, m control.Mounted) (string, bool) {
	f, err := os.Open(filepath.Join(proc, "maps"))
	if err != nil {
		return "", false
	}
	defer f.Close()
	device := fmt.Sprintf("%02x:%02x", m.Major, m.Minor)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field := strings.Fields(lines.Text())
		if len(field) >= 6 && field[3] == device {
			return strings.Join(field[5:], " "), true
		}
	}
	return "", false
}

func commandOf(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "a process"
	}
	return strings.TrimSpace(string(name))
}

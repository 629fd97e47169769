package control

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// FSType is the type of a snapfs mount in the mount table.
const FSType = "fuse.snapfs"

// Mounted is one line of the mount table.
type Mounted struct {
	ID           uint64 // the mount's id, as statx(2) reports it
	Major, Minor uint32 // device number of everything inside
	Root         string // which part of the file system: "/" is all of it
	Point        string // where it is mounted
	Type         string
	Source       string // for snapfs the store's path
}

// Mounts reads the mount table of this process, in mount order.
func Mounts() ([]Mounted, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

func parseMounts(r io.Reader) ([]Mounted, error) {
	var all []Mounted
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m, ok := parseMount(lines.Text()); ok {
			all = append(all, m)
		}
	}
	return all, lines.Err()
}

// parseMount parses one line (proc(5)):
//
//	36 35 98:0 /root /mount/point rw,noatime shared:1 - type source options
//
// with any number of fields before the lone dash.
func parseMount(line string) (Mounted, bool) {
	left, right, ok := strings.Cut(line, " - ")
	head, tail := strings.Fields(left), strings.Split(right, " ")
	if !ok || len(head) < 6 || len(tail) < 2 {
		return Mounted{}, false
	}
	id, err := strconv.ParseUint(head[0], 10, 64)
	if err != nil {
		return Mounted{}, false
	}
	m := Mounted{ID: id, Root: unescape(head[3]), Point: unescape(head[4]), Type: unescape(tail[0]), Source: unescape(tail[1])}
	if _, err := fmt.Sscanf(head[2], "%d:%d", &m.Major, &m.Minor); err != nil {
		return Mounted{}, false
	}
	return m, true
}

// unescape undoes the octal escapes of the mount table: \040 is a space, \011 a tab, \012 a newline, \134 a backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Find returns the snapfs mount that path is in; the error has code NoMount if there is none. A dead mount (its daemon
// is gone) is found as well.
func Find(path string) (Mounted, error) {
	m, err := FindAny(path)
	if err != nil {
		return Mounted{}, Errorf(NoMount, "%s is not in a snapfs mount: %v", path, bare(err))
	}
	if m.Type != FSType {
		return Mounted{}, Errorf(NoMount, "%s is not in a snapfs mount", path)
	}
	return m, nil
}

// IsDead reports whether an error says that the daemon of a FUSE mount is gone: it was before the request, or went while the request was
// under way.
func IsDead(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED)
}

// FindAny returns the mount, of any type, that path is in.
func FindAny(path string) (Mounted, error) {
	all, err := Mounts()
	if err != nil {
		return Mounted{}, err
	}
	var st unix.Statx_t
	// DONT_SYNC: whatever the daemon of a mount is doing, looking for it must not wait for it.
	err = unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	if err != nil && !IsDead(err) && !errors.Is(err, syscall.EACCES) {
		return Mounted{}, err
	}
	if err == nil && st.Mask&unix.STATX_MNT_ID != 0 {
		for _, m := range all {
			if m.ID == st.Mnt_id {
				return m, nil
			}
		}
		return Mounted{}, fmt.Errorf("%s: its mount is not in the mount table", path)
	}
	// A dead mount answers nothing about paths, nor does that of another user to us: go by their names.
	return byName(all, path)
}

// byName returns the last of the mounts with the longest mount point that path is at or below.
func byName(all []Mounted, path string) (Mounted, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Mounted{}, err
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(dir, filepath.Base(abs))
	}
	var best Mounted
	for _, m := range all {
		if Inside(abs, m.Point) && len(m.Point) >= len(best.Point) {
			best = m
		}
	}
	if best.Point == "" {
		return best, fmt.Errorf("%s: no mount holds it", path)
	}
	return best, nil
}

// Inside reports whether path is dir or below it; both are absolute and clean.
func Inside(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// bare returns the errno in err if there is one, so that a path that the message has already is not said again.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

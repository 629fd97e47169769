package main

import (
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mostDirtyLimit is the default room for private pages where memory is plentiful, in bytes.
const mostDirtyLimit = 256 << 20

// defaultDirtyLimit returns the room for private pages, in bytes, where nobody says: a quarter of the memory that the daemon may have, so
// that it and its writers stay within it, at most mostDirtyLimit.
func defaultDirtyLimit(root fs.FS) int64 {
	limit := int64(mostDirtyLimit)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		limit = min(limit, int64(info.Totalram)*int64(info.Unit)/4)
	}
	if n, ok := cgroupMemory(root); ok {
		limit = min(limit, n/4)
	}
	return max(limit, leastDirtyLimit)
}

// cgroupMemory returns the memory in bytes that the control groups of this process leave it: the least limit on the way up, in both
// versions of the hierarchy (cgroups(7)). A path that only the host knows is looked for upwards, where a container has its own.
func cgroupMemory(root fs.FS) (least int64, ok bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(groups)) {
		field := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3) // number, controllers, path
		if len(field) != 3 {
			continue
		}
		base, file := "", ""
		switch {
		case field[1] == "":
			base, file = "sys/fs/cgroup", "memory.max"
		case strings.Contains(","+field[1]+",", ",memory,"):
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for at := path.Clean("/" + field[2]); ; at = path.Dir(at) {
			text, _ := fs.ReadFile(root, path.Join(base, at, file))
			n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no limit
			if err == nil && (!ok || n < least) {
				least, ok = n, true
			}
			if at == "/" {
				break
			}
		}
	}
	return least, ok
}

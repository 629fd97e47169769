package main

import (
	"testing"
	"testing/fstest"
)

func TestDefaultDirtyLimit(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	tests := map[string]struct {
		root fstest.MapFS
		want int64
	}{
		"no control groups": {fstest.MapFS{}, mostDirtyLimit},
		"no limit":          {fstest.MapFS{"proc/self/cgroup": file("0::/a\n"), "sys/fs/cgroup/a/memory.max": file("max\n")}, mostDirtyLimit},
		"version 2": {fstest.MapFS{"proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/memory.max": file("max\n"),
			"sys/fs/cgroup/a/memory.max": file("104857600\n")}, 25 << 20},
		"version 1": {fstest.MapFS{"proc/self/cgroup": file("5:cpu:/\n4:hugetlb,memory:/a\n0::/\n"),
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": file("104857600\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n")}, 25 << 20},
		"a container": {fstest.MapFS{"proc/self/cgroup": file("4:memory:/docker/123\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("104857600\n")}, 25 << 20},
		"tiny":    {fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("0\n")}, leastDirtyLimit},
		"garbage": {fstest.MapFS{"proc/self/cgroup": file("x\n0::/\n::\n"), "sys/fs/cgroup/memory.max": file("")}, mostDirtyLimit},
	}
	for name, test := range tests {
		if got := defaultDirtyLimit(test.root); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

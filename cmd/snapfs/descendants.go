package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a process and its parent.
type process struct{ pid, parent int }

// killLimit bounds the hunt for descendants that come as fast as they go, or do not go because a disk hangs.
const killLimit = 10 * time.Second

// killDescendants kills all processes below this one. Orphans among them come to this process, see PR_SET_CHILD_SUBREAPER.
func killDescendants() {
	for start := time.Now(); time.Since(start) < killLimit; time.Sleep(5 * time.Millisecond) {
		left := descendants()
		if len(left) == 0 {
			return
		}
		for _, p := range left {
			p.kill()
		}
	}
}

// kill kills a process if it is still who it was: its number may have been given to another since.
func (p process) kill() {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if parentOf(p.pid) == p.parent {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // what may not be killed is tried again, for a while
	}
}

// descendants returns the processes below this one that are not dead already.
func descendants() (all []process) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	below := map[int][]process{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if parent := parentOf(pid); parent != 0 {
			below[parent] = append(below[parent], process{pid, parent})
		}
	}
	all = below[os.Getpid()]
	for i := 0; i < len(all); i++ {
		all = append(all, below[all[i].pid]...)
	}
	return all
}

// parentOf returns the parent of a living process, 0 if there is none or it cannot be found. The line of /proc/PID/stat is: pid (name)
// state parent ..., where the name may hold anything.
func parentOf(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	line := string(text)
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 2 || fields[0] == "Z" || fields[0] == "X" {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

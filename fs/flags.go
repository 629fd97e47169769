package fs

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// flags are those of the mount that are for us to obey, not for the kernel. They come from mount(2) and change by `mount -o
// remount`, which tells only the mount table.
type flags struct {
	set atomic.Uint32
	id  atomic.Uint64 // of the mount; 0 until follow
}

// What the flags ask for.
const (
	readOnly     = 1 << iota // ro
	keepAtime                // noatime, or ro
	keepDirAtime             // nodiratime
	strictAtime              // strictatime: every time, not as relatime says
	syncNames                // dirsync: a change of a directory is durable when it returns
	syncAll                  // sync: and every other change of an inode
)

// mountTable is readable all the time; that it has changed is an exceptional condition (proc(5)).
const mountTable = "/proc/self/mountinfo"

// follow reads the flags of the mount at point, and keeps them up to date until the mount is gone.
func (f *flags) follow(point string) error {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, point, 0, unix.STATX_MNT_ID, &st); err != nil {
		return fmt.Errorf("flags of %s: %w", point, err)
	}
	table, err := unix.Open(mountTable, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", mountTable, err)
	}
	f.id.Store(st.Mnt_id)
	f.read()
	go func() {
		defer unix.Close(table)
		for f.read() {
			change := []unix.PollFd{{Fd: int32(table), Events: unix.POLLPRI}}
			if err := retryEINTR(func() error { _, err := unix.Poll(change, -1); return err }); err != nil {
				return // the flags stay as they are
			}
		}
	}()
	return nil
}

// read takes the flags from the mount table, and tells whether the mount is in there.
func (f *flags) read() bool {
	id := strconv.FormatUint(f.id.Load(), 10)
	table, err := os.ReadFile(mountTable)
	if err != nil {
		return true
	}
	for line := range strings.Lines(string(table)) {
		if number, _, _ := strings.Cut(line, " "); number == id {
			f.set.Store(flagsOf(line))
			return true
		}
	}
	return false
}

// flagsOf reads a line of the mount table, see proc(5): the flags of the mount are the sixth word, those of the file system
// the last.
//
//	36 35 98:0 /root /mount/point rw,noatime shared:1 - type source rw,sync
func flagsOf(line string) (set uint32) {
	words := strings.Fields(line)
	if len(words) < 6 {
		return 0
	}
	has := strings.Split(words[5]+","+words[len(words)-1], ",")
	for _, flag := range [...]struct {
		word string
		set  uint32
	}{
		{"ro", readOnly | keepAtime}, {"noatime", keepAtime}, {"nodiratime", keepDirAtime},
		{"dirsync", syncNames}, {"sync", syncNames | syncAll},
	} {
		if slices.Contains(has, flag.word) {
			set |= flag.set
		}
	}
	if !slices.Contains(has, "relatime") {
		set |= strictAtime
	}
	return set
}

func (f *flags) has(set uint32) bool { return f.set.Load()&set != 0 }

// readOnly tells whether nothing may change at all: the mount began read-only and still is. (One that becomes so later is for the
// kernel to see to; snapshots can be taken by command.)
func (m *Mount) readOnly() bool {
	if !m.opt.ReadOnly || !m.flags.has(readOnly) {
		return false
	}
	m.flags.read() // the kernel lets changes pass as soon as it is remounted
	return m.flags.has(readOnly)
}

// settled ends a change of the namespace: err, or if there is none and the mount has one of the flags that ask for it, when the
// change is durable.
func (f *face) settled(err error, set uint32) error {
	if err != nil || !f.m.flags.has(set) {
		return err
	}
	return f.live.Sync()
}

// Flags are those of mount(2), MS_NOEXEC and so on, but for those that other options stand for: MS_RDONLY, MS_NODEV, MS_NOSUID. Of
// users other than root fusermount3 takes only some.
type Flags uintptr

// words returns the flags as options for fusermount3, those that it knows.
func (f Flags) words() (words []string) {
	for _, w := range [...]struct {
		flag Flags
		word string
	}{
		{unix.MS_RDONLY, "ro"}, {unix.MS_NOEXEC, "noexec"}, {unix.MS_NOATIME, "noatime"},
		{unix.MS_SYNCHRONOUS, "sync"}, {unix.MS_DIRSYNC, "dirsync"},
	} {
		if f&w.flag != 0 {
			words = append(words, w.word)
		}
	}
	return words
}

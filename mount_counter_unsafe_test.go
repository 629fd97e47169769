package snapfs_test

import (
	"bufio"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A mapping of the counter role: one counter that all processes add to, at the start of the first page, and one page for
// each process, at the start of which it keeps how often it has added.
const (
	counterPages = 8
	counterBytes = counterPages * 4096
)

// countInMapping maps a file and follows the lines on stdin: "SLOT N" adds 1 to the common counter and then to the
// process's own one, N times, and says so.
func countInMapping(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(fd, 0, counterBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if err := unix.Close(fd); err != nil { // the mapping stays
		return err
	}
	counter := func(page int) *atomic.Uint64 {
		return (*atomic.Uint64)(unsafe.Pointer(&mem[page*4096]))
	}
	script := bufio.NewScanner(os.Stdin)
	for script.Scan() {
		var slot, n int
		if _, err := fmt.Sscan(script.Text(), &slot, &n); err != nil {
			return err
		}
		for range n {
			counter(0).Add(1)
			counter(slot).Add(1)
		}
		fmt.Println("added", counter(slot).Load())
	}
	return unix.Munmap(mem)
}

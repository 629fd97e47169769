package main

import (
	"runtime"
	"sync"
)

// threads is how many threads a daemon makes at its start: more than an ordinary load needs at once.
const threads = 32

// reserveThreads makes n threads, which the runtime keeps. It ends a process that needs one and cannot get it (RLIMIT_NPROC, the pids
// control group): better now, when nothing is mounted yet, than when the user's other processes have used the limit up. A writer, for
// whom the same limit holds, is not needed: the plan of a capture also runs without.
func reserveThreads(n int) {
	var made sync.WaitGroup
	made.Add(n)
	release := make(chan struct{})
	for range n {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			<-release
		}()
	}
	made.Wait()
	close(release)
}

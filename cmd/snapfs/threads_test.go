package main

import (
	"os"
	"testing"
)

func TestReserveThreads(t *testing.T) {
	reserveThreads(threads)
	made, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	if len(made) < threads {
		t.Errorf("%d threads, want %d", len(made), threads)
	}
}

package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that exec passes on to its command.
var passedOn = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2}

// passOn returns the signals that this process gets for its command.
func passOn() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	if heed := heeded(append([]os.Signal(nil), passedOn...)...); len(heed) > 0 {
		signal.Notify(signals, heed...)
	}
	return signals
}

// fromTerminal reports whether a signal was probably made by a key: then the command, which is in our process group, has it
// already. To have it twice is not the same: some programs stop gently at the first INT and at once at the second.
func fromTerminal(sig os.Signal) bool {
	if sig != unix.SIGINT && sig != unix.SIGQUIT {
		return false
	}
	tty, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

package control

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/snapfs/snapfs/snapshot"
)

// Code is the exit code of a command; scripts rely on the numbers.
type Code int

// The exit codes. They also travel over the control socket, so that a command ends with what the daemon found.
const (
	Done        Code = 0   // did what it was asked to do
	Failed      Code = 1   // any other failure
	Usage       Code = 2   // the command line is wrong
	NoMount     Code = 3   // not a snapfs mount, or the daemon does not answer
	Unknown     Code = 4   // no such snapshot or path
	Exists      Code = 5   // the name exists
	Refused     Code = 6   // held, busy or refused
	Damaged     Code = 7   // the store is damaged
	Interrupted Code = 130 // ended by SIGINT or SIGTERM
)

// Error is a failure with the code it ends a command with. It is also how errors travel over the socket.
type Error struct {
	Text string `json:"error"`
	Code Code   `json:"code"`
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Text: fmt.Sprintf(format, args...), Code: code}
}

// CodeOf returns the exit code for err; nil is Done.
func CodeOf(err error) Code {
	var coded *Error
	switch {
	case err == nil:
		return Done
	case errors.As(err, &coded):
		return coded.Code
	case errors.Is(err, snapshot.ErrDamaged):
		return Damaged
	case errors.Is(err, snapshot.ErrUnknown):
		return Unknown
	case errors.Is(err, snapshot.ErrExists):
		return Exists
	case errors.Is(err, snapshot.ErrName):
		return Usage
	case errors.Is(err, snapshot.ErrHeld), errors.Is(err, snapshot.ErrClosing), errors.Is(err, syscall.EBUSY):
		return Refused
	case errors.Is(err, context.Canceled):
		return Interrupted
	}
	return Failed
}

// AsError returns err as an Error with its code.
func AsError(err error) *Error {
	var coded *Error
	if errors.As(err, &coded) && coded.Error() == err.Error() {
		return coded
	}
	return &Error{Text: err.Error(), Code: CodeOf(err)}
}

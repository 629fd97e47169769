// Command snapfs serves a directory whose whole tree can be frozen in an instant, and takes, lists and deletes the
// frozen trees. See `snapfs --help`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/snapfs/snapfs/fs/control"
)

func main() {
	os.Exit(int(run(os.Args[1:])))
}

// run executes one command line and returns its exit code. An error is one line on stderr, or one JSON object.
func run(args []string) control.Code {
	ctx := context.Background()
	if heed := heeded(os.Interrupt, syscall.SIGTERM); len(heed) > 0 { // none would mean all
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, heed...)
		defer stop()
	}
	root := newRoot()
	root.SetArgs(mountForm(root, args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return control.Done
	}
	var status exitStatus
	if errors.As(err, &status) {
		return control.Code(status)
	}
	if ctx.Err() != nil && control.CodeOf(err) == control.Interrupted {
		err = control.Errorf(control.Interrupted, "interrupted")
	}
	report(err, wantsJSON(args))
	return control.CodeOf(err)
}

// heeded returns those of the signals that whoever started this program has not told it to ignore, as nohup does.
func heeded(signals ...os.Signal) []os.Signal {
	return slices.DeleteFunc(signals, signal.Ignored)
}

func report(err error, asJSON bool) {
	e := control.Errorf(control.CodeOf(err), "%s", oneLine(err.Error()))
	if asJSON {
		json.NewEncoder(os.Stderr).Encode(e)
		return
	}
	fmt.Fprintf(os.Stderr, "snapfs: %s\n", printable(e.Text))
}

// oneLine joins the lines of a text; errors that were joined have several.
func oneLine(text string) string {
	var parts []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

// wantsJSON looks for --json itself: the command line may be what is wrong.
func wantsJSON(args []string) bool {
	for _, arg := range args {
		switch arg {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}

package main

import (
	"strings"
	"testing"
	"unicode"

	"github.com/snapfs/snapfs/fs/control"
)

// FuzzOptions: any -o list gives options within their bounds, or a usage error.
func FuzzOptions(f *testing.F) {
	for _, list := range []string{"rw,nofail,x-systemd.automount", "snapdir=visible,writeback=on", "dirty_limit=64M,flush_interval=250ms,ro",
		"dirty_limit=9223372036854775807,", "flush_interval=-1s", "stop_writes_on_error,noacl,noexec", "=,,=", "dirty_limit=8E", "comment=a,b"} {
		f.Add(list, true)
	}
	f.Fuzz(func(t *testing.T, list string, root bool) {
		opt, err := parseOptions([]string{list}, root)
		if err != nil {
			if control.CodeOf(err) != control.Usage || opt != (mountOptions{}) {
				t.Errorf("%q: %v, code %d, %+v", list, err, control.CodeOf(err), opt)
			}
			return
		}
		if opt.dirtyLimit < 0 || opt.dirtyLimit != 0 && opt.dirtyLimit < leastDirtyLimit || opt.flushInterval < 0 || root && !opt.allowOther {
			t.Errorf("%q gives %+v", list, opt)
		}
		if again, err := parseOptions(strings.Split(list, ","), root); err != nil || again != opt {
			t.Errorf("%q is %+v, but %+v in parts, %v", list, opt, again, err)
		}
	})
}

// FuzzPrintable: what goes to a terminal has no control characters, and nothing else is changed.
func FuzzPrintable(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b[31mred\x07\n\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		out := printable(s)
		clean := true
		for _, r := range s {
			clean = clean && unicode.IsPrint(r) && r != unicode.ReplacementChar
		}
		if clean && out != s && !strings.ContainsAny(s, `"\`) {
			t.Errorf("%q becomes %q", s, out)
		}
		for _, r := range out {
			if unicode.IsControl(r) {
				t.Errorf("%q is printed as %q", s, out)
			}
		}
	})
}

// FuzzLocks: lines of /proc/locks.
func FuzzLocks(f *testing.F) {
	f.Add("1: FLOCK  ADVISORY  WRITE 4614 fe:00:1234 0 EOF\n", uint64(1234))
	f.Add("1: -> POSIX ADVISORY READ -1 fe:00:x 0 0\n2:\n", uint64(0))
	f.Fuzz(func(t *testing.T, text string, ino uint64) {
		if pid, ok := parseLocks(strings.NewReader(text), 0xfe, 0, ino); ok && pid <= 0 {
			t.Errorf("%q: locked by process %d", text, pid)
		}
	})
}

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/snapfs/snapfs/fs/control"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":              "",
		"before":        "before",
		"Jürgen's 日記":   "Jürgen's 日記",
		"a\nb\tc":       `a\nb\tc`,
		"\x1b[31mred":   `\x1b[31mred`,
		"\xff\xfe":      `\xff\xfe`,
		"\u202egnp.exe": `\u202egnp.exe`,
		"\x7f":          `\x7f`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 256 << 20: "256 MiB", 99 << 20: "99.0 MiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := bytesText(in); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]int64{
		"0": 0, "4096": 4096, "64k": 64 << 10, "256M": 256 << 20, "1G": 1 << 30, "1GiB": 1 << 30, "2gb": 2 << 30, "7E": 7 << 60,
	} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "M", "B", "x", "-1", "1.5G", "8E", "9999999999999999999", "1 G", "1MM"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestOptions(t *testing.T) {
	opt, err := parseOptions([]string{"rw,nofail,x-systemd.automount", "snapdir=visible,writeback=on", "dirty_limit=64M,flush_interval=250ms,ro"}, true)
	want := mountOptions{readOnly: true, allowOther: true, visible: true, writeback: true, dirtyLimit: 64 << 20, flushInterval: 250 * time.Millisecond}
	if err != nil || opt != want {
		t.Errorf("got %+v, %v, want %+v", opt, err, want)
	}
	if opt, err := parseOptions([]string{"ro,snapdir=visible,rw,snapdir=hidden"}, false); err != nil || opt != (mountOptions{}) {
		t.Errorf("later options do not override earlier ones: %+v, %v", opt, err)
	}
	if opt, err := parseOptions([]string{"stop_writes_on_error"}, false); err != nil || !opt.stopOnError {
		t.Errorf("stop_writes_on_error: %+v, %v", opt, err)
	}
	for _, bad := range []string{"nonsense", "snapdir", "snapdir=both", "writeback=yes", "dirty_limit=", "dirty_limit=4k", "flush_interval=1",
		"flush_interval=0s", "save=60:100", "keep=last", "stop_writes_on_error=1", "stop_writes_on_error,writeback=on", "ro=1"} {
		if _, err := parseOptions([]string{"rw," + bad}, false); control.CodeOf(err) != control.Usage {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestMountForm(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ args, want string }{
		{dir + " /mnt -o rw", "mount " + dir + " /mnt -o rw"},
		{"./store mnt", "mount ./store mnt"},
		{"store mnt -o rw,nofail", "mount store mnt -o rw,nofail"},
		{"snaphsot mnt", "snaphsot mnt"}, // mistyped: must not become a store
		{"mount a b", "mount a b"},
		{"list a -o", "list a -o"},
		{"help mount", "help mount"},
		{"completion bash", "completion bash"},
		{"-f ./store mnt", "-f ./store mnt"},
		{"", ""},
	} {
		if got := strings.Join(mountForm(newRoot(), strings.Fields(c.args)), " "); got != c.want {
			t.Errorf("%q became %q, want %q", c.args, got, c.want)
		}
	}
}

func TestParseLocks(t *testing.T) {
	const locks = `1: POSIX  ADVISORY  WRITE 7 fe:00:5678 0 EOF
1: -> FLOCK  ADVISORY  WRITE 8 fe:00:5678 0 EOF
2: FLOCK  ADVISORY  WRITE 9 fe:00:15678 0 EOF
3: FLOCK  ADVISORY  WRITE 10 fe:01:5678 0 EOF
4: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
`
	if pid, ok := parseLocks(strings.NewReader(locks), 0xfe, 0, 5678); !ok || pid != 1234 {
		t.Errorf("the holder is %d, %v", pid, ok)
	}
	if pid, ok := parseLocks(strings.NewReader(locks), 0xfe, 0, 1); ok {
		t.Errorf("nobody holds it, not %d", pid)
	}
}

func TestProgressLine(t *testing.T) {
	for p, want := range map[control.Progress]string{
		{PagesWritten: 32768, PagesTotal: 65536, Seconds: 0.42}: "writing [###############---------------] 128 MiB of 256 MiB, 0.4 s",
		{PagesWritten: 3, PagesTotal: 2}:                        "writing [##############################] 12.0 KiB of 8.0 KiB, 0.0 s",
		{PagesTotal: 2, Seconds: 1.25}:                          "saving, then writing 8.0 KiB, 1.2 s",
	} {
		if got := progressLine(p); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	if got, want := oneLine("first\n\n second \nthird\n"), "first; second; third"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRoff(t *testing.T) {
	if got, want := roff(".x\n'y\n--json \\"), "\\&.x\n\\&'y\n\\-\\-json \\e"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestHelp: every command that users see says what it does and shows an example of itself.
func TestHelp(t *testing.T) {
	for _, cmd := range newRoot().Commands() {
		if !cmd.Hidden && (cmd.Short == "" || !strings.Contains(cmd.Example, "snapfs "+cmd.Name())) {
			t.Errorf("%s: no example", cmd.Name())
		}
	}
}

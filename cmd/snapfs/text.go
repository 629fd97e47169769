package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// printable makes a name or a description safe to show on a terminal: what is no printable character is escaped, as is the
// escape character itself. Output for programs (--json, the name that snapshot prints) is not changed.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[n:]
	}
	return b.String()
}

// bytesText writes a size for people: 0 B, 1023 B, 1.0 KiB, 256 MiB.
func bytesText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(sizeUnits) {
		value, unit = value/1024, unit+1
	}
	if value >= 99.95 {
		return fmt.Sprintf("%.0f %ciB", value, sizeUnits[unit-1])
	}
	return fmt.Sprintf("%.1f %ciB", value, sizeUnits[unit-1])
}

const sizeUnits = "KMGTPE"

// parseSize reads a size such as 4096, 64k, 256M or 1GiB: units are powers of 1024.
func parseSize(s string) (int64, error) {
	text := strings.ToUpper(s)
	text = strings.TrimSuffix(strings.TrimSuffix(text, "B"), "I")
	shift := 0
	if last := len(text) - 1; last >= 0 {
		if unit := strings.IndexByte(sizeUnits, text[last]); unit >= 0 {
			shift, text = 10*(unit+1), text[:last]
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > (1<<63-1)>>shift {
		return 0, fmt.Errorf("%q is no size; examples: 64M, 1G", s)
	}
	return n << shift, nil
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// output gives write a buffered stdout and reports what could not be written: a full disk must not look like success.
func output(cmd *cobra.Command, write func(w io.Writer) error) error {
	out := bufio.NewWriter(cmd.OutOrStdout())
	if err := write(out); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

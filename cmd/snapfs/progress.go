package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/fs/control"
)

// progressBar shows on a terminal how far the writer of a snapshot is, in one line that it draws again and again.
type progressBar struct {
	out   io.Writer
	shown bool
}

func (b *progressBar) show(p control.Progress) {
	fmt.Fprintf(b.out, "\r%s\x1b[K", progressLine(p))
	b.shown = true
}

// clear removes the line; what the command prints comes in its place.
func (b *progressBar) clear() {
	if b.shown {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}

// progressLine draws: writing [#####-----] 128 MiB of 256 MiB, 0.4 s
//
// The writer begins when the pages that it overwrites are saved.
func progressLine(p control.Progress) string {
	const width = 30
	if p.PagesWritten == 0 || p.PagesTotal == 0 {
		return fmt.Sprintf("saving, then writing %s, %.1f s", bytesText(p.PagesTotal*pageSize), p.Seconds)
	}
	done := int(min(p.PagesWritten, p.PagesTotal) * width / p.PagesTotal)
	return fmt.Sprintf("writing [%s%s] %s of %s, %.1f s", strings.Repeat("#", done), strings.Repeat("-", width-done),
		bytesText(p.PagesWritten*pageSize), bytesText(p.PagesTotal*pageSize), p.Seconds)
}

const pageSize = cow.PageSize

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/snapfs/snapfs/fs/control"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIRECTORY",
		Short:   "Write the manual pages",
		Long:    `Write the manual pages, one for each command, into DIRECTORY.`,
		Example: `  snapfs man /usr/local/share/man/man1`,
		Args:    takes(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := os.Stat(args[0])
			if err != nil {
				return control.Errorf(control.Unknown, "%v", err)
			}
			if !info.IsDir() {
				return control.Errorf(control.Unknown, "%s is not a directory", args[0])
			}
			return writePages(cmd.Root(), args[0])
		},
	}
}

// writePages writes the page of cmd and those of its commands.
func writePages(cmd *cobra.Command, dir string) error {
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			if err := writePages(sub, dir); err != nil {
				return err
			}
		}
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	var page strings.Builder
	writePage(&page, cmd, name)
	return os.WriteFile(filepath.Join(dir, name+".1"), []byte(page.String()), 0o644)
}

// writePage writes one page in man(7)'s language.
func writePage(w io.Writer, cmd *cobra.Command, name string) {
	fmt.Fprintf(w, ".TH %s 1 \"\" \"snapfs %s\"\n", strings.ToUpper(roff(name)), roff(version()))
	fmt.Fprintf(w, ".SH NAME\n%s \\- %s\n", roff(name), roff(cmd.Short))
	fmt.Fprintf(w, ".SH SYNOPSIS\n%s\n", roff(cmd.UseLine()))
	if cmd.Long != "" {
		fmt.Fprintf(w, ".SH DESCRIPTION\n.nf\n%s\n.fi\n", roff(cmd.Long))
	}
	if cmd.LocalFlags().HasAvailableFlags() {
		fmt.Fprintf(w, ".SH OPTIONS\n")
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			names := "--" + f.Name
			if f.Shorthand != "" {
				names = "-" + f.Shorthand + ", " + names
			}
			fmt.Fprintf(w, ".TP\n\\fB%s\\fR\n%s\n", roff(names), roff(f.Usage))
		})
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, ".SH COMMANDS\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(w, ".TP\n\\fB%s\\fR\n%s\n", roff(sub.UseLine()), roff(sub.Short))
			}
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(cmd.Example))
	}
}

// roff escapes what has a meaning to the formatter: backslashes, dashes, and a dot or quote that begins a line.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

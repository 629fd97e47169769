package snapfs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The rules that the whole project is held to; a tool that breaks one gets file and line.

const (
	module       = "github.com/snapfs/snapfs/"
	maxFuncLines = 70
	maxFileLines = 500
)

// layers are the rooms from the bottom up: a package may import its own room and those below it, never one above.
var layers = []string{"cow", "snapshot", "fs", "cmd"}

// onlyIn says which directories may import a package (and what is below it) outside of tests.
var onlyIn = map[string][]string{
	"github.com/cockroachdb/pebble": {"snapshot/meta"},
	"github.com/hanwen/go-fuse":     {"fs"},
	"github.com/spf13/cobra":        {"cmd/snapfs"},
	"log":                           {"fs", "cmd/snapfs"}, // below, an error is returned or given to a Report function
	"log/slog":                      {"fs", "cmd/snapfs"},
}

// source is one parsed file of the project.
type source struct {
	path string // relative to the top, with slashes
	text string
	ast  *ast.File
	fset *token.FileSet
}

func (s source) test() bool           { return strings.HasSuffix(s.path, "_test.go") }
func (s source) dir() string          { return filepath.ToSlash(filepath.Dir(s.path)) }
func (s source) at(n ast.Node) string { return s.fset.Position(n.Pos()).String() }
func (s source) lines(from, to token.Pos) int {
	return s.fset.Position(to).Line - s.fset.Position(from).Line + 1
}

// sources parses every Go file of the project.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s := source{path: filepath.ToSlash(path), text: string(text), fset: token.NewFileSet()}
		s.ast, err = parser.ParseFile(s.fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d Go files found: the walk is broken", len(all))
	}
	return all
}

func TestImportLaw(t *testing.T) {
	for _, s := range sources(t) {
		for _, spec := range s.ast.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if why := forbidden(s, path); why != "" {
				t.Errorf("%s: imports %s: %s", s.at(spec), path, why)
			}
		}
	}
}

// forbidden says why a file may not import path, "" if it may.
func forbidden(s source, path string) string {
	if rest, ok := strings.CutPrefix(path, module); ok && layerOf(s.path) >= 0 && layerOf(rest) > layerOf(s.path) {
		return "the way is cmd/snapfs -> fs -> snapshot -> cow, never back"
	}
	if s.test() {
		return ""
	}
	if path == "unsafe" && !strings.HasSuffix(s.path, "_unsafe.go") {
		return "unsafe code belongs into *_unsafe.go files"
	}
	for name, dirs := range onlyIn {
		if below(path, name) && !belowAny(s.dir(), dirs) {
			return fmt.Sprintf("only %s may", strings.Join(dirs, " and "))
		}
	}
	return ""
}

// layerOf returns the index in layers of the room that a path is in, -1 for the top level.
func layerOf(path string) int {
	for i, layer := range layers {
		if below(path, layer) {
			return i
		}
	}
	return -1
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func belowAny(path string, dirs []string) bool {
	for _, dir := range dirs {
		if below(path, dir) {
			return true
		}
	}
	return false
}

func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		if n := strings.Count(s.text, "\n"); n > maxFileLines {
			t.Errorf("%s: %d lines, at most %d", s.path, n, maxFileLines)
		}
		for _, decl := range s.ast.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := s.lines(f.Pos(), f.End()); n > maxFuncLines {
				t.Errorf("%s: %s has %d lines, at most %d", s.at(f), f.Name.Name, n, maxFuncLines)
			}
		}
	}
}

// TestDocs wants a comment on every exported name of a package that others import.
func TestDocs(t *testing.T) {
	documented := map[string]bool{} // packages
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		documented[s.dir()] = documented[s.dir()] || s.ast.Doc != nil
		if s.ast.Name.Name == "main" {
			continue
		}
		for _, decl := range s.ast.Decls {
			for _, name := range undocumented(decl) {
				t.Errorf("%s: %s has no comment", s.at(decl), name)
			}
		}
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: the package has no comment", dir)
		}
	}
}

// undocumented returns the exported names without a comment. A group of constants or variables may have one for all.
func undocumented(decl ast.Decl) (names []string) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv)) && !obvious[d.Name.Name] {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch v := spec.(type) {
			case *ast.TypeSpec:
				if v.Name.IsExported() && d.Doc == nil && v.Doc == nil {
					names = append(names, v.Name.Name)
				}
			case *ast.ValueSpec:
				for _, name := range v.Names {
					if name.IsExported() && d.Doc == nil && v.Doc == nil && v.Comment == nil {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// obvious are methods whose meaning is that of an interface of the standard library.
var obvious = map[string]bool{"Error": true, "Unwrap": true, "Is": true, "String": true, "Close": true, "Len": true, "Less": true, "Swap": true}

func exportedReceiver(recv *ast.FieldList) bool {
	kind := recv.List[0].Type
	if star, ok := kind.(*ast.StarExpr); ok {
		kind = star.X
	}
	if index, ok := kind.(*ast.IndexExpr); ok {
		kind = index.X
	}
	name, ok := kind.(*ast.Ident)
	return ok && name.IsExported()
}

// TestWords looks for work that was left undone, names that say nothing, and paths of somebody's machine, in every text of the project.
func TestWords(t *testing.T) {
	unwanted := []string{"TO" + "DO", "FIX" + "ME", "not " + "implemented", "un" + "implemented",
		"/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/"}
	err := filepath.WalkDir(".", func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", "testdata":
				return filepath.SkipDir
			case "util", "common", "helpers":
				t.Errorf("%s: name a package after what it provides", path)
			}
			return nil
		}
		if path == "snapfs" {
			return nil // what go build ./cmd/snapfs leaves; git ignores it
		}
		switch filepath.Ext(path) {
		case ".go", ".md", ".sh", "":
		default:
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, word := range unwanted {
				if strings.Contains(line, word) {
					t.Errorf("%s:%d: %q does not belong here", path, i+1, word)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

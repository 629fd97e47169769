package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goldenFormat = "testdata/format"

// TestFormatGolden pins the file that says what a store is.
func TestFormatGolden(t *testing.T) {
	want, err := os.ReadFile(goldenFormat)
	if err != nil {
		t.Fatal(err)
	}
	f := storeFormat{version: 1, pageSize: 4096, uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8"}
	if got := string(f.encode()); got != string(want) {
		t.Errorf("written as\n%swant\n%s", got, want)
	}
	if got, err := decodeFormat(want); got != f || err != nil {
		t.Errorf("read as %+v, %v", got, err)
	}
	dir := t.TempDir()
	if err := writeFormat(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readFormat(dir)
	if err != nil || got.version != formatVersion || len(got.uuid) != len(f.uuid) {
		t.Errorf("a new store: %+v, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, formatFile+".new")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the temporary file is left:", err)
	}
}

// TestFormatRefuses: each kind of bad file has its error.
func TestFormatRefuses(t *testing.T) {
	b, err := os.ReadFile(goldenFormat)
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for _, x := range []struct {
		what, text string
		want       error
	}{
		{"empty", "", errNoStore},
		{"another file", "hello\n", errNoStore},
		{"title only", formatTitle + "\n", ErrDamaged},
		{"newer", strings.Replace(good, "version 1", "version 2", 1), ErrNewer},
		{"version 0", string(storeFormat{pageSize: 4096, uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8"}.encode()), ErrDamaged},
		{"changed uuid", strings.Replace(good, "6ba7", "6ba8", 1), ErrDamaged},
		{"changed page size", strings.Replace(good, "4096", "8192", 1), ErrDamaged},
		{"no page size", strings.Replace(good, "page_size", "page", 1), ErrDamaged},
		{"cut", good[:len(good)-3], ErrDamaged},
		{"no last newline", good[:len(good)-1], ErrDamaged},
		{"longer", good + "x\n", ErrDamaged},
		{"very long", good + strings.Repeat("x", 2*mostFormat), ErrDamaged},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, formatFile), []byte(x.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readFormat(dir); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", x.what, err, x.want)
		}
	}
}

// FuzzFormat: what is accepted is, byte for byte, what would have been written.
func FuzzFormat(f *testing.F) {
	b, err := os.ReadFile(goldenFormat)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(formatTitle + "\nversion -1\npage_size 4096\nuuid \ncrc32c 00000000\n"))
	f.Add([]byte(formatTitle + "\nversion 99999999999999999999\n"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeFormat(data)
		if err == nil && string(got.encode()) != string(data) {
			t.Errorf("%q is accepted as %+v", data, got)
		}
		if err != nil && !errors.Is(err, errNoStore) && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
			t.Errorf("%q: %v", data, err)
		}
	})
}

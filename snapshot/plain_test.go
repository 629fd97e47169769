package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStoreFromAnEnemy puts in place of every file and directory of a store a symbolic link that leads out of it, and a fifo. The store is
// refused, or the file with EIO: in no case is anything outside touched, and nothing hangs.
func TestStoreFromAnEnemy(t *testing.T) {
	source := filepath.Join(scratch(t), "store")
	const name = "victim"
	makeSmallStore(t, source, name)
	var parts []string
	err := filepath.WalkDir(source, func(path string, _ fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(source, path); rel != "." {
			parts = append(parts, rel)
		}
		return err
	})
	if err != nil || len(parts) < 10 {
		t.Fatalf("parts of a store: %v, %v", parts, err)
	}
	kinds := map[string]func(outside, path string) error{
		"link": func(outside, path string) error { return os.Symlink(outside, path) },
		"fifo": func(_, path string) error { return unix.Mkfifo(path, 0o600) },
	}
	for _, part := range parts {
		for kind, put := range kinds {
			dir := scratch(t)
			store, outside := filepath.Join(dir, "store"), filepath.Join(dir, "outside")
			if err := errors.Join(os.CopyFS(store, os.DirFS(source)), os.Rename(filepath.Join(store, part), outside), put(outside, filepath.Join(store, part))); err != nil {
				t.Fatal(err)
			}
			before := shape(t, outside)
			done := make(chan bool)
			go func() {
				defer close(done)
				useSmallStore(t, store, name, part+" is a "+kind)
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatalf("%s is a %s: hangs", part, kind)
			}
			if after := shape(t, outside); after != before {
				t.Errorf("%s is a %s: outside the store was\n%sand is\n%s", part, kind, before, after)
			}
		}
	}
}

// makeSmallStore makes a store with one file of two pages, one of them overwritten since a snapshot.
func makeSmallStore(t *testing.T, dir, name string) {
	t.Helper()
	s, err := Open(dir, Options{Create: true, quiet: true})
	if err != nil {
		t.Fatal(err)
	}
	attr, err := s.Live().Create(Root, name, Spec{Mode: unix.S_IFREG | 0o600})
	if err == nil {
		err = write(s, attr.Ino, "frozen")
	}
	if err == nil {
		_, err = s.Snapshot(Request{Name: "s"})
	}
	if err == nil {
		err = write(s, attr.Ino, "live")
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
}

func write(s *Store, ino Ino, text string) error {
	h, err := s.Live().OpenFile(ino)
	if err != nil {
		return err
	}
	_, err = h.WriteAt([]byte(strings.Repeat(text, 2000)), 0, false)
	return errors.Join(err, h.Sync(false), h.Close())
}

// useSmallStore opens the store and overwrites the file, if it can.
func useSmallStore(t *testing.T, dir, name, what string) {
	s, err := Open(dir, Options{Create: true, quiet: true})
	if err != nil {
		return
	}
	attr, err := s.Live().Lookup(Root, name)
	if err == nil {
		err = write(s, attr.Ino, "enemy")
	}
	if err != nil && !errors.Is(err, unix.EIO) {
		t.Errorf("%s: %v", what, err)
	}
	_ = s.Close()
}

// shape lists what is at path: types, lengths and times.
func shape(t *testing.T, path string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			out.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return out.String()
}

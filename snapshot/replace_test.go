package snapshot

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/snapfs/snapfs/cow"
	"github.com/snapfs/snapfs/snapshot/powercut"
)

// TestReplacedBytesComeFirst: before the log of the namespace has a rename over another file, or what was written after a truncation to
// nothing, the new bytes are synced, and their file's name is; nobody calls fsync.
func TestReplacedBytesComeFirst(t *testing.T) {
	for _, way := range []string{"rename", "truncate"} {
		t.Run(way, func(t *testing.T) {
			s, h := newFile(t)
			defer s.close(t)
			mustWrite(t, h, "old", 0)
			agree(t, "fsync", h.Sync(false), nil)
			if way == "rename" {
				a, err := s.live.Create(Root, "new", Spec{Mode: syscall.S_IFREG | 0o600})
				agree(t, "create", err, nil)
				n, err := s.live.OpenFile(a.Ino)
				agree(t, "open", err, nil)
				mustWrite(t, n, "newer bytes", 0)
				agree(t, "close", n.Close(), nil)
				agree(t, "rename", failure(s.live.Rename(Root, "new", Root, "f", 0)), nil)
			} else {
				_, err := s.live.SetAttr(h.Ino(), Change{Set: SetSize})
				agree(t, "truncate", err, nil)
				mustWrite(t, h, "newer bytes", 0)
			}
			var id cow.ID
			synced := false
			s.db.BeforeLog(func() {
				s.pool.SyncOrdered()
				synced = !s.pool.Unsynced(id)
			})
			a, err := s.live.Lookup(Root, "f")
			agree(t, "look up", err, nil)
			n := s.live.nodes.get(a.Ino)
			id = n.rec.Content
			s.live.nodes.put(n)
			if !s.pool.Unsynced(id) {
				t.Fatal("the bytes are synced before anything is: the test proves nothing")
			}
			agree(t, "sync", s.db.Sync(), nil)
			if !synced {
				t.Error("the log has been written before the bytes")
			}
			agree(t, "close", h.Close(), nil)
		})
	}
}

// TestReplaceSurvivesPowerCut replaces files, without fsync, until the power goes: each is one of its versions afterwards, whole.
func TestReplaceSurvivesPowerCut(t *testing.T) {
	if dir := os.Getenv("SNAPFS_REPLACE_STORE"); dir != "" {
		replaceLoad(dir)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount images")
	}
	for _, kind := range chosenKinds() {
		if !kind.Shutdown {
			continue
		}
		t.Run(kind.Name, func(t *testing.T) {
			disk, err := powercut.NewDisk(scratch(t), kind, false)
			agree(t, "make a disk", err, nil)
			defer func() { agree(t, "close the disk", disk.Close(), nil) }()
			for range powerCuts() {
				cutReplacing(t, filepath.Join(disk.Point, "store"), disk)
				agree(t, "unmount", disk.Unmount(), nil)
				agree(t, "mount", disk.Mount(), nil)
				verifyReplaced(t, filepath.Join(disk.Point, "store"))
			}
		})
	}
}

// cutReplacing runs the load in a process of its own and cuts the power.
func cutReplacing(t *testing.T, store string, disk *powercut.Disk) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestReplaceSurvivesPowerCut$")
	cmd.Env = append(os.Environ(), "SNAPFS_REPLACE_STORE="+store)
	out, err := cmd.StdoutPipe()
	agree(t, "pipe", err, nil)
	agree(t, "start", cmd.Start(), nil)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		_ = cmd.Wait()
		t.Fatalf("the load says %q, %v", line, err)
	}
	time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
	agree(t, "cut", disk.Cut(), nil)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// The versions of the files: a number, over and over, and as many bytes as the number says.
const replacedFiles = 8

func replacementOf(seq uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, seq), int(1+seq%9000))
}

// replaceLoad replaces files, the even ones by rename, the odd ones by truncation, until it is killed.
func replaceLoad(dir string) {
	s, err := Open(dir, Options{Create: true, FlushInterval: 30 * time.Millisecond})
	need := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	need(err)
	seq := uint64(time.Now().UnixNano())
	for k := range replacedFiles {
		if _, err := s.Live().Lookup(Root, fmt.Sprint("f", k)); err != nil {
			need(replaceOnce(s, k, "", seq+uint64(k)))
		}
	}
	need(s.pool.SyncBase())
	need(s.Live().Sync())
	fmt.Println("ready")
	for ; ; seq++ {
		k := rand.IntN(replacedFiles)
		way := []string{"rename", "truncate"}[k%2]
		if err := replaceOnce(s, k, way, seq); err != nil {
			time.Sleep(time.Hour) // the power is gone
		}
	}
}

func replaceOnce(s *Store, k int, way string, seq uint64) error {
	l, name := s.Live(), fmt.Sprint("f", k)
	into := name
	if way == "rename" {
		into = "new"
	}
	a, err := l.Lookup(Root, into)
	if err != nil {
		if a, err = l.Create(Root, into, Spec{Mode: syscall.S_IFREG | 0o600}); err != nil {
			return err
		}
	}
	h, err := l.OpenFile(a.Ino)
	if err != nil {
		return err
	}
	defer h.Close()
	if _, err := l.SetAttr(a.Ino, Change{Set: SetSize}); err != nil {
		return err
	}
	if _, err := h.WriteAt(replacementOf(seq), 0, false); err != nil {
		return err
	}
	if way == "rename" {
		return failure(l.Rename(Root, into, Root, name, 0))
	}
	return nil
}

func verifyReplaced(t *testing.T, dir string) {
	t.Helper()
	s, err := Open(dir, Options{})
	agree(t, "open", err, nil)
	defer s.Close()
	for k := range replacedFiles {
		name := fmt.Sprint("f", k)
		a, err := s.Live().Lookup(Root, name)
		agree(t, "look up "+name, err, nil)
		c, err := s.Live().Open(a.Ino)
		agree(t, "open "+name, err, nil)
		got, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
		agree(t, "read "+name, err, nil)
		agree(t, "close", c.Close(), nil)
		if len(got) == 0 && k%2 == 1 {
			continue // cut between the truncation and the first write, as anywhere
		}
		if len(got) < 8 || !bytes.Equal(got, replacementOf(binary.BigEndian.Uint64(got))) {
			t.Errorf("%s is no version: %d bytes, the first are %x, zero at the end: %d", name, len(got), got[:min(8, len(got))],
				len(got)-len(strings.TrimRight(string(got), "\x00")))
		}
	}
}

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/snapshot"
)

// deepDir makes a directory whose path does not fit into a socket address.
func deepDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30), strings.Repeat("name", 30))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startServer serves without a mount: enough for who is answered and how.
func startServer(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(nil, nil, Hello{PID: os.Getpid(), Version: "test", MountPoint: "/mnt"})
	return s
}

func TestPing(t *testing.T) {
	dir := deepDir(t)
	// What a dead daemon has left behind is replaced.
	if err := os.WriteFile(filepath.Join(dir, socketName), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, dir)
	info, err := os.Stat(filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket has mode %v", info.Mode())
	}
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if want := (Hello{PID: os.Getpid(), Version: "test", MountPoint: "/mnt"}); c.Hello() != want {
		t.Errorf("hello %+v, want %+v", c.Hello(), want)
	}
	if err := s.Close(nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, socketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestCloseBeforeServe(t *testing.T) {
	dir := t.TempDir()
	s, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), dir); CodeOf(err) != NoMount {
		t.Errorf("Dial: %v", err)
	}
}

// TestDrainDoesNotWaitForEver: not for who does not send what he has announced, nor for who does not read what he has asked for.
func TestDrainDoesNotWaitForEver(t *testing.T) {
	dir := t.TempDir()
	s, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.patience = 50 * time.Millisecond
	begun := make(chan bool, 2)
	mux := http.NewServeMux()
	mux.Handle("POST /listen", s.guard(s.counted(func(w http.ResponseWriter, r *http.Request) error {
		begun <- true
		return s.request(w, r, new(DeleteRequest))
	})))
	mux.Handle("GET /tell", s.guard(s.counted(func(w http.ResponseWriter, _ *http.Request) error {
		begun <- true
		return answerLines(w, make([]snapshot.Info, 100000))
	})))
	s.http.Handler = s.bounded(mux)
	s.Serve(nil, nil, Hello{})
	defer s.Close(nil)
	for _, request := range []string{
		"POST /listen HTTP/1.1\r\nHost: snapfs\r\nContent-Length: 100\r\n\r\n{", "GET /tell HTTP/1.1\r\nHost: snapfs\r\n\r\n",
	} {
		conn, err := net.Dial("unix", socketPath(s.dir))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		<-begun
	}
	drained := make(chan bool)
	go func() {
		s.Drain()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(20 * time.Second):
		t.Fatal("Drain waits for clients that have stopped")
	}
}

// TestDrain: from Drain on nothing new is begun, and the greeting says so.
func TestDrain(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	defer s.Close(nil)
	c, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Hello().Ending {
		t.Error("ending before Drain")
	}
	s.Drain()
	_, err = c.Snapshot(t.Context(), SnapshotRequest{Name: "late"}, nil)
	if CodeOf(err) != Refused || !strings.Contains(err.Error(), "going down") {
		t.Errorf("a snapshot after Drain: %v", err)
	}
	late, err := Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if !late.Hello().Ending {
		t.Error("not ending after Drain")
	}
}

// TestPeerCredentials lets another user connect, as if the socket's mode did not keep him out.
func TestPeerCredentials(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	dir := t.TempDir()
	s := startServer(t, dir)
	defer s.Close(nil)
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, filepath.Join(dir, socketName): 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	status := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			status <- errno.Error()
			return
		}
		status <- rawPing(filepath.Join(dir, socketName))
	}()
	if got := <-status; got != "HTTP/1.1 403" {
		t.Errorf("another user was answered %q", got)
	}
	if got := rawPing(filepath.Join(dir, socketName)); got != "HTTP/1.1 200" {
		t.Errorf("root was answered %q", got)
	}
}

// rawPing asks for a greeting with plain system calls, which stay on the calling thread.
func rawPing(path string) string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Sprintf("connect: %v", err)
	}
	if _, err := unix.Write(fd, []byte("GET /ping HTTP/1.1\r\nHost: snapfs\r\n\r\n")); err != nil {
		return err.Error()
	}
	var b [12]byte
	if _, err := unix.Read(fd, b[:]); err != nil {
		return err.Error()
	}
	return string(b[:])
}

// fakeDaemon answers at a socket as handler does.
func fakeDaemon(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	path := t.TempDir()
	dir, err := openDir(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, Hello{PID: 1}) })
	mux.HandleFunc("/", handler)
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() {
		server.Close()
		dir.Close()
	})
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestSnapshotStream(t *testing.T) {
	c := fakeDaemon(t, func(w http.ResponseWriter, r *http.Request) {
		var req SnapshotRequest
		if err := decode(r, &req); err != nil {
			t.Error(err)
		}
		out := newStream(w)
		switch req.Name {
		case "good":
			out.send(Event{Progress: &Progress{PagesWritten: 1, PagesTotal: 2}})
			out.send(Event{Taken: &snapshot.Taken{Name: "good", Epoch: 7}})
		case "exists":
			out.send(Event{Error: Errorf(Exists, "there is one")})
		case "dies":
			panic(http.ErrAbortHandler)
		}
	})
	var seen []Progress
	taken, err := c.Snapshot(t.Context(), SnapshotRequest{Name: "good"}, func(p Progress) { seen = append(seen, p) })
	if err != nil || taken.Name != "good" || taken.Epoch != 7 {
		t.Errorf("good: %+v, %v", taken, err)
	}
	if len(seen) != 1 || seen[0].PagesTotal != 2 {
		t.Errorf("progress %+v", seen)
	}
	if _, err := c.Snapshot(t.Context(), SnapshotRequest{Name: "exists"}, nil); CodeOf(err) != Exists || err.Error() != "there is one" {
		t.Errorf("exists: %v", err)
	}
	for _, name := range []string{"dies", "says nothing"} {
		if _, err := c.Snapshot(t.Context(), SnapshotRequest{Name: name}, nil); CodeOf(err) != NoMount {
			t.Errorf("%s: code %d, %v", name, CodeOf(err), err)
		}
	}
}

func TestUnmountStream(t *testing.T) {
	answers := []struct {
		events []Event
		want   Code
	}{
		{[]Event{{Unmounted: true}, {Closed: true}}, Done},
		{[]Event{{Unmounted: true}, {Error: Errorf(Failed, "no space")}}, Failed},
		{[]Event{{Unmounted: true}}, Failed},
		{nil, NoMount},
	}
	for _, a := range answers {
		c := fakeDaemon(t, func(w http.ResponseWriter, _ *http.Request) {
			out := newStream(w)
			for _, e := range a.events {
				out.send(e)
			}
		})
		if err := c.Unmount(t.Context()); CodeOf(err) != a.want {
			t.Errorf("%+v: %v", a.events, err)
		}
	}
}

// TestHungDaemon: a socket at which nobody answers is given up.
func TestHungDaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Listen(dir) // and no Serve
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(nil)
	start := time.Now()
	if _, err := Dial(t.Context(), dir); CodeOf(err) != NoMount || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("code %d: %v", CodeOf(err), err)
	}
	if waited := time.Since(start); waited < connectLimit/2 || waited > 3*connectLimit {
		t.Errorf("waited %v", waited)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's own limit: %v", err)
	}
}

func TestCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Code
	}{
		{nil, Done},
		{errors.New("x"), Failed},
		{fmt.Errorf("delete: %w", snapshot.ErrUnknown), Unknown},
		{fmt.Errorf("take: %w", snapshot.ErrExists), Exists},
		{fmt.Errorf("take: %w", snapshot.ErrName), Usage},
		{fmt.Errorf("delete: %w", snapshot.ErrHeld), Refused},
		{fmt.Errorf("take: %w", snapshot.ErrClosing), Refused},
		{fmt.Errorf("open: %w", snapshot.ErrDamaged), Damaged},
		{fmt.Errorf("unmount: %w", syscall.EBUSY), Refused},
		{fmt.Errorf("wrapped: %w", Errorf(NoMount, "x")), NoMount},
		{context.Canceled, Interrupted},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("%v: code %d, want %d", c.err, got, c.want)
		}
	}
	if e := AsError(fmt.Errorf("outer: %w", Errorf(Exists, "inner"))); e.Text != "outer: inner" || e.Code != Exists {
		t.Errorf("AsError lost something: %+v", e)
	}
}

func TestParseMounts(t *testing.T) {
	const table = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:52 / /mnt/with\040space rw,nosuid shared:7 master:2 - fuse.snapfs /srv/a\134b rw,user_id=0
41 40 0:53 / /mnt/with\040space/in rw - tmpfs tmpfs rw
not a line
`
	all, err := parseMounts(strings.NewReader(table))
	if err != nil || len(all) != 3 {
		t.Fatalf("%d mounts, %v", len(all), err)
	}
	want := Mounted{ID: 40, Major: 0, Minor: 52, Root: "/", Point: "/mnt/with space", Type: FSType, Source: `/srv/a\b`}
	if all[1] != want {
		t.Errorf("got %+v, want %+v", all[1], want)
	}
	for path, id := range map[string]uint64{"/": 22, "/mnt": 22, "/mnt/with spaces": 22, "/mnt/with space": 40,
		"/mnt/with space/x/y": 40, "/mnt/with space/in/x": 41} {
		if m, err := byName(all, path); err != nil || m.ID != id {
			t.Errorf("%s is in mount %d, want %d (%v)", path, m.ID, id, err)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		if _, err := Find(path); CodeOf(err) != NoMount {
			t.Errorf("%s: %v", path, err)
		}
	}
	if m, err := FindAny("/proc/self"); err != nil || m.Type != "proc" {
		t.Errorf("/proc/self is in %+v, %v", m, err)
	}
}

// TestMetrics: every line has the form of the Prometheus text format, and no name comes twice.
func TestMetrics(t *testing.T) {
	status := fs.Status{Store: "/a\"b\\c\nd", Snapshots: 3, DirtyBytes: 1 << 40, Mode: "ro-after-error",
		Last: &fs.LastSnapshot{Name: "x", Time: time.Unix(1000, 500e6), Status: "ok", FreezeUsec: 1500}}
	var b strings.Builder
	writeMetrics(&b, status)
	text := b.String()
	line := regexp.MustCompile(`^(# HELP snapfs_[a-z_]+ [^\n]+\.|# TYPE snapfs_[a-z_]+ (gauge|counter)|snapfs_[a-z_]+(\{[^\n]*\})? [-+.e0-9]+)$`)
	seen := map[string]bool{}
	for _, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if !line.MatchString(l) {
			t.Errorf("bad line %q", l)
		}
		if name, ok := strings.CutPrefix(l, "# TYPE "); ok {
			if seen[name] {
				t.Errorf("twice: %s", name)
			}
			seen[name] = true
		}
	}
	for _, want := range []string{"\nsnapfs_snapshots 3\n", "\nsnapfs_dirty_bytes 1.099511627776e+12\n", "\nsnapfs_read_only_after_error 1\n",
		"\nsnapfs_last_snapshot_timestamp_seconds 1000.5\n", "\nsnapfs_last_snapshot_freeze_seconds 0.0015\n", `store="/a\"b\\c\nd"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
}

func TestErrorJSON(t *testing.T) {
	text, err := json.Marshal(Errorf(Exists, "it exists"))
	if err != nil || string(text) != `{"error":"it exists","code":5}` {
		t.Errorf("%s, %v", text, err)
	}
}

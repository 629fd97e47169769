package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// The connection of POST /view ceases to be HTTP when it is answered with 101. From then on the daemon sends events, one a line:
// frozen, taken, serving, closed, or a failure, which ends it. After "taken" the command sends one byte with a descriptor: a FUSE
// device that it has mounted for itself. The view lives as long as the connection: when the command closes its side, or dies,
// the view ends and the snapshot, if it is temporary, is deleted.

// viewProtocol is what POST /view upgrades to.
const viewProtocol = "snapfs-view"

// viewers are the processes that have a view.
type viewers struct {
	mu  sync.Mutex
	pid map[*net.UnixConn]int // GUARDED_BY(mu)
}

func (v *viewers) add(conn *net.UnixConn, pid int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pid == nil {
		v.pid = map[*net.UnixConn]int{}
	}
	v.pid[conn] = pid
}

func (v *viewers) remove(conn *net.UnixConn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.pid, conn)
}

// any returns one of the processes.
func (v *viewers) any() (pid int, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, pid := range v.pid {
		return pid, true
	}
	return 0, false
}

// interrupt makes those that wait for a command go on.
func (v *viewers) interrupt() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for conn := range v.pid {
		conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// view takes a snapshot and shows it on a device that the command brings.
func (s *Server) view(w http.ResponseWriter, r *http.Request) error {
	var req ViewRequest
	if err := s.request(w, r, &req); err != nil {
		return err
	}
	cred, _ := r.Context().Value(peerKey{}).(*unix.Ucred)
	conn, err := upgrade(w)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.viewers.add(conn, int(cred.Pid))
	defer s.viewers.remove(conn)
	out := connStream(conn)
	if err := s.holdView(conn, req, out); err != nil {
		out.send(Event{Error: AsError(err)})
		return nil
	}
	out.send(Event{Closed: true})
	return nil
}

// upgrade takes the connection over from HTTP.
func upgrade(w http.ResponseWriter) (*net.UnixConn, error) {
	raw, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("control: take over the connection: %w", err)
	}
	conn, ok := raw.(*net.UnixConn)
	if !ok {
		raw.Close()
		return nil, errors.New("control: not a Unix socket")
	}
	conn.SetDeadline(time.Time{}) // HTTP's
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", viewProtocol)
	if err != nil {
		conn.Close()
	}
	return conn, err
}

// connStream is a stream of events to a connection that was taken over. The few that there are find room in it, whether the client reads or
// not.
func connStream(conn *net.UnixConn) stream {
	conn.SetWriteDeadline(time.Time{})
	return stream{enc: json.NewEncoder(conn), flush: func() {}}
}

// holdView is the life of a view: from the snapshot to the end of the connection.
func (s *Server) holdView(conn *net.UnixConn, req ViewRequest, out stream) (err error) {
	taken, err := s.mount.Snapshot(snapshot.Request{
		Name:        req.Name,
		Description: req.Description,
		Temporary:   !req.Keep,
		Frozen:      func(t snapshot.Taken) { out.send(Event{Frozen: &t}) },
	})
	if err != nil {
		return err
	}
	defer func() {
		if req.Keep {
			return
		}
		gone := s.mount.Drop(taken.Epoch)
		if errors.Is(gone, snapshot.ErrUnknown) || errors.Is(gone, snapshot.ErrHeld) {
			gone = nil // somebody has deleted it, or wants to keep it
		}
		err = errors.Join(err, gone)
	}()
	out.send(Event{Taken: &taken})
	device, err := receiveFile(conn)
	if err != nil || device == nil {
		return err
	}
	showing, err := s.mount.Show(taken.Epoch, device)
	if err != nil {
		return err
	}
	defer showing.End()
	out.send(Event{Serving: true})
	_, err = conn.Read(make([]byte, 1)) // nothing more is said
	return ended(err)
}

// ended tells how the wait for the end of a connection ended: err is nil if the other side closed it or died.
func ended(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("control: the mount is going down: %w", snapshot.ErrClosing)
	case err == nil:
		return Errorf(Usage, "control: more was said than is understood")
	}
	return nil
}

// receiveFile returns the descriptor that comes next; nil if the connection ends before.
func receiveFile(conn *net.UnixConn) (*os.File, error) {
	data, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil {
		return nil, ended(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil && len(fds) == 1 {
			return os.NewFile(uintptr(fds[0]), "device"), nil
		}
	}
	return nil, fmt.Errorf("control: no descriptor in the message: %w", syscall.EPROTO)
}

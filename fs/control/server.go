package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/snapshot"
)

// Server answers at the control socket of one mount. Its life: Listen, Serve, Drain, Close.
type Server struct {
	dir      *os.File
	socket   *net.UnixListener
	http     *http.Server
	patience time.Duration // with a client that does not go on to send its request, or to read its answer: Drain waits for it

	// Set by Serve, before the first request is looked at.
	mount  *fs.Mount
	store  *snapshot.Store
	hello  Hello
	served bool // the HTTP server closes the socket

	mu     sync.Mutex
	ending bool           // GUARDED_BY(mu): nothing new is begun
	work   sync.WaitGroup // requests that use the mount or the store

	viewers viewers

	ended  chan struct{} // closed by Close
	result error         // how closing the store ended; set before ended is closed
}

// Listen binds the socket in the store's directory; whoever connects waits until Serve. The caller holds the store's lock (I9). It sets
// the umask for a moment: no other goroutine may be making files.
func Listen(storeDir string) (*Server, error) {
	dir, err := openDir(storeDir)
	if err != nil {
		return nil, err
	}
	socket, err := listen(dir)
	if err != nil {
		dir.Close()
		return nil, err
	}
	s := &Server{dir: dir, socket: socket, patience: connectLimit, ended: make(chan struct{})}
	s.http = &http.Server{
		Handler:           s.routes(),
		ConnContext:       rememberPeer,
		ReadHeaderTimeout: connectLimit,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	return s, nil
}

// Serve begins to answer for m and store, in the background.
func (s *Server) Serve(m *fs.Mount, store *snapshot.Store, hello Hello) {
	s.mount, s.store, s.hello, s.served = m, store, hello, true
	go s.http.Serve(s.socket) // ends, with nothing to say, when Close is called
}

// Drain refuses new requests from now on, ends the views, and returns when what was begun is answered. After it the store may be
// closed.
func (s *Server) Drain() {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	for { // again and again: a request that was begun may become a view any time
		s.viewers.interrupt()
		select {
		case <-done:
			return
		case <-time.After(drainInterval):
		}
	}
}

// EndViews ends the views that there are. The commands that have them end, and let go of the mount where their namespaces hold it.
func (s *Server) EndViews() { s.viewers.interrupt() }

const drainInterval = 50 * time.Millisecond

// Close tells the commands that wait for the end how it was (result: of closing the store), and removes the socket.
func (s *Server) Close(result error) error {
	s.result = result
	close(s.ended)
	ctx, cancel := context.WithTimeout(context.Background(), connectLimit)
	defer cancel()
	err := unix.Unlinkat(int(s.dir.Fd()), socketName, 0)
	if !s.served { // Shutdown does not know the listener
		err = errors.Join(err, s.socket.Close())
	}
	return errors.Join(err, s.http.Shutdown(ctx), s.dir.Close())
}

// begin counts a request in; it fails when the daemon is ending.
func (s *Server) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return fmt.Errorf("control: the mount is going down: %w", snapshot.ErrClosing)
	}
	s.work.Add(1)
	return nil
}

type peerKey struct{}

// rememberPeer keeps the peer's credentials with every connection.
func rememberPeer(ctx context.Context, conn net.Conn) context.Context {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	cred, err := peer(unixConn)
	if err != nil {
		return ctx // an unknown peer is refused
	}
	return context.WithValue(ctx, peerKey{}, cred)
}

// allowed reports whether the request comes from root or from the owner of the mount.
func allowed(r *http.Request) bool {
	cred, ok := r.Context().Value(peerKey{}).(*unix.Ucred)
	return ok && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

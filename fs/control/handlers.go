package control

import (
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/snapfs/snapfs/snapshot"
)

// A handler does one kind of request. An error that it returns is answered; it must not have answered anything before.
type handler func(w http.ResponseWriter, r *http.Request) error

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /ping", s.guard(s.ping))
	mux.Handle("GET /list", s.guard(s.counted(s.list)))
	mux.Handle("GET /status", s.guard(s.counted(s.status)))
	mux.Handle("GET /metrics", s.guard(s.counted(s.metrics)))
	mux.Handle("POST /snapshot", s.guard(s.counted(s.snapshot)))
	mux.Handle("POST /view", s.guard(s.counted(s.view)))
	mux.Handle("POST /delete", s.guard(s.counted(s.delete)))
	mux.Handle("POST /rename", s.guard(s.counted(s.rename)))
	mux.Handle("POST /check", s.guard(s.counted(s.check)))
	mux.Handle("POST /unmount", s.guard(s.unmount))
	return s.bounded(mux)
}

// bounded bounds the wait for clients that do not read.
func (s *Server) bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&patient{w, http.NewResponseController(w), s.patience}, r)
	})
}

// guard checks who asks, and turns errors into answers.
func (s *Server) guard(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !allowed(r) {
			answer(w, http.StatusForbidden, Errorf(Refused, "permission denied: only root and the owner of the mount may do this"))
			return
		}
		if err := h(w, r); err != nil {
			answer(w, statusOf(err), AsError(err))
		}
	})
}

// counted makes Drain wait for the request.
func (s *Server) counted(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.begin(); err != nil {
			return err
		}
		defer s.work.Done()
		return h(w, r)
	}
}

func (s *Server) ping(w http.ResponseWriter, _ *http.Request) error {
	hello := s.hello
	s.mu.Lock()
	hello.Ending = s.ending
	s.mu.Unlock()
	return answer(w, http.StatusOK, hello)
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) error {
	infos, err := s.mount.List()
	if err != nil {
		return err
	}
	return answerLines(w, infos)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) error {
	status, err := s.mount.Status()
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, status)
}

func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) error {
	status, err := s.mount.Status()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	writeMetrics(w, status)
	return nil
}

func (s *Server) delete(w http.ResponseWriter, r *http.Request) error {
	var req DeleteRequest
	if err := s.request(w, r, &req); err != nil {
		return err
	}
	gone, err := s.mount.Delete(req.Names, req.DryRun)
	if err != nil {
		return err
	}
	return answerLines(w, gone)
}

func (s *Server) rename(w http.ResponseWriter, r *http.Request) error {
	var req RenameRequest
	if err := s.request(w, r, &req); err != nil {
		return err
	}
	if err := s.mount.Rename(req.Old, req.New); err != nil {
		return err
	}
	return answer(w, http.StatusOK, struct{}{})
}

func (s *Server) check(w http.ResponseWriter, _ *http.Request) error {
	report, err := s.store.Check()
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, report)
}

// snapshot streams events: progress while the writer works, if it was asked for, then the outcome.
func (s *Server) snapshot(w http.ResponseWriter, r *http.Request) error {
	var req SnapshotRequest
	if err := s.request(w, r, &req); err != nil {
		return err
	}
	out := newStream(w)
	type outcome struct {
		taken snapshot.Taken
		err   error
	}
	done := make(chan outcome, 1)
	frozen := make(chan snapshot.Taken, 1)
	go func() {
		taken, err := s.mount.Snapshot(snapshot.Request{Name: req.Name, Description: req.Description, NoWait: req.NoWait,
			Frozen: func(t snapshot.Taken) { frozen <- t }})
		done <- outcome{taken, err}
	}()
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		select {
		case t := <-frozen:
			if req.Frozen {
				out.send(Event{Frozen: &t})
			}
		case end := <-done:
			if end.err != nil {
				out.send(Event{Error: AsError(end.err)})
				return nil
			}
			out.send(Event{Taken: &end.taken})
			return nil
		case <-tick.C:
			if !req.Progress {
				continue
			}
			if p, ok := s.progress(); ok {
				out.send(Event{Progress: &p})
			}
		}
	}
}

// progress returns how far the writer at work is, if there is one.
func (s *Server) progress() (Progress, bool) {
	c, ok := s.store.Writing()
	return Progress{PagesWritten: c.PagesWritten, PagesTotal: c.PagesTotal, Seconds: c.Seconds}, ok
}

// progressInterval is how often the progress of a snapshot is told.
const progressInterval = 100 * time.Millisecond

// unmount unmounts and stays until the store is closed, because that is where writing the last bytes may fail.
func (s *Server) unmount(w http.ResponseWriter, r *http.Request) error {
	if pid, ok := s.viewers.any(); ok {
		return Errorf(Refused, "snapfs exec (process %d) shows a snapshot of it", pid)
	}
	if err := s.mount.Unmount(); err != nil {
		return err
	}
	out := newStream(w)
	out.send(Event{Unmounted: true})
	select {
	case <-r.Context().Done():
	case <-s.ended:
		if s.result != nil {
			out.send(Event{Error: AsError(s.result)})
			return nil
		}
		out.send(Event{Closed: true})
	}
	return nil
}

// stream writes one JSON object a line, each sent at once. A client that is gone does not matter: the work goes on.
type stream struct {
	enc   *json.Encoder
	flush func()
}

func newStream(w http.ResponseWriter) stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	control.Flush() // tells the client that the request was taken
	return stream{enc: json.NewEncoder(w), flush: func() { control.Flush() }}
}

func (s stream) send(e Event) {
	if s.enc.Encode(e) == nil {
		s.flush()
	}
}

func answer(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
	return nil
}

func answerLines[T any](w http.ResponseWriter, all []T) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	for _, v := range all {
		if enc.Encode(v) != nil {
			break
		}
	}
	return nil
}

// request decodes the request's body, and waits for it so long.
func (s *Server) request(w http.ResponseWriter, r *http.Request, v any) error {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(s.patience)); err != nil {
		return err
	}
	defer control.SetReadDeadline(time.Time{}) // what comes to an end after the body is the connection, and with it the request
	return decode(r, v)
}

// decode reads the request's body; unknown fields are refused, so that a newer command is not half understood.
func decode(r *http.Request, v any) error {
	dec := json.NewDecoder(io.LimitReader(r.Body, maxRequest))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return Errorf(Usage, "control: bad request: %v", err)
	}
	return nil
}

// maxRequest bounds a request's body in bytes; the largest is a delete of many names.
const maxRequest = 64 << 20

// statusOf gives the HTTP status for clients other than our own, which goes by the code in the body.
func statusOf(err error) int {
	switch CodeOf(err) {
	case Usage:
		return http.StatusBadRequest
	case Unknown:
		return http.StatusNotFound
	case Exists, Refused:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

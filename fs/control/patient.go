package control

import (
	"net/http"
	"time"
)

// patient is a connection to a client that may have stopped, or never have meant to read its answer. Only for so long is it waited for: the
// daemon does not end before its requests have.
type patient struct {
	http.ResponseWriter
	conn  *http.ResponseController
	limit time.Duration
}

// Unwrap is for http.ResponseController.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// Write writes as long as the client reads.
func (p *patient) Write(b []byte) (int, error) {
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.limit)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// FlushError sends what was written.
func (p *patient) FlushError() error {
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.limit)); err != nil {
		return err
	}
	return p.conn.Flush()
}

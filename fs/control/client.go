package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/snapfs/snapfs/fs"
	"github.com/snapfs/snapfs/snapshot"
)

// Client talks to the daemon of a store.
type Client struct {
	dir   *os.File
	http  *http.Client
	hello Hello
}

// Dial connects to the daemon that serves the store in storeDir. A daemon that does not answer within 5 s is an error with code NoMount.
func Dial(ctx context.Context, storeDir string) (*Client, error) {
	dir, err := openDir(storeDir)
	if err != nil {
		return nil, dialError(ctx, storeDir, err)
	}
	c := &Client{dir: dir}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: connectLimit}
			return d.DialContext(ctx, "unix", socketPath(dir))
		},
		MaxIdleConns: 1,
	}}
	pingCtx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	if err := c.call(pingCtx, http.MethodGet, "/ping", nil, &c.hello); err != nil {
		c.Close()
		return nil, dialError(ctx, storeDir, err)
	}
	return c, nil
}

// dialError says in one line why the daemon of storeDir could not be reached.
func dialError(ctx context.Context, storeDir string, err error) error {
	var coded *Error
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &coded):
		return err
	case errors.Is(err, syscall.EACCES):
		return Errorf(Refused, "permission denied: only root and the owner of the mount may talk to the daemon of %s", storeDir)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return Errorf(NoMount, "no daemon answers for %s: it is not running", storeDir)
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return Errorf(NoMount, "the daemon of %s does not answer (waited %v)", storeDir, connectLimit)
	}
	return Errorf(NoMount, "no daemon answers for %s: %v", storeDir, bare(err))
}

// Close gives the connection back.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return c.dir.Close()
}

// Hello says who answered.
func (c *Client) Hello() Hello { return c.hello }

// Snapshot takes a snapshot. progress, if not nil, is called while its writer works.
func (c *Client) Snapshot(ctx context.Context, req SnapshotRequest, progress func(Progress)) (snapshot.Taken, error) {
	return c.SnapshotWatched(ctx, req, progress, nil)
}

// SnapshotWatched is Snapshot with a function that is called, if not nil, as soon as the tree is frozen.
func (c *Client) SnapshotWatched(ctx context.Context, req SnapshotRequest, progress func(Progress), frozen func()) (snapshot.Taken, error) {
	req.Progress, req.Frozen = progress != nil, frozen != nil
	var taken *snapshot.Taken
	err := c.stream(ctx, "/snapshot", req, func(e Event) {
		if e.Progress != nil && progress != nil {
			progress(*e.Progress)
		}
		if e.Frozen != nil && frozen != nil {
			frozen()
		}
		if e.Taken != nil {
			taken = e.Taken
		}
	})
	if err != nil {
		return snapshot.Taken{}, err
	}
	if taken == nil {
		return snapshot.Taken{}, Errorf(NoMount, "the daemon ended before the snapshot was taken")
	}
	return *taken, nil
}

// List returns the snapshots, oldest first.
func (c *Client) List(ctx context.Context) ([]snapshot.Info, error) {
	return lines[snapshot.Info](ctx, c, http.MethodGet, "/list", nil)
}

// Delete deletes the named snapshots and says what that freed, or with DryRun would.
func (c *Client) Delete(ctx context.Context, req DeleteRequest) ([]snapshot.Deleted, error) {
	return lines[snapshot.Deleted](ctx, c, http.MethodPost, "/delete", req)
}

// Rename gives a snapshot another name.
func (c *Client) Rename(ctx context.Context, req RenameRequest) error {
	return c.call(ctx, http.MethodPost, "/rename", req, nil)
}

// Status returns the figures of the mount.
func (c *Client) Status(ctx context.Context) (fs.Status, error) {
	var status fs.Status
	err := c.call(ctx, http.MethodGet, "/status", nil, &status)
	return status, err
}

// Check verifies the store while it is mounted.
func (c *Client) Check(ctx context.Context) (snapshot.Report, error) {
	var report snapshot.Report
	err := c.call(ctx, http.MethodPost, "/check", nil, &report)
	return report, err
}

// Unmount unmounts, and returns when the store is closed: the last bytes are on disk then. The error has code Refused if somebody
// uses the mount.
func (c *Client) Unmount(ctx context.Context) error {
	var unmounted, closed bool
	err := c.stream(ctx, "/unmount", nil, func(e Event) {
		unmounted = unmounted || e.Unmounted
		closed = closed || e.Closed
	})
	switch {
	case err != nil:
		return err
	case !unmounted:
		return Errorf(NoMount, "the daemon ended before it had unmounted")
	case !closed:
		return Errorf(Failed, "unmounted, but the daemon ended before the store was closed; the next mount recovers it")
	}
	return nil
}

// call does a request whose answer is one JSON value.
func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return answerError(ctx, err)
	}
	return nil
}

// lines does a request whose answer is one JSON value a line.
func lines[T any](ctx context.Context, c *Client, method, path string, body any) ([]T, error) {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all []T
	for dec := json.NewDecoder(resp.Body); ; {
		var v T
		if err := dec.Decode(&v); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, answerError(ctx, err)
		}
		all = append(all, v)
	}
}

// stream does a request that is answered with events.
func (c *Client) stream(ctx context.Context, path string, body any, event func(Event)) error {
	resp, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var e Event
		if err := dec.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return answerError(ctx, err)
		}
		if e.Error != nil {
			return e.Error
		}
		event(e)
	}
}

// do sends a request; an error that the daemon answered comes back as *Error.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var send io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://snapfs"+path, send)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, answerError(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var failure Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&failure); err != nil || failure.Code == Done {
		return nil, Errorf(NoMount, "the daemon answered %s to %s %s", resp.Status, method, path)
	}
	return nil, &failure
}

// answerError explains a connection that broke: the user's doing, or the end of the daemon. Errors of connecting are kept for dialError.
func answerError(ctx context.Context, err error) error {
	var op *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case ctx.Err() != nil, errors.As(err, &op) && op.Op == "dial":
		return err
	}
	return Errorf(NoMount, "the daemon ended while it worked on the request: %v", err)
}

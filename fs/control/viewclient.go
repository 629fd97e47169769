package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/snapshot"
)

// View is a snapshot that lives, if it is temporary, as long as this connection.
type View struct {
	Taken  snapshot.Taken
	conn   *net.UnixConn
	events chan answered
	gone   chan struct{} // closed when the daemon says no more
}

// answered is an event, or why none came.
type answered struct {
	event Event
	err   error
}

// View takes a snapshot. frozen, if not nil, is called when the tree is frozen; the call returns when the snapshot is durable.
func (c *Client) View(ctx context.Context, req ViewRequest, frozen func()) (*View, error) {
	conn, reader, err := c.upgrade(ctx, "/view", req)
	if err != nil {
		return nil, err
	}
	v := &View{conn: conn, events: make(chan answered, 8), gone: make(chan struct{})}
	go v.listen(json.NewDecoder(reader))
	for {
		e, err := v.next(ctx)
		switch {
		case err != nil:
			conn.Close()
			return nil, err
		case e.Frozen != nil && frozen != nil:
			frozen()
		case e.Taken != nil:
			v.Taken = *e.Taken
			return v, nil
		}
	}
}

// listen passes on what the daemon sends until it hangs up.
func (v *View) listen(dec *json.Decoder) {
	defer close(v.gone)
	for {
		var a answered
		if err := dec.Decode(&a.event); err != nil {
			a.err = Errorf(NoMount, "the daemon ended: %v", bare(err))
		} else if a.event.Error != nil {
			a.err = a.event.Error
		}
		v.events <- a // at most six are ever sent
		if a.err != nil || a.event.Closed {
			return
		}
	}
}

func (v *View) next(ctx context.Context) (Event, error) {
	select {
	case a := <-v.events:
		return a.event, a.err
	case <-ctx.Done():
		return Event{}, ctx.Err()
	}
}

// Serve gives the daemon a FUSE device that is mounted, and returns when it answers there.
func (v *View) Serve(ctx context.Context, device *os.File) error {
	if _, _, err := v.conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(device.Fd())), nil); err != nil {
		if _, failure := v.next(ctx); failure != nil {
			return failure
		}
		return fmt.Errorf("control: send the device: %w", err)
	}
	e, err := v.next(ctx)
	if err == nil && !e.Serving {
		err = Errorf(Failed, "control: the daemon does not serve")
	}
	return err
}

// Gone is closed when the daemon has ended the view, or has ended.
func (v *View) Gone() <-chan struct{} { return v.gone }

// Close ends the view, and returns when the snapshot is deleted, if it is temporary. If ctx ends before, the daemon goes on with that.
func (v *View) Close(ctx context.Context) error {
	defer v.conn.Close()
	_ = v.conn.CloseWrite() // a daemon that is gone says so below
	for {
		if e, err := v.next(ctx); err != nil || e.Closed {
			return err
		}
	}
}

// upgrade sends a request over a connection of its own, which is the caller's when the daemon has agreed.
func (c *Client) upgrade(ctx context.Context, path string, body any) (*net.UnixConn, *bufio.Reader, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, nil, err
	}
	dialer := net.Dialer{Timeout: connectLimit}
	raw, err := dialer.DialContext(ctx, "unix", socketPath(c.dir))
	if err != nil {
		return nil, nil, answerError(ctx, Errorf(NoMount, "the daemon ended: %v", bare(err)))
	}
	conn := raw.(*net.UnixConn)
	reader, err := sendUpgrade(ctx, conn, path, text)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, reader, nil
}

func sendUpgrade(ctx context.Context, conn *net.UnixConn, path string, body []byte) (*bufio.Reader, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://snapfs"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", viewProtocol)
	conn.SetDeadline(time.Now().Add(connectLimit))
	defer conn.SetDeadline(time.Time{})
	if err := req.Write(conn); err != nil {
		return nil, answerError(ctx, err)
	}
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, req)
	if err != nil {
		return nil, answerError(ctx, err)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return reader, nil
	}
	defer resp.Body.Close()
	var failure Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&failure); err != nil || failure.Code == Done {
		return nil, errors.Join(ctx.Err(), Errorf(NoMount, "the daemon answered %s to %s", resp.Status, path))
	}
	return nil, &failure
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// packetConn carries JSON values, one a packet, and files, between two processes.
type packetConn struct{ *net.UnixConn }

// maxPacket bounds a packet in bytes; the longest is an error.
const maxPacket = 64 << 10

// packetPair returns both ends of a connection, the second one to be inherited.
func packetPair() (*packetConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "exec")
	ours, err := newPacketConn(os.NewFile(uintptr(fds[0]), "exec"))
	if err != nil {
		theirs.Close()
	}
	return ours, theirs, err
}

// newPacketConn takes over a descriptor.
func newPacketConn(file *os.File) (*packetConn, error) {
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("not a Unix socket")
	}
	return &packetConn{unixConn}, nil
}

// send sends v, and file if it is not nil.
func (c *packetConn) send(v any, file *os.File) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	_, _, err = c.WriteMsgUnix(text, rights, nil)
	return err
}

// receive decodes the next packet into v, and returns the file that came with it, nil if none did. io.EOF is the end of the other side.
func (c *packetConn) receive(v any) (*os.File, error) {
	text, rights := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(4))
	n, rightsLen, _, _, err := c.ReadMsgUnix(text, rights)
	if err != nil {
		return nil, err
	}
	var file *os.File
	messages, err := unix.ParseSocketControlMessage(rights[:rightsLen])
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil && len(fds) == 1 {
			file = os.NewFile(uintptr(fds[0]), "received")
		}
	}
	if err == nil {
		err = json.Unmarshal(text[:n], v)
	}
	if err != nil && file != nil {
		file.Close()
		file = nil
	}
	return file, err
}

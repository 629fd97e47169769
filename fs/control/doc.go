// Package control is the socket through which commands and monitoring talk to the daemon of a mount.
//
// It is HTTP with JSON over the Unix socket STORE/control.sock, mode 0600. Every connection's peer credentials are
// checked too: only root and the owner of the mount (the user the daemon runs as) are answered.
//
//	GET  /ping      Hello: who answers
//	GET  /list      one snapshot.Info a line, oldest first
//	GET  /status    fs.Status
//	GET  /metrics   the same figures in the Prometheus text format
//	POST /snapshot  SnapshotRequest; lines of Event, the last one with a result or an error
//	POST /view      ViewRequest; no longer HTTP then, see view.go
//	POST /delete    DeleteRequest; one snapshot.Deleted a line
//	POST /rename    RenameRequest
//	POST /check     snapshot.Report
//	POST /unmount   lines of Event: one when the mount is gone, the last one when the store is closed
//
// A client that has stopped, in the middle of its request or of the answer, is given up after 5 s: the daemon does not end before its
// requests have.
//
// An error is answered as {"error", "code"}, where code is the exit code that the command ends with.
//
// A path in a socket address has only 108 bytes; so both sides reach the socket as /proc/self/fd/N/control.sock, where
// N is a descriptor of the store's directory.
package control

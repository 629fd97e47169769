// Package fs is the FUSE face of a store: it turns requests of the kernel into calls of the live tree and of the frozen
// views, and serves the .snapshots directory.
//
// # Shape
//
// A Mount owns the connection to the kernel. Requests arrive at its face, which implements go-fuse's raw interface: a
// node id is a view and an inode number (nodeid.go), so there is no tree of nodes in memory and nothing to keep in step
// with the namespace below. Open files are handles (handle.go); open frozen views are counted (views.go).
//
// # Caching
//
// Every change of the live tree goes through the mount, and a frozen view never changes. So the kernel may keep what it
// was told: each reply carries a timeout of an hour, for names that do not exist as well, file data and directory
// listings stay cached over opens. The one exception is .snapshots, which also changes through the control socket: Mount
// tells the kernel (notify.go) after such a change.
//
// Inodes are not counted: what the kernel knows is its own affair, but for those without a name, which go when it forgets them
// (forgetting.go).
//
// An answer that is under way at the moment of a change must not bring the state before it back for an hour: answers.go.
//
// # Rights
//
// The kernel checks all rights, by modes and access control lists (default_permissions, POSIX_ACL). A list is asked for once
// for an inode that somebody uses who is not its owner, and stays in the kernel's cache, also that there is none, until the
// inode's attributes are asked for again. The one exception is the root: its inode is older than the answer to INIT, so
// Linux never caches its list (ACL_DONT_CACHE in fuse_init_inode), and a path that goes through it costs one request of
// everybody but its owner. Options.NoACL spares that.
//
// # Flags of the mount
//
// The kernel sees to most of them. Whether reads change the atime (atime.go), and that sync and dirsync make changes of the
// namespace durable before they return, is for us; what `mount -o remount` says is read from the mount table (flags.go).
//
// # A view at a mount of its own
//
// A Showing (showing.go) serves one frozen view to one command, at a mount that the command has made in a mount namespace of its own
// (Attach), on a connection of its own. There a node id is an inode number. The daemon cannot end a connection whose mount somebody still
// uses, except by its own end; so a Showing that is over answers ENOTCONN.
//
// # Deadlocks to stay clear of
//
//   - A notification takes the kernel's lock of the directory that it names. The kernel holds that lock during MKDIR,
//     RMDIR, RENAME ... in it, so a handler never notifies about its own directory. What arrives by mkdir(2) in
//     .snapshots needs no notification at all: the kernel knows.
//   - A notification about the attributes of an inode takes no lock: handlers may make it, if the request keeps the inode; for one that
//     is about to go it waits until it is gone, and that may wait for what the kernel writes back. The listing of a directory is no
//     different.
//   - A notification that drops file data, and the push before a freeze, wait for WRITE requests. They run while no lock
//     is held that a handler takes.
//
// # Errors
//
// Every request gets exactly one reply. An error becomes an errno in one place (errno.go); what has no errno is EIO, is
// counted and logged. ENOSYS is said only where the kernel is to stop asking (FLUSH, ACCESS).
package fs

package fs

import (
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"github.com/snapfs/snapfs/snapshot"
)

func TestChangeOfSetAttr(t *testing.T) {
	in := gofuse.SetAttrInCommon{
		Mode: 0104755, Size: 77, Owner: gofuse.Owner{Uid: 5, Gid: 6},
		Atime: ^uint64(0), Atimensec: 9, Mtime: 2, Mtimensec: 3, Ctime: 4, Ctimensec: 5, // Atime: one second before 1970
	}
	values := snapshot.Change{
		Mode: 04755, UID: 5, GID: 6, Size: 77,
		Atime: snapshot.Time{Sec: -1, Nsec: 9}, Mtime: snapshot.Time{Sec: 2, Nsec: 3},
		Ctime: snapshot.Time{Sec: 4, Nsec: 5},
	}
	for _, c := range []struct {
		name  string
		valid uint32
		set   snapshot.ChangeSet
		kill  bool
	}{
		{"chown to nobody else", 0, 0, true},
		{"chmod", gofuse.FATTR_MODE, snapshot.SetMode, false},
		{"held back times", gofuse.FATTR_MTIME | gofuse.FATTR_CTIME, snapshot.SetMtime | snapshot.SetCtime, false},
		{"chown", gofuse.FATTR_UID | gofuse.FATTR_GID, snapshot.SetUID | snapshot.SetGID, true},
		{"chgrp", gofuse.FATTR_GID, snapshot.SetGID, true},
		{"truncate by root", gofuse.FATTR_SIZE | gofuse.FATTR_FH, snapshot.SetSize, false},
		{"truncate", gofuse.FATTR_SIZE | gofuse.FATTR_KILL_SUIDGID, snapshot.SetSize, true},
		{"utimensat", gofuse.FATTR_ATIME | gofuse.FATTR_MTIME, snapshot.SetAtime | snapshot.SetMtime, false},
		{
			"touch", gofuse.FATTR_ATIME | gofuse.FATTR_MTIME | gofuse.FATTR_ATIME_NOW | gofuse.FATTR_MTIME_NOW,
			snapshot.SetAtimeNow | snapshot.SetMtimeNow, false,
		},
		{"touch -m", gofuse.FATTR_MTIME | gofuse.FATTR_MTIME_NOW, snapshot.SetMtimeNow, false},
	} {
		in.Valid = c.valid
		want := values
		want.Set, want.KillPriv = c.set, c.kill
		if got := changeOf(&in); got != want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, want)
		}
	}
}

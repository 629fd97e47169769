package snapshot

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// goldenACL is owner rw-, user 1000 r-x, group r--, mask rwx, others ---, as the kernel writes it.
const goldenACL = "02000000" + "01000600ffffffff" + "02000500e8030000" + "04000400ffffffff" + "10000700ffffffff" + "20000000ffffffff"

func TestACLForm(t *testing.T) {
	value, err := hex.DecodeString(goldenACL)
	agree(t, "golden", err, nil)
	list, err := parseACL(value)
	agree(t, "parse", err, nil)
	want := acl{{aclUserObj, 6, noID}, {aclUser, 5, 1000}, {aclGroupObj, 4, noID}, {aclMask, 7, noID}, {aclOther, 0, noID}}
	if len(list) != len(want) {
		t.Fatalf("parsed %v", list)
	}
	for i := range want {
		if list[i] != want[i] {
			t.Errorf("entry %d is %v, want %v", i, list[i], want[i])
		}
	}
	if bits, minimal := list.perm(); bits != 0o670 || minimal {
		t.Errorf("stands for %o, minimal %v", bits, minimal)
	}
	if !bytes.Equal(list.encode(), value) {
		t.Errorf("encodes as %x", list.encode())
	}
}

func FuzzACL(f *testing.F) {
	value, _ := hex.DecodeString(goldenACL)
	f.Add(value, uint32(0o755))
	f.Add(value[:28], uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, mode uint32) {
		list, err := parseACL(b)
		if err != nil {
			return
		}
		if !bytes.Equal(list.encode(), b) {
			t.Errorf("%x encodes as %x", b, list.encode())
		}
		bits, _ := list.perm()
		limited := list.limit(mode)
		if now, _ := list.perm(); now != bits&mode || limited&0o777 != now || limited&^0o777 != mode&^0o777 || !list.valid() {
			t.Errorf("%x limited to %o gives %o and %o", b, mode, limited, now)
		}
		list.chmod(mode)
		if now, _ := list.perm(); now != mode&0o777 {
			t.Errorf("chmod %o gives %o", mode, now)
		}
	})
}

package control

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzMounts: lines of the mount table, which others write names into, are taken or left out, and never misread: what is escaped
// comes back.
func FuzzMounts(f *testing.F) {
	f.Add("36 35 98:0 /root /mount/point rw,noatime shared:1 - fuse.snapfs source options\n")
	f.Add(`36 35 98:0 / /a\040b\134\011c\012 rw - fuse.snapfs /srv/st\040ore rw`)
	f.Add("1 2 3:4 / \\")
	f.Add("1 2 3:4 / /x rw - - - -\n\n - \n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseMounts(strings.NewReader(text))
		if err != nil && len(text) < 1<<20 {
			t.Fatal(err)
		}
		if len(all) > strings.Count(text, "\n")+1 {
			t.Errorf("%d mounts in %q", len(all), text)
		}
		escaped := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(text)
		if got := unescape(escaped); got != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	})
}

// FuzzRequests: a request of any bytes is understood or refused with the code for that; what is understood is what its own
// encoding says.
func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"name":"a","description":"b","no_wait":true}`))
	f.Add([]byte(`{"names":["a","b"],"dry_run":true}`))
	f.Add([]byte(`{"old":"a","new":"b"}`))
	f.Add([]byte(`{"unknown":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		fuzzRequest[SnapshotRequest](t, data)
		fuzzRequest[DeleteRequest](t, data)
		fuzzRequest[RenameRequest](t, data)
	})
}

func fuzzRequest[T any](t *testing.T, data []byte) {
	request := func(b []byte) *http.Request { return &http.Request{Body: io.NopCloser(bytes.NewReader(b))} }
	var first, second T
	if err := decode(request(data), &first); err != nil {
		if CodeOf(err) != Usage {
			t.Errorf("%q: %v, with code %d", data, err, CodeOf(err))
		}
		return
	}
	b, err := json.Marshal(first)
	if err == nil {
		err = decode(request(b), &second)
	}
	again, _ := json.Marshal(second)
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("%q is %s, then %s, %v", data, b, again, err)
	}
}

// FuzzEvents: the command reads what a daemon answers without trusting it.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"progress":{"pages_written":1,"pages_total":2,"seconds":0.1}}`))
	f.Add([]byte(`{"taken":{"name":"a","time":"2026-11-22T04:16:30Z"}}`))
	f.Add([]byte(`{"failure":{"error":"x","code":7}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e Event
		if json.Unmarshal(data, &e) == nil && e.Error != nil {
			_ = e.Error.Error()
		}
	})
}

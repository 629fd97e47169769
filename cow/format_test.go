package cow

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// golden compares b, without the zeros at its end, with the hexadecimal dump in testdata/name. SNAPFS_UPDATE writes the file: only
// together with a new version of the format.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got := hex.Dump(bytes.TrimRight(b, "\x00"))
	if os.Getenv("SNAPFS_UPDATE") != "" {
		must(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s is written differently:\n%swant\n%s", name, got, want)
	}
}

const goldenSalt = 0x0123456789abcdef

func goldenBatch(offset int64) *batchHeader {
	return &batchHeader{offset: offset, synced: PageSize, entries: []entry{
		{id: 7, page: 3, crc: checksum(goldenSalt, bytes.Repeat([]byte{1}, PageSize))},
		{id: 7, page: 4, zero: true},
		{id: 1 << 40, page: 1 << 50, crc: 0xdeadbeef},
	}}
}

// TestFormatGolden pins every byte of an undo log's headers, and reads them back.
func TestFormatGolden(t *testing.T) {
	head := logHeader{epoch: 42, salt: goldenSalt}
	golden(t, "log_header.hex", head.encode())
	if got, err := decodeLogHeader(head.encode()); got != head || err != nil {
		t.Errorf("log header: %+v, %v", got, err)
	}
	h := goldenBatch(3 * PageSize)
	b := h.encode(goldenSalt)
	golden(t, "batch_header.hex", b)
	got, err := decodeBatchHeader(b, goldenSalt, 3*PageSize)
	must(t, err)
	if got.offset != h.offset || got.synced != h.synced || len(got.entries) != 3 || got.size() != 3*PageSize {
		t.Errorf("batch header: %+v", got)
	}
	for i, e := range got.entries {
		if e != h.entries[i] {
			t.Errorf("entry %d: %+v, want %+v", i, e, h.entries[i])
		}
	}
	places := got.places(42)
	want := []Place{{ID: 7, Page: 3, Log: 42, Block: 4, CRC: h.entries[0].crc}, {ID: 7, Page: 4, Log: 42, Zero: true},
		{ID: 1 << 40, Page: 1 << 50, Log: 42, Block: 5, CRC: 0xdeadbeef}}
	for i := range want {
		if places[i] != want[i] {
			t.Errorf("place %d: %+v, want %+v", i, places[i], want[i])
		}
	}
}

// TestFormatRefuses changes each byte of the headers, and asks for them in the wrong place: none is taken for what it is not.
func TestFormatRefuses(t *testing.T) {
	head := logHeader{epoch: 42, salt: goldenSalt}.encode()
	for i := range 64 {
		head[i] ^= 0x10
		if h, err := decodeLogHeader(head); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Errorf("log header with byte %d changed: %+v, %v", i, h, err)
		}
		head[i] ^= 0x10
	}
	if _, err := decodeLogHeader(head[:PageSize-1]); !errors.Is(err, ErrDamaged) {
		t.Error("short log header:", err)
	}
	b := goldenBatch(PageSize).encode(goldenSalt)
	for i := range 200 {
		b[i] ^= 0x10
		if h, err := decodeBatchHeader(b, goldenSalt, PageSize); err == nil {
			t.Errorf("batch header with byte %d changed: %+v", i, h)
		}
		b[i] ^= 0x10
	}
	for _, x := range []struct {
		salt   uint64
		offset int64
	}{{goldenSalt + 1, PageSize}, {goldenSalt, 2 * PageSize}} {
		if _, err := decodeBatchHeader(b, x.salt, x.offset); err == nil {
			t.Errorf("a batch of salt %#x at %d is taken for one of salt %#x at %d", uint64(goldenSalt), PageSize, x.salt, x.offset)
		}
	}
}

// FuzzLogHeader: whatever is accepted is, byte for byte, what would have been written.
func FuzzLogHeader(f *testing.F) {
	b := logHeader{epoch: 42, salt: goldenSalt}.encode()
	f.Add(b[:64])
	f.Add([]byte(logMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		page := make([]byte, PageSize)
		copy(page, data)
		h, err := decodeLogHeader(page)
		if err == nil && !bytes.Equal(h.encode(), page) {
			t.Errorf("%+v was accepted, and is written differently", h)
		}
		_, _ = decodeLogHeader(data)
	})
}

// FuzzBatchHeader decodes arbitrary headers whose checksum is right: what it accepts describes a batch that can be.
func FuzzBatchHeader(f *testing.F) {
	f.Add(goldenBatch(PageSize).encode(goldenSalt)[batchFixed-40 : 200])
	f.Add(bytes.Repeat([]byte{255}, 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := goldenBatch(PageSize).encode(goldenSalt)
		copy(b[24:], data) // what comes after magic, salt and offset
		clear(b[44:48])
		binary.LittleEndian.PutUint32(b[44:], checksum(goldenSalt, b))
		h, err := decodeBatchHeader(b, goldenSalt, PageSize)
		if err != nil {
			return
		}
		places := h.places(42)
		if len(places) != len(h.entries) || headerPages(len(h.entries))*PageSize != len(b) {
			t.Fatalf("%d places of %d entries in a header of %d bytes", len(places), len(h.entries), len(b))
		}
		for _, pl := range places {
			if !pl.Zero && int64(pl.Block+1)*PageSize > PageSize+h.size() {
				t.Errorf("%+v lies behind its batch, which is %d bytes long", pl, h.size())
			}
		}
	})
}

// FuzzScan opens a log of arbitrary bytes behind its header. Every batch that the scan accepts is one that this log would have
// written there; recovery does not panic, and does it the same way twice (I10).
func FuzzScan(f *testing.F) {
	page := bytes.Repeat([]byte{1}, PageSize)
	first := goldenBatch(PageSize)
	first.entries[2].crc = first.entries[0].crc
	log := append(first.encode(goldenSalt), page...)
	log = append(log, page...)
	second := goldenBatch(PageSize + int64(len(log)))
	second.synced = second.offset
	f.Add(log, uint64(goldenSalt))
	f.Add(append(bytes.Clone(log), second.encode(goldenSalt)...), uint64(goldenSalt))
	f.Add(log, uint64(1))                                        // of another log
	f.Add(append(bytes.Clone(page), log...), uint64(goldenSalt)) // of another place
	f.Add([]byte(batchMagic), uint64(goldenSalt))
	f.Fuzz(func(t *testing.T, data []byte, salt uint64) {
		dir := tempDir(t) // in memory: recovery syncs
		path := filepath.Join(dir, "42")
		must(t, os.WriteFile(path, append(logHeader{epoch: 42, salt: salt}.encode(), data...), 0o600))
		end := scanAll(t, path, data, salt)
		once, err1 := recoverLog(dir, path)
		twice, err2 := recoverLog(dir, path)
		if (err1 == nil) != (err2 == nil) || !bytes.Equal(once, twice) {
			t.Errorf("the second recovery differs from the first: %v, %v", err1, err2)
		}
		if err1 == nil && int64(len(once)) > end {
			t.Errorf("recovery kept %d bytes, valid batches end at %d", len(once), end)
		}
	})
}

// scanAll verifies what a scan of the log accepts, and returns the end of it.
func scanAll(t *testing.T, path string, data []byte, salt uint64) (end int64) {
	fd, err := syscall.Open(path, os.O_RDWR, 0)
	must(t, err)
	l := &undoLog{epoch: 42, salt: salt, fd: fd, hook: func(Op) error { return nil }}
	defer l.close()
	end = PageSize
	must(t, l.scan(PageSize, func(h *batchHeader) error {
		if h.offset != end {
			t.Fatalf("a batch of offset %d at %d", h.offset, end)
		}
		want := h.encode(salt)
		if at := int(end - PageSize); at+len(want) > len(data) || !bytes.Equal(data[at:at+len(want)], want) {
			t.Fatalf("a batch that this log never wrote, at %d", end)
		}
		end += h.size()
		return nil
	}))
	return max(end, PageSize)
}

func recoverLog(dir, path string) ([]byte, error) {
	fd, err := openat(-100, dir, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.NewFile(uintptr(fd), dir).Close() }()
	l, err := openLog(fd, 42, func(Op) error { return nil }, newMemIndex())
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := l.recover(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// TestLogVersions: there are no versions below 1, and those above ours are not read.
func TestLogVersions(t *testing.T) {
	for version, want := range map[uint32]error{0: ErrDamaged, logVersion: nil, logVersion + 1: ErrVersion} {
		h := logHeader{epoch: 3, salt: 7}
		b := h.encode()
		le := binary.LittleEndian
		le.PutUint32(b[8:], version)
		le.PutUint32(b[32:], 0)
		le.PutUint32(b[32:], checksum(h.salt, b))
		if _, err := decodeLogHeader(b); !errors.Is(err, want) {
			t.Errorf("version %d: %v, want %v", version, err, want)
		}
	}
}

package snapshot

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/snapfs/snapfs/cow"
)

// The file STORE/format says what the directory is. It is text, five lines, written once:
//
//	snapfs store
//	version 1
//	page_size 4096
//	uuid 6ba7b810-9dad-41d1-80b4-00c04fd430c8
//	crc32c 1a2b3c4d
//
// The checksum (CRC-32C, hexadecimal) is over the bytes before its line. A version that is not known is refused: it counts up when an
// older snapfs could misread what is in the store. The parts have versions of their own: meta/ in its first mark, undo logs in their headers.
const (
	formatFile    = "format"
	formatTitle   = "snapfs store"
	formatVersion = 1
	mostFormat    = 4096
)

// storeFormat is the decoded file.
type storeFormat struct {
	version, pageSize int
	uuid              string
}

func (f storeFormat) encode() []byte {
	s := fmt.Sprintf("%s\nversion %d\npage_size %d\nuuid %s\n", formatTitle, f.version, f.pageSize, f.uuid)
	return fmt.Appendf([]byte(s), "crc32c %08x\n", crc32.Checksum([]byte(s), crc32.MakeTable(crc32.Castagnoli)))
}

// errNoStore says that a directory is no store.
var errNoStore = errors.New("not a snapfs store")

func decodeFormat(b []byte) (f storeFormat, err error) {
	if !strings.HasPrefix(string(b), formatTitle+"\n") {
		return f, errNoStore
	}
	lines := strings.SplitAfter(string(b), "\n")
	field := func(i int, name string) (value string) {
		if i < len(lines) && strings.HasSuffix(lines[i], "\n") {
			value, _ = strings.CutPrefix(strings.TrimSuffix(lines[i], "\n"), name+" ")
		}
		return value
	}
	version, err := strconv.Atoi(field(1, "version"))
	if err != nil {
		return f, fmt.Errorf("%s: no version: %w", formatFile, ErrDamaged)
	}
	if version < 1 {
		return f, fmt.Errorf("%s: version %d: %w", formatFile, version, ErrDamaged)
	}
	if version > formatVersion {
		return f, fmt.Errorf("the store has format %d, this snapfs knows formats up to %d: %w", version, formatVersion, ErrNewer)
	}
	f.version, f.uuid = version, field(3, "uuid")
	if f.pageSize, err = strconv.Atoi(field(2, "page_size")); err != nil {
		return f, fmt.Errorf("%s: no page size: %w", formatFile, ErrDamaged)
	}
	if string(b) != string(f.encode()) {
		return f, fmt.Errorf("%s: bad checksum: %w", formatFile, ErrDamaged)
	}
	return f, nil
}

// readFormat reads the format of the store in dir; errNoStore if it has none.
func readFormat(dir string) (f storeFormat, err error) {
	file, err := openPlain(filepath.Join(dir, formatFile), os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return f, errNoStore
	}
	if err != nil {
		return f, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, mostFormat))
	if err != nil {
		return f, err
	}
	if f, err = decodeFormat(b); err != nil {
		return f, err
	}
	if f.pageSize != cow.PageSize {
		return f, fmt.Errorf("the store has pages of %d bytes, this snapfs of %d: %w", f.pageSize, cow.PageSize, unix.ENOTSUP)
	}
	return f, nil
}

// writeFormat makes dir a store: with the format in place, all at once, or not.
func writeFormat(dir string) error {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	uuid := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	temp := filepath.Join(dir, formatFile+".new")
	f, err := openPlain(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(storeFormat{formatVersion, cow.PageSize, uuid}.encode())
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, filepath.Join(dir, formatFile))
	}
	if err != nil {
		_ = os.Remove(temp)
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

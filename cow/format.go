package cow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// This file is the one place that defines what an undo log looks like. All numbers are little endian, all offsets
// multiples of PageSize.
//
//	undo log   := log header (1 page) | batch | batch | ...
//	batch      := batch header (1 or more pages) | pages that are not zero, in the order of the entries
//
//	log header:   0 magic "snapUNDO" | 8 version u32 | 12 page size u32 | 16 epoch u64 | 24 salt u64 | 32 crc u32 | zeros
//	batch header: 0 magic "snapBTCH" | 8 salt u64 | 16 offset of this batch u64 | 24 synced u64 | 32 count u32 |
//	              36 header pages u32 | 40 data pages u32 | 44 crc u32 | 48 zeros | 64 entries
//	entry:        0 content u64 | 8 page u64 | 16 crc u32 | 20 flags u32 (bit 0: the page is all zero, no data)
//
// Every CRC is CRC-32C, starting from the log's salt, so that neither an old log's blocks nor a batch of another
// place can pass for a batch of this log. A header's CRC covers the whole header with the CRC field as zero.
// "synced" is the length up to which the log was known to be durable when the batch was written: a bad batch
// below a later batch's synced is damage, one above it is the torn end of a log that was being written.
const (
	logVersion = 1

	logMagic   = "snapUNDO"
	batchMagic = "snapBTCH"

	batchFixed = 64
	entrySize  = 24

	flagZero = 1

	// maxBatchEntries bounds the memory that reading a batch header takes.
	maxBatchEntries = 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errTorn marks bytes that are no batch of this log: its end, or damage.
var errTorn = errors.New("not a valid batch")

// ErrVersion is wrapped by the error about a log that a newer snapfs wrote.
var ErrVersion = errors.New("written by a newer version of snapfs")

// ErrDamaged is wrapped by errors about bytes that fail their checksum.
var ErrDamaged = errors.New("damaged")

// checksum returns the CRC-32C of b, salted for one log.
func checksum(salt uint64, b []byte) uint32 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], salt)
	return crc32.Update(crc32.Checksum(s[:], castagnoli), castagnoli, b)
}

type logHeader struct {
	epoch Epoch
	salt  uint64
}

func (h logHeader) encode() []byte {
	b := make([]byte, PageSize)
	copy(b, logMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], logVersion)
	le.PutUint32(b[12:], PageSize)
	le.PutUint64(b[16:], uint64(h.epoch))
	le.PutUint64(b[24:], h.salt)
	le.PutUint32(b[32:], checksum(h.salt, b))
	return b
}

func decodeLogHeader(b []byte) (logHeader, error) {
	le := binary.LittleEndian
	if len(b) < PageSize || string(b[:8]) != logMagic {
		return logHeader{}, fmt.Errorf("no undo log header: %w", ErrDamaged)
	}
	if v := le.Uint32(b[8:]); v > logVersion {
		return logHeader{}, fmt.Errorf("undo log format %d: %w", v, ErrVersion)
	}
	if le.Uint32(b[8:]) == 0 {
		return logHeader{}, fmt.Errorf("undo log format 0: %w", ErrDamaged)
	}
	h := logHeader{epoch: Epoch(le.Uint64(b[16:])), salt: le.Uint64(b[24:])}
	sum := le.Uint32(b[32:])
	c := append([]byte(nil), b[:PageSize]...)
	le.PutUint32(c[32:], 0)
	if checksum(h.salt, c) != sum || le.Uint32(b[12:]) != PageSize {
		return logHeader{}, fmt.Errorf("undo log header checksum: %w", ErrDamaged)
	}
	return h, nil
}

// entry describes one page of a batch.
type entry struct {
	id   ID
	page uint64
	crc  uint32
	zero bool
}

// batchHeader describes one batch. dataPages is the number of entries that are not zero.
type batchHeader struct {
	offset  int64
	synced  int64
	entries []entry
}

// headerPages returns how many pages the header of a batch with n entries takes.
func headerPages(n int) int { return (batchFixed + n*entrySize + PageSize - 1) / PageSize }

// size returns the length of the whole batch in bytes.
func (h *batchHeader) size() int64 {
	return int64(headerPages(len(h.entries))+h.dataPages()) * PageSize
}

func (h *batchHeader) dataPages() int {
	n := 0
	for _, e := range h.entries {
		if !e.zero {
			n++
		}
	}
	return n
}

// places returns where the batch's pages are.
func (h *batchHeader) places(log Epoch) []Place {
	block := uint64(h.offset/PageSize) + uint64(headerPages(len(h.entries)))
	out := make([]Place, len(h.entries))
	for i, e := range h.entries {
		out[i] = Place{ID: e.id, Page: e.page, Log: log, Zero: e.zero}
		if !e.zero {
			out[i].Block, out[i].CRC = block, e.crc
			block++
		}
	}
	return out
}

// encode returns the header's pages.
func (h *batchHeader) encode(salt uint64) []byte {
	pages := headerPages(len(h.entries))
	b := make([]byte, pages*PageSize)
	le := binary.LittleEndian
	copy(b, batchMagic)
	le.PutUint64(b[8:], salt)
	le.PutUint64(b[16:], uint64(h.offset))
	le.PutUint64(b[24:], uint64(h.synced))
	le.PutUint32(b[32:], uint32(len(h.entries)))
	le.PutUint32(b[36:], uint32(pages))
	le.PutUint32(b[40:], uint32(h.dataPages()))
	for i, e := range h.entries {
		x := b[batchFixed+i*entrySize:]
		le.PutUint64(x, uint64(e.id))
		le.PutUint64(x[8:], e.page)
		le.PutUint32(x[16:], e.crc)
		if e.zero {
			le.PutUint32(x[20:], flagZero)
		}
	}
	le.PutUint32(b[44:], checksum(salt, b))
	return b
}

// batchHeaderLen returns the length in bytes of the header that begins with page b, if it is one of this log at offset.
func batchHeaderLen(b []byte, salt uint64, offset int64) (int, error) {
	le := binary.LittleEndian
	if len(b) < PageSize || string(b[:8]) != batchMagic || le.Uint64(b[8:]) != salt || le.Uint64(b[16:]) != uint64(offset) {
		return 0, errTorn
	}
	n := le.Uint32(b[32:])
	if n == 0 || n > maxBatchEntries || le.Uint32(b[36:]) != uint32(headerPages(int(n))) {
		return 0, errTorn
	}
	return headerPages(int(n)) * PageSize, nil
}

// decodeBatchHeader decodes the header in b, of the length that batchHeaderLen gave.
func decodeBatchHeader(b []byte, salt uint64, offset int64) (*batchHeader, error) {
	n, err := batchHeaderLen(b, salt, offset)
	if err != nil || len(b) != n {
		return nil, errTorn
	}
	le := binary.LittleEndian
	sum := le.Uint32(b[44:])
	c := append([]byte(nil), b...)
	le.PutUint32(c[44:], 0)
	if checksum(salt, c) != sum {
		return nil, errTorn
	}
	h := &batchHeader{offset: offset, synced: int64(le.Uint64(b[24:]))}
	h.entries = make([]entry, le.Uint32(b[32:]))
	for i := range h.entries {
		x := b[batchFixed+i*entrySize:]
		h.entries[i] = entry{ID(le.Uint64(x)), le.Uint64(x[8:]), le.Uint32(x[16:]), le.Uint32(x[20:])&flagZero != 0}
	}
	if uint32(h.dataPages()) != le.Uint32(b[40:]) {
		return nil, errTorn
	}
	return h, nil
}

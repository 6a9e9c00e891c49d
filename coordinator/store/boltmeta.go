package store

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
)

// The layout of a bbolt meta page: a page header of 16 bytes, then magic, version,
// page size, flags (4 bytes each), root bucket (16), freelist, high-water page,
// transaction, checksum (8 each); in the byte order of the machine.
const (
	boltMagic      = 0xED0CDAED
	boltMetaOffset = 16
	boltMetaBytes  = 64
)

// boltLength is how long the file must be for its newest valid meta page, so that
// nothing reads past its end. Either meta page may be torn, not both.
func boltLength(r io.ReaderAt) (int64, error) {
	var want int64
	var newest uint64
	found := false
	for _, at := range metaOffsets(r) {
		m := make([]byte, boltMetaBytes)
		if _, err := r.ReadAt(m, at+boltMetaOffset); err != nil {
			continue
		}
		size, tx, ok := readMeta(m)
		if ok && (!found || tx >= newest) {
			want, newest, found = size, tx, true
		}
	}
	if !found {
		return 0, errors.New("neither meta page is valid")
	}
	return want, nil
}

// metaOffsets are the places of the two meta pages: the second is one page in, and
// the page size is whatever it was where the file was made.
func metaOffsets(r io.ReaderAt) []int64 {
	m := make([]byte, boltMetaBytes)
	if _, err := r.ReadAt(m, boltMetaOffset); err == nil {
		if _, _, ok := readMeta(m); ok {
			return []int64{0, int64(binary.NativeEndian.Uint32(m[8:]))}
		}
	}
	out := []int64{}
	for page := int64(1024); page <= 1<<16; page *= 2 {
		out = append(out, page)
	}
	return out
}

func readMeta(m []byte) (size int64, tx uint64, ok bool) {
	order := binary.NativeEndian
	if order.Uint32(m) != boltMagic {
		return 0, 0, false
	}
	sum := fnv.New64a()
	sum.Write(m[:boltMetaBytes-8])
	if order.Uint64(m[boltMetaBytes-8:]) != sum.Sum64() {
		return 0, 0, false
	}
	page, pages := order.Uint32(m[8:]), order.Uint64(m[40:])
	if page == 0 || page > 1<<16 || pages > 1<<40 {
		return 0, 0, false
	}
	return int64(page) * int64(pages), order.Uint64(m[48:]), true
}

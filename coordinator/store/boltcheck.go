package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts its file: on a damaged one it follows wild offsets in mapped memory,
// partly in goroutines of its own, where nothing can catch the fault. So the log file is
// read once by ordinary means before bbolt gets it: every page that the newest meta
// page reaches must be where, and of the shape, that it should be.
//
// The layout, in the byte order of the machine:
//
//	page     id(8) flags(2) count(2) overflow(4), then count elements
//	branch   element: pos(4) key size(4) page(8); pos counts from the element
//	leaf     element: flags(4) pos(4) key size(4) value size(4)
//	bucket   a leaf value with flag 1: root page(8) sequence(8); root 0: a page follows
//	meta     magic, version, page size, flags (4 each), root bucket(16), freelist,
//	         high-water page, transaction, checksum (8 each)
const (
	boltMagic  = 0xED0CDAED
	boltHeader = 16
	boltMeta   = 64
	boltBranch = 1
	boltLeaf   = 2
	// boltDepth bounds branches over branches; real files have two or three.
	boltDepth = 32
)

var native = binary.NativeEndian

// boltFile is a file under inspection.
type boltFile struct {
	r     io.ReaderAt
	page  int64
	pages uint64
	seen  map[uint64]bool
}

// checkBoltFile refuses, with ErrCorrupt, a file that bbolt could not read safely. An
// absent or empty file is fine.
func checkBoltFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	if err := checkBoltPages(f, st.Size()); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	return nil
}

func checkBoltPages(r io.ReaderAt, size int64) error {
	meta, err := newestMeta(r)
	if err != nil {
		return err
	}
	b := &boltFile{r: r, page: int64(native.Uint32(meta[8:])), pages: native.Uint64(meta[40:]), seen: map[uint64]bool{0: true, 1: true}}
	if b.pages > uint64(size/b.page) {
		return fmt.Errorf("it has %d bytes, its meta page counts %d pages of %d", size, b.pages, b.page)
	}
	return b.tree(native.Uint64(meta[16:]), nil, nil, 0)
}

// newestMeta finds the valid meta page of the last transaction. Either may be torn,
// not both. One that cannot be read is an error: it may be the newest.
func newestMeta(r io.ReaderAt) ([]byte, error) {
	newest, err := readMeta(r, 0)
	if err != nil {
		return nil, err
	}
	for _, at := range metaOffsets(newest) {
		m, err := readMeta(r, at)
		if err != nil {
			return nil, err
		}
		if newest == nil || m != nil && native.Uint64(m[48:]) > native.Uint64(newest[48:]) {
			newest = m
		}
	}
	if newest == nil {
		return nil, errors.New("neither meta page is valid")
	}
	return newest, nil
}

// readMeta reads the meta page at an offset; nil if none that is valid stands there.
func readMeta(r io.ReaderAt, at int64) ([]byte, error) {
	m := make([]byte, boltMeta)
	_, err := r.ReadAt(m, at+boltHeader)
	switch {
	case errors.Is(err, io.EOF) || err == nil && !validMeta(m):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read meta page: %w", err)
	}
	return m, nil
}

// metaOffsets are the places where the second meta page may be: it is one page in, and
// the page size is whatever it was where the file was made.
func metaOffsets(first []byte) []int64 {
	if first != nil {
		return []int64{int64(native.Uint32(first[8:]))}
	}
	var out []int64
	for page := int64(1024); page <= 1<<16; page *= 2 {
		out = append(out, page)
	}
	return out
}

func validMeta(m []byte) bool {
	sum := fnv.New64a()
	_, _ = sum.Write(m[:boltMeta-8])
	page := native.Uint32(m[8:])
	return native.Uint32(m) == boltMagic && native.Uint64(m[boltMeta-8:]) == sum.Sum64() &&
		page >= 512 && page <= 1<<16 && native.Uint64(m[40:]) < 1<<40
}

// read gives a page with its overflow pages.
func (b *boltFile) read(id uint64) ([]byte, error) {
	if id < 2 || id >= b.pages || b.seen[id] {
		return nil, fmt.Errorf("page %d of %d is referred to", id, b.pages)
	}
	head := make([]byte, boltHeader)
	if _, err := b.r.ReadAt(head, int64(id)*b.page); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	more := uint64(native.Uint32(head[12:]))
	if native.Uint64(head) != id || id+more >= b.pages {
		return nil, fmt.Errorf("page %d says it is page %d with %d more", id, native.Uint64(head), more)
	}
	for i := id; i <= id+more; i++ {
		if b.seen[i] {
			return nil, fmt.Errorf("page %d is referred to twice", i)
		}
		b.seen[i] = true
	}
	p := make([]byte, int64(more+1)*b.page)
	if _, err := b.r.ReadAt(p, int64(id)*b.page); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return p, nil
}

// tree checks the pages below id: their keys lie in [low, high), nil for no bound.
func (b *boltFile) tree(id uint64, low, high []byte, depth int) error {
	if depth > boltDepth {
		return fmt.Errorf("page %d lies under %d others", id, depth)
	}
	p, err := b.read(id)
	if err != nil {
		return err
	}
	return b.content(id, p, low, high, depth)
}

// content checks one page, or the page inside a bucket's value.
func (b *boltFile) content(id uint64, p []byte, low, high []byte, depth int) error {
	flags, count := native.Uint16(p[8:]), int(native.Uint16(p[10:]))
	if flags != boltBranch && flags != boltLeaf {
		return fmt.Errorf("page %d is of kind %#x", id, flags)
	}
	if boltHeader+count*16 > len(p) || (flags == boltBranch && count == 0) {
		return fmt.Errorf("page %d has %d elements in %d bytes", id, count, len(p))
	}
	keys := make([][]byte, count+1)
	keys[count] = high
	values := make([][]byte, count)
	for i := range count {
		e := p[boltHeader+16*i:]
		pos, ksize, vsize := uint64(native.Uint32(e)), uint64(native.Uint32(e[4:])), uint64(0)
		if flags == boltLeaf {
			pos, ksize, vsize = ksize, uint64(native.Uint32(e[8:])), uint64(native.Uint32(e[12:]))
		}
		if pos+ksize+vsize > uint64(len(e)) || pos < 16 {
			return fmt.Errorf("element %d of page %d lies outside it", i, id)
		}
		keys[i], values[i] = e[pos:pos+ksize], e[pos+ksize:pos+ksize+vsize]
		if i > 0 && bytes.Compare(keys[i-1], keys[i]) >= 0 || (low != nil && bytes.Compare(keys[i], low) < 0) || (high != nil && bytes.Compare(keys[i], high) >= 0) {
			return fmt.Errorf("element %d of page %d is out of order", i, id)
		}
	}
	for i := range count {
		e := p[boltHeader+16*i:]
		var err error
		switch {
		case flags == boltBranch:
			err = b.tree(native.Uint64(e[8:]), keys[i], keys[i+1], depth+1)
		case native.Uint32(e) == 1:
			err = b.bucket(id, values[i], depth)
		case native.Uint32(e) != 0:
			err = fmt.Errorf("element %d of page %d has flags %#x", i, id, native.Uint32(e))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *boltFile) bucket(id uint64, v []byte, depth int) error {
	switch {
	case len(v) < 16:
		return fmt.Errorf("a bucket in page %d has %d bytes", id, len(v))
	case native.Uint64(v) != 0:
		return b.tree(native.Uint64(v), nil, nil, depth+1)
	case len(v) < 16+boltHeader || depth > boltDepth || native.Uint16(v[16+8:]) != boltLeaf:
		return fmt.Errorf("a bucket in page %d holds no leaf page", id)
	}
	return b.content(id, v[16:], nil, nil, depth+1)
}

package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// logFormat is the first byte of a stored entry.
const logFormat = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeLog writes an entry as
//
//	format(1) type(1) term(8) appended unix ns(8, 0 for none) len(4) extensions, data, crc32c(4)
//
// big endian; the checksum is of the index and all that stands before it. bbolt keeps
// no checksum of a page, so this is what tells a damaged entry.
func encodeLog(l *raft.Log) []byte {
	b := make([]byte, 0, 1+1+8+8+4+len(l.Extensions)+len(l.Data)+4)
	b = append(b, logFormat, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, l.Term)
	var ns int64
	if !l.AppendedAt.IsZero() {
		ns = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(ns))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(b, l.Extensions...)
	b = append(b, l.Data...)
	return binary.BigEndian.AppendUint32(b, logSum(l.Index, b))
}

func logSum(index uint64, b []byte) uint32 {
	var k [8]byte
	binary.BigEndian.PutUint64(k[:], index)
	return crc32.Update(crc32.Checksum(k[:], castagnoli), castagnoli, b)
}

// storedSum is the checksum at the end of an encoded entry; 0 for none.
func storedSum(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b[len(b)-4:])
}

// decodeLog is the inverse of encodeLog; nothing in l refers to b afterwards. The
// error wraps ErrCorrupt.
func decodeLog(index uint64, b []byte, l *raft.Log) error {
	const head = 1 + 1 + 8 + 8 + 4
	if len(b) < head+4 {
		return fmt.Errorf("%w: log entry %d has %d bytes", ErrCorrupt, index, len(b))
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if logSum(index, body) != sum {
		return fmt.Errorf("%w: log entry %d has a wrong checksum", ErrCorrupt, index)
	}
	if body[0] != logFormat {
		return fmt.Errorf("%w: log entry %d has format %d, this build reads %d", ErrCorrupt, index, body[0], logFormat)
	}
	ext := uint64(binary.BigEndian.Uint32(body[18:]))
	if uint64(len(body)-head) < ext {
		return fmt.Errorf("%w: log entry %d: extensions of %d bytes do not fit", ErrCorrupt, index, ext)
	}
	*l = raft.Log{Index: index, Type: raft.LogType(body[1]), Term: binary.BigEndian.Uint64(body[2:])}
	if ns := int64(binary.BigEndian.Uint64(body[10:])); ns != 0 {
		l.AppendedAt = time.Unix(0, ns)
	}
	rest := append([]byte(nil), body[head:]...)
	if ext > 0 {
		l.Extensions = rest[:ext:ext]
	}
	l.Data = rest[ext:]
	return nil
}

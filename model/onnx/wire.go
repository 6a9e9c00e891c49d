package onnx

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// Limits bounds what Read accepts. Zero fields mean the defaults.
type Limits struct {
	MaxBytes  int64 // of the file; 0 means 1 GiB
	MaxParams int64 // numbers in all constants together; 0 means 1<<28
}

func (l Limits) withDefaults() Limits {
	if l.MaxBytes == 0 {
		l.MaxBytes = 1 << 30
	}
	if l.MaxParams == 0 {
		l.MaxParams = 1 << 28
	}
	return l
}

const (
	maxMessages = 1 << 18 // nodes, attributes, tensors, dimensions, … of one file
	maxStrings  = 1 << 20 // names and other pieces of bytes
	maxDepth    = 12
)

// decode parses the file after checking that the parsed form stays in proportion
// to its bytes: an empty message takes two bytes in the file and a hundred in
// memory.
func decode(b []byte, l Limits) (*onnxpb.ModelProto, error) {
	if int64(len(b)) > l.MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes: want at most %d", ErrTooLarge, len(b), l.MaxBytes)
	}
	m := &onnxpb.ModelProto{}
	var c census
	if err := c.count(b, m.ProtoReflect().Descriptor(), 0); err != nil {
		return nil, err
	}
	if c.numbers > l.MaxParams {
		return nil, fmt.Errorf("%w: %d numbers: want at most %d", ErrTooLarge, c.numbers, l.MaxParams)
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return m, nil
}

// census counts what parsing would allocate.
type census struct {
	messages, strings int
	numbers           int64
}

func (c *census) count(b []byte, d protoreflect.MessageDescriptor, depth int) error {
	if c.messages++; c.messages > maxMessages || c.strings > maxStrings {
		return fmt.Errorf("%w: more than %d messages or %d strings", ErrTooLarge, maxMessages, maxStrings)
	}
	if depth > maxDepth {
		return fmt.Errorf("%w: nested more than %d deep", ErrTooLarge, maxDepth)
	}
	fields := d.Fields()
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", ErrFormat, protowire.ParseError(n))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return fmt.Errorf("%w: %w", ErrFormat, protowire.ParseError(n))
		}
		value := b[:n]
		b = b[n:]
		f := fields.ByNumber(num)
		if f == nil {
			continue
		}
		if typ != protowire.BytesType {
			if f.IsList() {
				c.numbers++
			}
			continue
		}
		inner, _ := protowire.ConsumeBytes(value)
		switch f.Kind() {
		case protoreflect.MessageKind:
			if err := c.count(inner, f.Message(), depth+1); err != nil {
				return err
			}
		case protoreflect.StringKind, protoreflect.BytesKind:
			c.strings++
		default: // packed: a number takes at least one byte
			c.numbers += int64(len(inner)) / leastBytes(f.Kind())
		}
	}
	return nil
}

// leastBytes is the fewest bytes a number of kind k takes in a packed list.
func leastBytes(k protoreflect.Kind) int64 {
	switch k {
	case protoreflect.FloatKind:
		return 4
	case protoreflect.DoubleKind:
		return 8
	}
	return 1
}

package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// attributes reads the attributes of a node and remembers which were asked for,
// so that one that nobody understands is refused and not ignored. The first
// error sticks.
type attributes struct {
	byName map[string]*onnxpb.AttributeProto
	asked  map[string]bool
	err    error
}

func newAttributes(n *onnxpb.NodeProto) (*attributes, error) {
	a := &attributes{byName: map[string]*onnxpb.AttributeProto{}, asked: map[string]bool{}}
	for _, p := range n.Attribute {
		if a.byName[p.Name] != nil {
			return nil, fmt.Errorf("%w: attribute %q twice", ErrFormat, p.Name)
		}
		if p.RefAttrName != "" {
			return nil, fmt.Errorf("%w: attribute %q refers to a function's", ErrUnsupported, p.Name)
		}
		a.byName[p.Name] = p
	}
	return a, nil
}

// get finds an attribute of the wanted type; nil if it is absent.
func (a *attributes) get(name string, want onnxpb.AttributeProto_AttributeType) *onnxpb.AttributeProto {
	a.asked[name] = true
	p := a.byName[name]
	if p == nil {
		return nil
	}
	if p.Type != want && p.Type != onnxpb.AttributeProto_UNDEFINED {
		a.fail("attribute %q is of type %v: want %v", name, p.Type, want)
		return nil
	}
	return p
}

func (a *attributes) fail(format string, args ...any) {
	if a.err == nil {
		a.err = fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
}

func (a *attributes) has(name string) bool { return a.byName[name] != nil }

func (a *attributes) int(name string, absent int) int {
	p := a.get(name, onnxpb.AttributeProto_INT)
	if p == nil {
		return absent
	}
	if p.I > math.MaxInt32 || p.I < math.MinInt32 {
		a.fail("attribute %q is %d: want less", name, p.I)
		return absent
	}
	return int(p.I)
}

func (a *attributes) float(name string, absent float32) float32 {
	if p := a.get(name, onnxpb.AttributeProto_FLOAT); p != nil {
		return p.F
	}
	return absent
}

func (a *attributes) string(name, absent string) string {
	if p := a.get(name, onnxpb.AttributeProto_STRING); p != nil {
		return string(p.S)
	}
	return absent
}

// ints gives a list of n numbers, or of any length if n is negative.
func (a *attributes) ints(name string, n int, absent []int) []int {
	p := a.get(name, onnxpb.AttributeProto_INTS)
	if p == nil {
		return absent
	}
	if n >= 0 && len(p.Ints) != n {
		a.fail("attribute %q is %v: want %d numbers", name, p.Ints, n)
		return absent
	}
	out := make([]int, len(p.Ints))
	for i, v := range p.Ints {
		if v > math.MaxInt32 || v < math.MinInt32 {
			a.fail("attribute %q is %v: want less", name, p.Ints)
			return absent
		}
		out[i] = int(v)
	}
	return out
}

// finish gives the first error, or refuses attributes that were never asked for.
func (a *attributes) finish() error {
	if a.err != nil {
		return a.err
	}
	var left []string
	for name := range a.byName {
		if !a.asked[name] {
			left = append(left, name)
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		return fmt.Errorf("%w: attribute %q", ErrUnsupported, left[0])
	}
	return nil
}

// only refuses an attribute whose value is not the one that is supported.
func (a *attributes) only(name string, supported int) {
	if v := a.int(name, supported); v != supported && a.err == nil {
		a.err = fmt.Errorf("%w: attribute %q is %d: want %d", ErrUnsupported, name, v, supported)
	}
}

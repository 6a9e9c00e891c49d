package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Sentinels of the structure's codec.
var (
	// ErrStructure: the JSON is not a structure; the message says where.
	ErrStructure = errors.New("invalid structure")
	// ErrStructureVersion: the JSON is of a version that this build cannot read.
	ErrStructureVersion = errors.New("unknown structure version")
)

// Bounds of what UnmarshalStructure accepts.
const (
	MaxStructureBytes = 1 << 24
	MaxLayers         = 1 << 16
)

const structureVersion = 1

type structureJSON struct {
	Version int               `json:"version"`
	Name    string            `json:"name,omitempty"`
	Input   Shape             `json:"input"`
	Layers  []layerJSON       `json:"layers"`
	Meta    map[string]string `json:"meta,omitempty"`
}

type layerJSON struct {
	Name   string          `json:"name"`
	Op     string          `json:"op"`
	Inputs []int           `json:"inputs"` // -1 is the graph's input
	Attrs  json.RawMessage `json:"attrs,omitempty"`
}

// MarshalStructure encodes everything of a graph but its parameters as JSON: version,
// name, input, layers and meta. Equal graphs give equal bytes. A structure that
// UnmarshalStructure would refuse is an error, which wraps ErrStructure, ErrGraph or
// ErrShape.
func MarshalStructure(g *Graph) ([]byte, error) {
	if err := checkStructure(g); err != nil {
		return nil, err
	}
	s := structureJSON{Version: structureVersion, Name: g.Name, Input: g.Input, Meta: g.Meta, Layers: make([]layerJSON, len(g.Layers))}
	for i, l := range g.Layers {
		attrs, err := encodeJSON(l.Op)
		if err != nil {
			return nil, fmt.Errorf("%w: layer %q: %w", ErrStructure, l.Name, err)
		}
		if string(attrs) == "{}" {
			attrs = nil
		}
		s.Layers[i] = layerJSON{Name: l.Name, Op: l.Op.Kind(), Inputs: l.Inputs, Attrs: attrs}
	}
	b, err := encodeJSON(s)
	if err == nil && len(b) > MaxStructureBytes {
		err = fmt.Errorf("%w: %d bytes: want at most %d", ErrStructure, len(b), MaxStructureBytes)
	}
	return b, err
}

// UnmarshalStructure decodes what MarshalStructure wrote, into a graph without
// parameters. It is strict: unknown fields, operators and attributes, and data after
// the end are errors, and so is any graph whose shapes do not fit. Errors wrap
// ErrStructure, ErrStructureVersion, ErrGraph or ErrShape.
func UnmarshalStructure(b []byte) (*Graph, error) {
	if len(b) > MaxStructureBytes {
		return nil, fmt.Errorf("%w: %d bytes: want at most %d", ErrStructure, len(b), MaxStructureBytes)
	}
	var v struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStructure, err)
	}
	if v.Version != structureVersion {
		return nil, fmt.Errorf("%w: %d: want %d", ErrStructureVersion, v.Version, structureVersion)
	}
	var s structureJSON
	if err := decodeJSON(b, &s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStructure, err)
	}
	g := &Graph{Name: s.Name, Input: s.Input, Meta: s.Meta, Layers: make([]Layer, len(s.Layers))}
	for i, l := range s.Layers {
		op, err := decodeOp(l.Op, l.Attrs)
		if err != nil {
			return nil, fmt.Errorf("%w: layer %q: %w", ErrStructure, l.Name, err)
		}
		g.Layers[i] = Layer{Name: l.Name, Op: op, Inputs: l.Inputs}
	}
	if err := checkStructure(g); err != nil {
		return nil, err
	}
	return g, nil
}

func checkStructure(g *Graph) error {
	if n := len(g.Layers); n == 0 || n > MaxLayers {
		return fmt.Errorf("%w: %d layers: want 1 to %d", ErrStructure, n, MaxLayers)
	}
	text := map[string]string{"name": g.Name}
	for i, l := range g.Layers {
		text[fmt.Sprintf("layers[%d].name", i)] = l.Name
	}
	for k, v := range g.Meta {
		text[fmt.Sprintf("meta %q", k)] = k + v
	}
	for where, s := range text {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%w: %s: %q is not UTF-8", ErrStructure, where, s)
		}
	}
	_, err := g.Shapes()
	return err
}

var decoders = map[string]func([]byte) (Op, error){
	Conv{}.Kind():          decode[Conv],
	Dense{}.Kind():         decode[Dense],
	MaxPool{}.Kind():       decode[MaxPool],
	AvgPool{}.Kind():       decode[AvgPool],
	GlobalAvgPool{}.Kind(): decode[GlobalAvgPool],
	BatchNorm{}.Kind():     decode[BatchNorm],
	Softmax{}.Kind():       decode[Softmax],
	Add{}.Kind():           decode[Add],
	Concat{}.Kind():        decode[Concat],
	Flatten{}.Kind():       decode[Flatten],
	Reshape{}.Kind():       decode[Reshape],
	Pad{}.Kind():           decode[Pad],
	Dropout{}.Kind():       decode[Dropout],
}

func decode[T Op](attrs []byte) (Op, error) {
	var op T
	err := decodeJSON(attrs, &op)
	return op, err
}

func decodeOp(kind string, attrs []byte) (Op, error) {
	if len(attrs) == 0 {
		attrs = []byte("{}")
	}
	if f, ok := decoders[kind]; ok {
		return f(attrs)
	}
	a := Activation{Func: Func(kind)}
	if a.check() != nil {
		return nil, fmt.Errorf("unknown operator %q", kind)
	}
	err := decodeJSON(attrs, &a)
	return a, err
}

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func decodeJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the end")
	}
	return nil
}

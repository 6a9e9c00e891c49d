package zoo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// LayerSpec is one layer of a job's own network. A field that its operator does not
// use must be left out.
type LayerSpec struct {
	// Op is conv, depthwise-conv, dense, max-pool, avg-pool, global-avg-pool, batch-norm,
	// relu, relu6, leaky-relu, sigmoid, tanh, hard-swish, softmax, add, concat, flatten or
	// dropout.
	Op string `json:"op" yaml:"op"`
	// Name is unique; empty: made from the operator and a number. What reads the layer by
	// this name reads it after Norm and Activation.
	Name string `json:"name,omitempty" yaml:"name"`
	// From names what the layer reads, "input" being the network's input; empty: the layer
	// before it. add wants two names, concat two or more.
	From []string `json:"from,omitempty" yaml:"from"`

	Out        int     `json:"out,omitempty" yaml:"out"`               // of conv: channels; of dense: features, 0: the classes
	Kernel     Pair    `json:"kernel,omitzero" yaml:"kernel"`          // of conv, depthwise-conv and pools
	Stride     Pair    `json:"stride,omitzero" yaml:"stride"`          // 0: 1, of pools the kernel
	Dilation   Pair    `json:"dilation,omitzero" yaml:"dilation"`      // 0: 1
	Padding    string  `json:"padding,omitempty" yaml:"padding"`       // "valid", as if empty, or "same": ceil(input/stride)
	Groups     int     `json:"groups,omitempty" yaml:"groups"`         // of conv; 0: 1
	Bias       *bool   `json:"bias,omitempty" yaml:"bias"`             // of conv, depthwise-conv, dense; unset: true, or false before Norm
	Norm       bool    `json:"norm,omitempty" yaml:"norm"`             // of conv, depthwise-conv, dense: batch normalisation after it
	Activation string  `json:"activation,omitempty" yaml:"activation"` // of these, batch-norm and add: an activation after it
	Alpha      float32 `json:"alpha,omitempty" yaml:"alpha"`           // of leaky-relu: the slope below 0; 0: 0.01
	Rate       float32 `json:"rate,omitempty" yaml:"rate"`             // of dropout
}

// Pair is height and width. As text it is one number for both, or a list of two.
type Pair [2]int

// UnmarshalJSON reads 3 or [3, 5].
func (p *Pair) UnmarshalJSON(b []byte) error {
	return p.decode(func(v any) error { return json.Unmarshal(b, v) })
}

// UnmarshalYAML reads 3 or [3, 5].
func (p *Pair) UnmarshalYAML(unmarshal func(any) error) error { return p.decode(unmarshal) }

func (p *Pair) decode(unmarshal func(any) error) error {
	var one int
	if unmarshal(&one) == nil {
		*p = Pair{one, one}
		return nil
	}
	var two []int
	if unmarshal(&two) != nil || len(two) != 2 {
		return fmt.Errorf("%w: want a number, or a list of two: height and width", ErrLayers)
	}
	*p = Pair{two[0], two[1]}
	return nil
}

func (p Pair) or(d Pair) [2]int {
	if p == (Pair{}) {
		return d
	}
	return p
}

// MaxSpecs bounds the layers of a job's own network.
const MaxSpecs = 1000

// fields lists, by operator, the fields that it uses beside op, name and from.
var fields = map[string]string{
	"conv":            "out kernel stride dilation padding groups bias norm activation",
	"depthwise-conv":  "kernel stride dilation padding bias norm activation",
	"dense":           "out bias norm activation",
	"max-pool":        "kernel stride padding",
	"avg-pool":        "kernel stride padding",
	"global-avg-pool": "",
	"batch-norm":      "activation",
	"leaky-relu":      "alpha",
	"softmax":         "",
	"add":             "activation",
	"concat":          "",
	"flatten":         "",
	"dropout":         "rate",
}

var plainActivations = []string{string(model.ReLU), string(model.ReLU6), string(model.Sigmoid), string(model.Tanh), string(model.HardSwish)}

// FromLayers makes a network from a list of layers, as Build does for one of the zoo's.
// The last layer must give as many values as there are classes, as logits. Errors wrap
// ErrLayers or ErrInput and name the layer and the field.
func FromLayers(specs []LayerSpec, input model.Shape, classes int, seed uint64) (*model.Graph, error) {
	if n := len(specs); n == 0 || n > MaxSpecs {
		return nil, fmt.Errorf("%w: %d layers: want 1 to %d", ErrLayers, n, MaxSpecs)
	}
	if classes < 1 || classes > MaxClasses {
		return nil, fmt.Errorf("%w: %d classes: want 1 to %d", ErrInput, classes, MaxClasses)
	}
	b, err := newBuilder("layers", input)
	if err != nil {
		return nil, err
	}
	c := &composer{builder: b, classes: classes, names: map[string]int{"input": model.Input}}
	for i, s := range specs {
		if err := c.layer(s); err != nil {
			return nil, fmt.Errorf("%w: layers[%d] %s: %w", ErrLayers, i, strings.TrimSpace(s.Op+" "+s.Name), err)
		}
	}
	if specs[len(specs)-1].Op == "softmax" {
		return nil, fmt.Errorf("%w: layers[%d]: softmax at the end: leave it out, the loss has it", ErrLayers, len(specs)-1)
	}
	if out := b.out(b.last()); !out.Equal(model.Shape{classes}) {
		return nil, fmt.Errorf("%w: the last layer gives %v: want the %d classes", ErrLayers, []int(out), classes)
	}
	return b.graph(seed)
}

type composer struct {
	*builder
	classes int
	names   map[string]int // what a name stands for in From
}

// set names the fields of s that are not zero.
func (s *LayerSpec) set() []string {
	var out []string
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"out", s.Out != 0}, {"kernel", s.Kernel != Pair{}}, {"stride", s.Stride != Pair{}}, {"dilation", s.Dilation != Pair{}},
		{"padding", s.Padding != ""}, {"groups", s.Groups != 0}, {"bias", s.Bias != nil}, {"norm", s.Norm},
		{"activation", s.Activation != ""}, {"alpha", s.Alpha != 0}, {"rate", s.Rate != 0},
	} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

func (s *LayerSpec) check() error {
	allowed, ok := fields[s.Op]
	if !ok && !slices.Contains(plainActivations, s.Op) {
		return fmt.Errorf("op %q: want one of %s", s.Op, strings.Join(knownOps(), ", "))
	}
	for _, f := range s.set() {
		if !slices.Contains(strings.Fields(allowed), f) {
			return fmt.Errorf("%s: %s has none: leave it out", f, s.Op)
		}
	}
	if s.Padding != "" && s.Padding != "same" && s.Padding != "valid" {
		return fmt.Errorf("padding %q: want same or valid", s.Padding)
	}
	return nil
}

func knownOps() []string {
	out := slices.Clone(plainActivations)
	for op := range fields {
		out = append(out, op)
	}
	slices.Sort(out)
	return out
}

// layer appends what s says: the operator, then its normalisation and activation.
func (c *composer) layer(s LayerSpec) error {
	if err := s.check(); err != nil {
		return err
	}
	inputs, err := c.inputs(s)
	if err != nil {
		return err
	}
	op, err := c.op(s, c.out(inputs[0]))
	if err != nil {
		return err
	}
	name := s.Name
	if name == "" {
		c.count[s.Op]++
		name = fmt.Sprintf("%s%d", s.Op, c.count[s.Op])
	}
	if _, taken := c.names[name]; taken {
		return fmt.Errorf("name %q is taken", name)
	}
	c.named(name, op, inputs...)
	if s.Norm {
		c.named(name+".norm", model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1})
	}
	if s.Activation != "" {
		c.named(name+"."+s.Activation, activation(s.Activation, 0))
	}
	c.names[name] = c.last()
	return c.err
}

func (c *composer) inputs(s LayerSpec) ([]int, error) {
	if len(s.From) == 0 {
		if s.Op == "add" || s.Op == "concat" {
			return nil, fmt.Errorf("from: %s needs the names of two layers", s.Op)
		}
		return []int{c.last()}, nil
	}
	out := make([]int, len(s.From))
	for k, name := range s.From {
		i, ok := c.names[name]
		if !ok {
			return nil, fmt.Errorf("from: %q: want an earlier layer's name, or input", name)
		}
		out[k] = i
	}
	return out, nil
}

// op makes the operator for an input of shape in.
func (c *composer) op(s LayerSpec, in model.Shape) (model.Op, error) {
	switch s.Op {
	case "conv", "depthwise-conv", "max-pool", "avg-pool":
		return windowOp(s, in)
	case "dense":
		out := s.Out
		if out == 0 {
			out = c.classes
		}
		return model.Dense{Out: out, Bias: s.bias()}, nil
	case "global-avg-pool":
		return model.GlobalAvgPool{}, nil
	case "batch-norm":
		return model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1}, nil
	case "softmax":
		return model.Softmax{}, nil
	case "add":
		return model.Add{}, nil
	case "concat":
		return model.Concat{}, nil
	case "flatten":
		return model.Flatten{}, nil
	case "dropout":
		return model.Dropout{Rate: s.Rate}, nil
	}
	return activation(s.Op, s.Alpha), nil
}

// windowOp makes a convolution or a pool.
func windowOp(s LayerSpec, in model.Shape) (model.Op, error) {
	if len(in) != 3 {
		return nil, fmt.Errorf("reads %v: want {height, width, channels}", []int(in))
	}
	if s.Kernel == (Pair{}) {
		return nil, fmt.Errorf("kernel: missing")
	}
	pool := strings.HasSuffix(s.Op, "-pool")
	stride, dilation := s.Stride.or(Pair{1, 1}), s.Dilation.or(Pair{1, 1})
	if pool {
		stride = s.Stride.or(s.Kernel)
	}
	for _, v := range []Pair{s.Kernel, stride, dilation} {
		if min(v[0], v[1]) < 1 || max(v[0], v[1]) > 1<<12 {
			return nil, fmt.Errorf("kernel %v, stride %v, dilation %v: want each 1 to %d", s.Kernel, stride, dilation, 1<<12)
		}
	}
	var pad model.Pad2D
	if s.Padding == "same" {
		pad = samePad(in, s.Kernel, stride, dilation)
	}
	switch s.Op {
	case "max-pool":
		return model.MaxPool{Kernel: s.Kernel, Stride: stride, Pad: pad}, nil
	case "avg-pool":
		return model.AvgPool{Kernel: s.Kernel, Stride: stride, Pad: pad}, nil
	case "depthwise-conv":
		return model.Conv{Out: in[2], Kernel: s.Kernel, Stride: stride, Dilation: dilation, Pad: pad, Groups: in[2], Bias: s.bias()}, nil
	}
	groups := s.Groups
	if groups == 0 {
		groups = 1
	}
	return model.Conv{Out: s.Out, Kernel: s.Kernel, Stride: stride, Dilation: dilation, Pad: pad, Groups: groups, Bias: s.bias()}, nil
}

// bias: normalisation has a shift of its own.
func (s *LayerSpec) bias() bool {
	if s.Bias != nil {
		return *s.Bias
	}
	return !s.Norm
}

func activation(name string, alpha float32) model.Activation {
	if alpha == 0 && name == string(model.LeakyReLU) {
		alpha = 0.01
	}
	return model.Activation{Func: model.Func(name), Alpha: alpha}
}

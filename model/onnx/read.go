package onnx

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// Opsets that Read understands. Between 21 and 26 the supported operators gained
// types only.
const (
	minOpset = 6
	maxOpset = 26
)

// Read parses an ONNX file into a graph, channels last: the graph's input and,
// if it is an image, its output are {H, W, C} where the file has {N, C, H, W}.
// Parameters are copied; b may be reused. What package model cannot express is
// refused with ErrUnsupported, naming operator and node.
func Read(b []byte, limits Limits) (*model.Graph, error) {
	limits = limits.withDefaults()
	m, err := decode(b, limits)
	if err != nil {
		return nil, err
	}
	if m.Graph == nil || len(m.Graph.Node) == 0 {
		return nil, fmt.Errorf("%w: no graph, or one without nodes", ErrFormat)
	}
	opset, err := opsetOf(m)
	if err != nil {
		return nil, err
	}
	im := &importer{
		opset: opset, left: limits.MaxParams,
		values: map[string]value{}, constants: map[string]*constant{}, names: map[string]int{}, affine: map[int]bool{}, extra: map[string]bool{},
		graph: &model.Graph{Name: m.Graph.Name},
		quant: &model.Quant{Layers: map[string]model.Affine{}, Weights: map[string][]float32{}},
	}
	for _, p := range m.MetadataProps {
		if im.graph.Meta == nil {
			im.graph.Meta = map[string]string{}
		}
		im.graph.Meta[p.Key] = p.Value
	}
	return im.run(m.Graph)
}

func opsetOf(m *onnxpb.ModelProto) (int, error) {
	if len(m.Functions) > 0 {
		return 0, fmt.Errorf("%w: operators defined in the file", ErrUnsupported)
	}
	for _, o := range m.OpsetImport {
		if o.Domain != "" && o.Domain != "ai.onnx" {
			continue // only a node of that domain matters
		}
		if o.Version < minOpset || o.Version > maxOpset {
			return 0, fmt.Errorf("%w: opset %d: want %d to %d", ErrUnsupported, o.Version, minOpset, maxOpset)
		}
		return int(o.Version), nil
	}
	return 0, fmt.Errorf("%w: no opset named", ErrFormat)
}

// importer builds the graph, node by node.
type importer struct {
	opset     int
	left      int64 // numbers that constants may still hold
	batched   bool  // the input has a batch dimension
	batch     int   // its declared size; 0 if it is symbolic
	graph     *model.Graph
	quant     *model.Quant // what QuantizeLinear and DequantizeLinear say
	values    map[string]value
	constants map[string]*constant
	names     map[string]int  // of layers, and the last number appended to each
	affine    map[int]bool    // layers that stand for arithmetic with constants
	extra     map[string]bool // second outputs, such as a dropout\'s mask
}

func (im *importer) run(g *onnxpb.GraphProto) (*model.Graph, error) {
	if len(g.SparseInitializer) > 0 {
		return nil, fmt.Errorf("%w: sparse initializers", ErrUnsupported)
	}
	for _, t := range g.Initializer {
		c, err := newConstant(t)
		if err == nil {
			err = im.define(t.Name, c)
		}
		if err != nil {
			return nil, fmt.Errorf("initializer %q: %w", t.Name, err)
		}
		t.RawData, t.FloatData = nil, nil // halves the peak
	}
	if err := im.input(g); err != nil {
		return nil, err
	}
	if len(g.Output) != 1 {
		return nil, fmt.Errorf("%w: %d outputs: want 1", ErrUnsupported, len(g.Output))
	}
	for i, n := range g.Node {
		if err := im.node(n); err != nil {
			return nil, fmt.Errorf("node %d %q (%s): %w", i, n.Name, n.OpType, err)
		}
	}
	return im.finish(g.Output[0].Name)
}

// define names a constant.
func (im *importer) define(name string, c *constant) error {
	if err := im.checkNew(name); err != nil {
		return err
	}
	if err := im.spend(elements(c.dims)); err != nil {
		return err
	}
	im.constants[name] = c
	return nil
}

// spend counts numbers that are about to be held against the limit.
func (im *importer) spend(n int) error {
	if im.left -= int64(n); im.left < 0 {
		return fmt.Errorf("%w: more numbers in constants and parameters than the limit allows", ErrTooLarge)
	}
	return nil
}

func (im *importer) checkNew(name string) error {
	_, isValue := im.values[name]
	if _, isConstant := im.constants[name]; isConstant || isValue || name == "" {
		return fmt.Errorf("%w: value %q is empty or defined twice", ErrFormat, name)
	}
	return nil
}

// input finds the one input that is not an initializer.
func (im *importer) input(g *onnxpb.GraphProto) error {
	var in *onnxpb.ValueInfoProto
	for _, v := range g.Input {
		if im.constants[v.Name] != nil {
			continue
		}
		if in != nil {
			return fmt.Errorf("%w: inputs %q and %q: want one", ErrUnsupported, in.Name, v.Name)
		}
		in = v
	}
	if in == nil {
		return fmt.Errorf("%w: no input", ErrUnsupported)
	}
	t := in.GetType().GetTensorType()
	if t == nil || t.Shape == nil || t.ElemType != typeFloat {
		return fmt.Errorf("%w: input %q: want a tensor of FLOAT with a shape", ErrUnsupported, in.Name)
	}
	raw := make([]int64, len(t.Shape.Dim))
	for i, d := range t.Shape.Dim {
		if raw[i] = d.GetDimValue(); raw[i] == 0 {
			raw[i] = -1
		}
	}
	im.batched = len(raw) > 1
	if im.batched {
		im.batch = int(max(raw[0], 0))
		raw = raw[1:]
	}
	if len(raw) == 0 || slices.Min(raw) < 1 {
		return fmt.Errorf("%w: input %q has dimensions %v after the batch: want known ones", ErrUnsupported, in.Name, raw)
	}
	dims, err := checkDims(raw)
	if err != nil {
		return fmt.Errorf("input %q: %w", in.Name, err)
	}
	v := value{layer: model.Input, dims: dims, shape: dims}
	if len(dims) == 3 && !channelsLast(g, in.Name) {
		v.image, v.shape = true, model.Shape{dims[1], dims[2], dims[0]}
	}
	if err := v.shape.Check(); err != nil {
		return fmt.Errorf("input %q: %w: %w", in.Name, ErrFormat, err)
	}
	im.graph.Input = slices.Clone(v.shape)
	if err := im.checkNew(in.Name); err != nil {
		return err
	}
	im.values[in.Name] = v
	return nil
}

// channelsLast reports whether every reader of the input first moves the last
// dimension to the front, as exporters of channels-last frameworks do.
func channelsLast(g *onnxpb.GraphProto, input string) bool {
	found := false
	for _, n := range g.Node {
		if !slices.Contains(n.Input, input) {
			continue
		}
		a, err := newAttributes(n)
		if err != nil || n.OpType != "Transpose" || !slices.Equal(a.ints("perm", 4, nil), []int{0, 3, 1, 2}) {
			return false
		}
		found = true
	}
	return found
}

// node dispatches one node.
func (im *importer) node(p *onnxpb.NodeProto) error {
	if p.Domain != "" && p.Domain != "ai.onnx" {
		return fmt.Errorf("%w: operator of domain %q", ErrUnsupported, p.Domain)
	}
	f := operators[p.OpType]
	if f == nil {
		return fmt.Errorf("%w: operator %s", ErrUnsupported, p.OpType)
	}
	if len(p.Output) == 0 || p.Output[0] == "" {
		return fmt.Errorf("%w: no output", ErrFormat)
	}
	for _, o := range p.Output[1:] {
		im.extra[o] = o != "" // an error only where it is used
	}
	a, err := newAttributes(p)
	if err != nil {
		return err
	}
	n := &node{NodeProto: p, attributes: a, im: im}
	if err := f(n); err != nil && a.err == nil {
		return err
	}
	return a.finish()
}

// finish makes the named value the graph's output and drops what it does not
// need.
func (im *importer) finish(output string) (*model.Graph, error) {
	v, ok := im.values[output]
	switch {
	case !ok && im.constants[output] != nil:
		return nil, fmt.Errorf("%w: the output %q is a constant", ErrUnsupported, output)
	case !ok && im.extra[output]:
		return nil, fmt.Errorf("%w: the output %q is a node's second one", ErrUnsupported, output)
	case !ok:
		return nil, fmt.Errorf("%w: the output %q is not computed", ErrFormat, output)
	case v.hardSigmoid:
		return nil, errHardSigmoid
	case v.bytes != nil:
		return nil, fmt.Errorf("%w: the output %q is bytes: want floats", ErrUnsupported, output)
	case v.layer == model.Input:
		return nil, fmt.Errorf("%w: the output %q is the input", ErrUnsupported, output)
	case v.perm != nil:
		return nil, fmt.Errorf("%w: the output %q is a flattened image", ErrUnsupported, output)
	}
	im.graph.Layers = im.graph.Layers[:v.layer+1]
	im.dropDead()
	im.foldAffine()
	im.dropDead()
	im.graph.Quant = im.quant
	im.graph.SettleQuant()
	if err := im.graph.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return im.graph, nil
}

// emit appends a layer and returns it as a value of the layer's own shape.
func (im *importer) emit(n *node, op model.Op, params map[string]*model.Tensor, inputs ...value) (value, error) {
	shapes, from := make([]model.Shape, len(inputs)), make([]int, len(inputs))
	for i, v := range inputs {
		shapes[i], from[i] = v.shape, v.layer
	}
	shape, err := model.OutputShape(op, shapes...)
	if err == nil {
		err = shape.Check()
	}
	if err != nil {
		return value{}, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if len(im.graph.Layers) == model.MaxLayers {
		return value{}, fmt.Errorf("%w: more than %d layers", ErrTooLarge, model.MaxLayers)
	}
	for _, t := range params {
		if err := im.spend(len(t.Data)); err != nil {
			return value{}, err
		}
	}
	im.graph.Layers = append(im.graph.Layers, model.Layer{Name: im.layerName(n), Op: op, Inputs: from, Params: params})
	return value{layer: len(im.graph.Layers) - 1, shape: shape, dims: shape}, nil
}

// layerName is the node's name, or its output's, made unique.
func (im *importer) layerName(n *node) string {
	base := strings.TrimSpace(n.Name)
	if base == "" {
		base = n.Output[0]
	}
	name := base
	for im.names[name] > 0 {
		im.names[base]++
		name = base + "_" + strconv.Itoa(im.names[base])
	}
	im.names[name]++
	return name
}

package job

import (
	"fmt"
	"os"
	"path/filepath"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Data says where a job's data comes from: exactly one field is set. The
// command line turns it into a file with a hash before it submits.
type Data struct {
	Path    string // a folder
	Name    string // uploaded before
	Builtin string // generated
}

// File is a job file that was read.
type File struct {
	Spec *espalierv1.JobSpec // Data.Hash is still empty
	Data Data
}

// Load reads a job file. A relative data path counts from the file's folder.
func Load(path string, known Names) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() || info.Size() > MaxFileBytes {
		return nil, fmt.Errorf("%w: %s: want a file of at most %d bytes", ErrSyntax, path, MaxFileBytes)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := Parse(b, known)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if p := f.Data.Path; p != "" && !filepath.IsAbs(p) {
		f.Data.Path = filepath.Join(filepath.Dir(path), p)
	}
	if f.Spec.Name == "" {
		f.Spec.Name = slug(filepath.Base(path))
	}
	return f, nil
}

// Parse reads a job from YAML, fills in the defaults and validates it. All
// errors are returned at once, joined.
func Parse(b []byte, known Names) (*File, error) {
	r := &reader{}
	root, err := r.parse(b)
	if err != nil {
		return nil, err
	}
	f := &File{Spec: &espalierv1.JobSpec{}}
	m := r.object(root, "name", "model", "data", "train", "space", "devices", "budgets", "search", "stop")
	if v := m["name"]; v.set() {
		f.Spec.Name = r.word(v, "a name")
	}
	r.model(root, m["model"], f, known)
	r.data(root, m["data"], f, known)
	r.train(m["train"], f, known)
	r.space(m["space"], f, known)
	r.devices(m, f)
	r.search(m["search"], f, known)
	r.stop(m["stop"], f)
	if len(r.errs) > 0 {
		return nil, r.joined()
	}
	Defaults(f.Spec, known)
	if err := Validate(f.Spec, known); err != nil {
		return nil, err
	}
	return f, nil
}

func (r *reader) model(root, v field, f *File, known Names) {
	if !v.set() {
		r.fail(field{path: "model", node: root.node}, "missing: want a network, such as {zoo: lenet-5}")
		return
	}
	m := r.object(v, "zoo", "layers")
	zoo, layers := m["zoo"], m["layers"]
	switch {
	case zoo.set() == layers.set():
		r.fail(v, "%s: want exactly one of zoo and layers", v.text())
	case zoo.set():
		f.Spec.Model = &espalierv1.ModelSpec{Source: &espalierv1.ModelSpec_Zoo{Zoo: r.name(zoo, known.Zoo)}}
	default:
		list := &espalierv1.LayerList{}
		for _, item := range r.list(layers) {
			list.Layers = append(list.Layers, r.layer(item))
		}
		f.Spec.Model = &espalierv1.ModelSpec{Source: &espalierv1.ModelSpec_Layers{Layers: list}}
	}
}

// layer reads one layer of a user's own network. Which fields an operator takes
// is checked where the network is built.
func (r *reader) layer(f field) *espalierv1.LayerSpec {
	m := r.object(f, "op", "name", "from", "out", "kernel", "stride", "dilation", "padding", "groups", "bias", "norm", "activation", "alpha", "rate")
	l := &espalierv1.LayerSpec{}
	if !m["op"].set() {
		r.fail(f, "op is missing: want an operator, such as conv")
	}
	for name, to := range map[string]*string{"op": &l.Kind, "name": &l.Name, "padding": &l.Padding, "activation": &l.Activation} {
		if v := m[name]; v.set() {
			*to = r.word(v, "a word")
		}
	}
	if v := m["from"]; v.set() {
		for _, item := range r.list(v) {
			l.Inputs = append(l.Inputs, r.word(item, "the name of a layer"))
		}
	}
	for name, to := range map[string]*int32{"out": &l.Out, "groups": &l.Groups} {
		if v := m[name]; v.set() {
			*to = int32(r.integer(v, 1<<20))
		}
	}
	for name, to := range map[string]*[]int32{"kernel": &l.Kernel, "stride": &l.Stride, "dilation": &l.Dilation} {
		if v := m[name]; v.set() {
			*to = r.pair(v)
		}
	}
	if v := m["bias"]; v.set() {
		b := r.boolean(v)
		l.Bias = &b
	}
	if v := m["norm"]; v.set() {
		l.Norm = r.boolean(v)
	}
	for name, to := range map[string]*float64{"alpha": &l.Alpha, "rate": &l.Rate} {
		if v := m[name]; v.set() {
			*to = r.positive(v, "a number above 0")
		}
	}
	return l
}

// pair reads height and width: one number for both, or a list of two.
func (r *reader) pair(f field) []int32 {
	var out []int32
	for _, item := range r.list(f) {
		out = append(out, int32(r.integer(item, 1<<12)))
	}
	if len(out) == 1 {
		out = append(out, out[0])
	}
	if len(out) != 2 {
		r.fail(f, "%s: want one number, or two: [height, width]", f.text())
	}
	return out
}

func (r *reader) data(root, v field, f *File, known Names) {
	if !v.set() {
		r.fail(field{path: "data", node: root.node}, "missing: want {path: FOLDER}, {name: NAME} or {builtin: shapes}")
		return
	}
	m := r.object(v, "path", "name", "builtin", "seed", "group")
	d := &espalierv1.DataSpec{}
	f.Spec.Data = d
	given := 0
	if p := m["path"]; p.set() {
		f.Data.Path, given = r.word(p, "a folder"), given+1
		d.Source = f.Data.Path
	}
	if n := m["name"]; n.set() {
		f.Data.Name, given = r.word(n, "the name of an uploaded data set"), given+1
		d.Source = f.Data.Name
	}
	if b := m["builtin"]; b.set() {
		f.Data.Builtin, given = r.name(b, known.Builtins), given+1
		d.Source = "builtin:" + f.Data.Builtin
	}
	if given != 1 {
		r.fail(v, "%s: want exactly one of path, name and builtin", v.text())
	}
	if s := m["seed"]; s.set() {
		d.Seed = uint64(r.integer(s, 1<<53))
	}
	if g := m["group"]; g.set() {
		d.Group = r.word(g, "the name of a column")
	}
}

func (r *reader) train(v field, f *File, known Names) {
	m := r.object(v, "epochs", "batch", "optimizer", "rate", "weight_decay", "momentum", "l1", "clip", "label_smoothing", "schedule", "warm_up", "augment")
	t := &espalierv1.TrainSpec{}
	f.Spec.Train = t
	if e := m["epochs"]; e.set() {
		t.Epochs = r.positive(e, "epochs above 0")
	}
	if b := m["batch"]; b.set() {
		t.Batch = int32(r.integer(b, 1<<16))
	}
	if o := m["optimizer"]; o.set() {
		t.Optimizer = r.name(o, known.Optimizers)
	}
	if v := m["rate"]; v.set() {
		t.Rate = r.positive(v, "a learning rate above 0")
	}
	for _, n := range []struct {
		name string
		to   *float64
	}{{"weight_decay", &t.WeightDecay}, {"momentum", &t.Momentum}, {"l1", &t.L1}, {"clip", &t.Clip}, {"label_smoothing", &t.LabelSmoothing}, {"warm_up", &t.WarmUp}} {
		if f := m[n.name]; f.set() {
			*n.to, _ = r.number(f, "a number of 0 or more")
		}
	}
	if s := m["schedule"]; s.set() {
		t.Schedule = r.name(s, rateSchedules)
	}
	if a := m["augment"]; a.set() {
		t.Augment = r.augment(a)
	}
}

func (r *reader) augment(v field) *espalierv1.AugmentSpec {
	m, a := r.object(v, "shift", "flip", "crop"), &espalierv1.AugmentSpec{}
	if s := m["shift"]; s.set() {
		a.Shift = int32(r.integer(s, maxShift))
	}
	if f := m["flip"]; f.set() {
		a.Flip = r.boolean(f)
	}
	if c := m["crop"]; c.set() {
		a.Crop, _ = r.number(c, "a fraction from 0 to 0.9")
	}
	return a
}

func (r *reader) positive(f field, want string) float64 {
	v, ok := r.number(f, want)
	if ok && !(v > 0) {
		r.fail(f, "%s: want %s", f.text(), want)
	}
	return v
}

func (r *reader) space(v field, f *File, known Names) {
	m := r.object(v, "strategies", "sparsity", "schedules", "quantize", "finetune")
	s := &espalierv1.SpaceSpec{}
	f.Spec.Space = s
	if st := m["strategies"]; st.set() {
		s.Strategies = r.names(st, append([]string{All}, known.Strategies...))
	}
	if sp := m["sparsity"]; sp.set() {
		s.Sparsity = r.interval(sp)
	}
	if sc := m["schedules"]; sc.set() {
		s.Schedules = r.names(sc, known.Schedules)
	}
	if q := m["quantize"]; q.set() {
		s.Quantize = r.names(q, quantizations)
	}
	ft := r.object(m["finetune"], "epochs", "rate")
	if e := ft["epochs"]; e.set() {
		for _, item := range r.list(e) {
			s.FinetuneEpochs = append(s.FinetuneEpochs, r.positive(item, "epochs above 0"))
		}
	}
	if rate := ft["rate"]; rate.set() {
		s.FinetuneRate = r.interval(rate)
	}
}

// interval reads a number, which stands for itself, or {min, max, log}.
func (r *reader) interval(f field) *espalierv1.Range {
	const want = "a number or {min: …, max: …}"
	switch f.node.Type().String() {
	case "Mapping", "MappingValue":
	default:
		v, _ := r.number(f, want)
		return &espalierv1.Range{Min: v, Max: v}
	}
	m := r.object(f, "min", "max", "log")
	out := &espalierv1.Range{}
	for _, end := range []struct {
		name string
		to   *float64
	}{{"min", &out.Min}, {"max", &out.Max}} {
		v, ok := m[end.name]
		if !ok {
			r.fail(f, "%s: %s is missing", f.text(), end.name)
			continue
		}
		*end.to, _ = r.number(v, "a number")
	}
	if l := m["log"]; l.set() {
		out.Log = r.boolean(l)
	}
	return out
}

func (r *reader) devices(m map[string]field, f *File) {
	if d := m["devices"]; d.set() {
		for _, item := range r.list(d) {
			f.Spec.Devices = append(f.Spec.Devices, r.word(item, "the name of a device"))
		}
	}
	b := m["budgets"]
	if !b.set() {
		return
	}
	f.Spec.Budgets = map[string]*espalierv1.Budget{}
	for device, v := range r.mapping(b, "want {DEVICE: {latency: 5ms, size: 200KB, accuracy: 0.9}}") {
		limits := r.object(v, "latency", "size", "accuracy")
		budget := &espalierv1.Budget{}
		if l := limits["latency"]; l.set() {
			budget.LatencyNs = r.duration(l).Nanoseconds()
		}
		if s := limits["size"]; s.set() {
			budget.SizeBytes = r.size(s)
		}
		if a := limits["accuracy"]; a.set() {
			budget.Accuracy = r.positive(a, "an accuracy above 0 and up to 1")
		}
		f.Spec.Budgets[device] = budget
	}
}

func (r *reader) search(v field, f *File, known Names) {
	m := r.object(v, "sampler", "seed", "deterministic", "window", "checkpoints")
	s := &espalierv1.SearchSpec{}
	f.Spec.Search = s
	if n := m["sampler"]; n.set() {
		s.Sampler = r.name(n, known.Samplers)
	}
	if n := m["seed"]; n.set() {
		s.Seed = uint64(r.integer(n, 1<<53))
	}
	if d := m["deterministic"]; d.set() {
		s.Deterministic = r.boolean(d)
	}
	if w := m["window"]; w.set() {
		s.Window = int32(r.integer(w, 1024))
	}
	if c := m["checkpoints"]; c.set() {
		s.CheckpointBytes = r.size(c)
	}
}

func (r *reader) stop(v field, f *File) {
	m := r.object(v, "trials", "time", "stall")
	s := &espalierv1.StopSpec{}
	f.Spec.Stop = s
	if t := m["trials"]; t.set() {
		s.Trials = int32(r.integer(t, maxTrials))
	}
	if t := m["time"]; t.set() {
		s.TimeMs = max(1, r.duration(t).Milliseconds())
	}
	if t := m["stall"]; t.set() {
		s.Stall = int32(r.integer(t, maxTrials))
	}
}

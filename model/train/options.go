package train

import (
	"context"
	"fmt"
	"math"
	"runtime"

	"github.com/espalier-ml/espalier/model"
)

// Optimizer names how gradients change weights.
type Optimizer string

// The optimizers.
const (
	SGD   Optimizer = "sgd"   // with Momentum
	Adam  Optimizer = "adam"  // Kingma and Ba, 2015; WeightDecay is added to the gradient
	AdamW Optimizer = "adamw" // Loshchilov and Hutter, 2019; WeightDecay shrinks the weights
)

// Loss names what training makes small.
type Loss string

// The losses.
const (
	CrossEntropy Loss = "cross-entropy" // of the softmax of the outputs, against the labels
	MeanSquares  Loss = "mean-squares"  // of the outputs against the inputs: for autoencoders
)

// Options says how to train. Fields that are zero get the values of Defaults.
type Options struct {
	Epochs float64 // length of the training; a fraction ends within an epoch
	Steps  int     // length in steps instead; exclusive with Epochs

	Optimizer Optimizer
	Momentum  float64 // of SGD, in [0, 1); no default, 0 is plain SGD
	Nesterov  bool    // of SGD
	Rate      float64 // learning rate, after warm-up
	Schedule  Schedule

	WeightDecay float64 // of weights, not of biases and normalisation; see Optimizer
	L1          float64 // added to the gradient of weights as L1·sign(weight)
	Clip        float64 // largest norm of the gradient of all parameters; 0 is no limit

	Loss           Loss
	LabelSmoothing float64 // in [0, 1)

	// Teacher writes the logits that another network gives for the n examples
	// in x: distillation. The loss is (1-TeacherWeight) times that against the
	// labels plus TeacherWeight times Temperature² times the divergence of the
	// softened outputs.
	Teacher       func(x []float32, n int, logits []float32) error
	TeacherWeight float64 // in [0, 1]
	Temperature   float64 // more than 0

	Seed    uint64 // of dropout; the order of the examples is the Source's
	Threads int    // goroutines that compute; at most 8 are of use

	// Masks says which weights stay exactly zero. Nil entries stay free.
	Masks Masks

	// Evaluate scores the graph after every epoch (and at the end), higher is
	// better. The graph holds the current weights during the call.
	Evaluate func(ctx context.Context, g *model.Graph) (float64, error)
	// Patience stops after that many epochs in a row without a better score;
	// 0 never does. It needs Evaluate.
	Patience int
	// KeepBest puts back the weights of the best score at the end. It needs
	// Evaluate.
	KeepBest bool

	// OnProgress is called after every step. It must not keep the goroutine.
	OnProgress func(Progress)
	// AfterEpoch is called after every whole epoch, with the graph holding the
	// current weights; it may return stop to end the training.
	AfterEpoch func(ctx context.Context, p Progress, g *model.Graph) (stop bool, err error)
	// BeforeStep is called before step s of steps. If it returns changed, it has
	// changed weights of the graph, or Masks, in place.
	BeforeStep func(s, steps int, g *model.Graph) (changed bool, err error)
	// Gate is called before every step. It may block, to make room for a
	// measurement; its error ends the training.
	Gate func(ctx context.Context) error
}

// Masks says, by layer and parameter name, which elements may be other than
// zero; the slice has as many elements as the parameter.
type Masks map[string]map[string][]bool

// Progress is where a training stands.
type Progress struct {
	Step, Steps int     // done, in all
	Epoch       float64 // done
	Loss        float64 // of the last step
	MeanLoss    float64 // of the current epoch so far
	Rate        float64 // of the last step
	Score       float64 // of the last evaluation
	BestScore   float64
}

// Defaults are the values of fields that are zero.
func Defaults() Options {
	return Options{
		Epochs: 1, Optimizer: Adam, Rate: 0.001, Loss: CrossEntropy, Temperature: 4, TeacherWeight: 0.5, Threads: 1,
		Schedule: Schedule{Kind: Constant},
	}
}

func (o Options) withDefaults() Options {
	d := Defaults()
	if o.Epochs == 0 && o.Steps == 0 {
		o.Epochs = d.Epochs
	}
	if o.Optimizer == "" {
		o.Optimizer = d.Optimizer
	}
	if o.Rate == 0 {
		o.Rate = d.Rate
	}
	if o.Loss == "" {
		o.Loss = d.Loss
	}
	if o.Teacher != nil && o.TeacherWeight == 0 {
		o.TeacherWeight = d.TeacherWeight
	}
	if o.Temperature == 0 {
		o.Temperature = d.Temperature
	}
	if o.Threads == 0 {
		o.Threads = d.Threads
	}
	o.Schedule = o.Schedule.withDefaults()
	return o
}

// Validate checks the options after the defaults are filled in; the error wraps
// ErrOptions.
func (o Options) Validate() error {
	o = o.withDefaults()
	for _, c := range []struct {
		ok   bool
		name string
		v    any
		want string
	}{
		{o.Epochs >= 0 && o.Epochs <= 1e6, "epochs", o.Epochs, "0 to 1000000"},
		{o.Steps >= 0 && o.Steps <= math.MaxInt32, "steps", o.Steps, "0 or more"},
		{o.Steps == 0 || o.Epochs == 0, "steps", o.Steps, "0 when epochs is set"},
		{o.Optimizer == SGD || o.Optimizer == Adam || o.Optimizer == AdamW, "optimizer", o.Optimizer, "sgd, adam or adamw"},
		{o.Momentum >= 0 && o.Momentum < 1, "momentum", o.Momentum, "0 or more and below 1"},
		{o.Momentum == 0 && !o.Nesterov || o.Optimizer == SGD, "momentum", o.Momentum, "0 unless the optimizer is sgd"},
		{!o.Nesterov || o.Momentum > 0, "momentum", o.Momentum, "more than 0 with nesterov"},
		{o.Rate > 0 && finite(o.Rate), "rate", o.Rate, "more than 0"},
		{o.WeightDecay >= 0 && finite(o.WeightDecay), "weight decay", o.WeightDecay, "0 or more"},
		{o.L1 >= 0 && finite(o.L1), "l1", o.L1, "0 or more"},
		{o.Clip >= 0 && finite(o.Clip), "clip", o.Clip, "0 or more"},
		{o.Loss == CrossEntropy || o.Loss == MeanSquares, "loss", o.Loss, "cross-entropy or mean-squares"},
		{o.LabelSmoothing >= 0 && o.LabelSmoothing < 1, "label smoothing", o.LabelSmoothing, "0 or more and below 1"},
		{o.LabelSmoothing == 0 || o.Loss == CrossEntropy, "label smoothing", o.LabelSmoothing, "0 unless the loss is cross-entropy"},
		{o.Teacher == nil || o.Loss == CrossEntropy, "loss", o.Loss, "cross-entropy with a teacher"},
		{o.TeacherWeight >= 0 && o.TeacherWeight <= 1, "teacher weight", o.TeacherWeight, "0 to 1"},
		{o.Temperature > 0 && finite(o.Temperature), "temperature", o.Temperature, "more than 0"},
		{o.Threads >= 1 && o.Threads <= 1024, "threads", o.Threads, "1 to 1024"},
		{o.Patience >= 0, "patience", o.Patience, "0 or more"},
		{o.Patience == 0 && !o.KeepBest || o.Evaluate != nil, "patience or keep best", o.Patience, "neither without a function that evaluates"},
	} {
		if !c.ok {
			return fmt.Errorf("%w: %s %v: want %s", ErrOptions, c.name, c.v, c.want)
		}
	}
	return o.Schedule.Validate()
}

// IdleThreads is the number of threads worth asking for when nothing else runs.
func IdleThreads() int { return min(runtime.GOMAXPROCS(0), maxLanes) }

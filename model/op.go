package model

// Op is a typed operator. The set is closed: readers refuse, by name, what they
// cannot express with it. Switch on the concrete type.
type Op interface {
	// Kind is the operator's stable lower-case name, as files, logs and
	// `model inspect` show it.
	Kind() string
}

// Pad2D is zero padding in pixels.
type Pad2D struct{ Top, Left, Bottom, Right int }

// Conv is a 2-D convolution. Input {H, W, IC}, output {OH, OW, Out}.
// Parameters: weight [KH][KW][IC/Groups][Out]; bias [Out] if Bias.
// Depthwise is Groups == IC.
type Conv struct {
	Out      int
	Kernel   [2]int // height, width
	Stride   [2]int
	Dilation [2]int
	Pad      Pad2D
	Groups   int
	Bias     bool
}

// Dense is a fully connected layer. Input {N}, output {Out}.
// Parameters: weight [N][Out]; bias [Out] if Bias.
type Dense struct {
	Out  int
	Bias bool
}

// MaxPool takes the maximum of each window; padding never wins.
type MaxPool struct {
	Kernel [2]int
	Stride [2]int
	Pad    Pad2D
}

// AvgPool takes the mean of each window. CountPad counts padded zeros in the
// divisor.
type AvgPool struct {
	Kernel   [2]int
	Stride   [2]int
	Pad      Pad2D
	CountPad bool
}

// GlobalAvgPool averages each channel. Input {H, W, C}, output {C}.
type GlobalAvgPool struct{}

// BatchNorm normalises each channel (the last dimension).
// Parameters: scale, shift, mean, variance, each [C].
type BatchNorm struct {
	Epsilon  float32
	Momentum float32 // of the running statistics, in training: new = (1-m)*old + m*batch
}

// Func names an element-wise activation function.
type Func string

// The activation functions.
const (
	ReLU      Func = "relu"
	ReLU6     Func = "relu6"
	LeakyReLU Func = "leaky-relu"
	Sigmoid   Func = "sigmoid"
	Tanh      Func = "tanh"
	HardSwish Func = "hard-swish"
)

// Activation applies Func to each element. Alpha is LeakyReLU's slope below 0.
type Activation struct {
	Func  Func
	Alpha float32
}

// Softmax normalises over the last dimension.
type Softmax struct{}

// Add is the element-wise sum of two inputs of the same shape.
type Add struct{}

// Concat joins two or more inputs along the channels (the last dimension).
type Concat struct{}

// Flatten turns {H, W, C} into {H*W*C}, channels last.
type Flatten struct{}

// Reshape gives the elements another shape, in row-major order.
type Reshape struct{ Shape Shape }

// Pad adds zeros around {H, W, C}.
type Pad struct{ Pad Pad2D }

// Dropout zeroes elements at random while training; it does nothing else.
type Dropout struct{ Rate float32 }

func (Conv) Kind() string          { return "conv" }
func (Dense) Kind() string         { return "dense" }
func (MaxPool) Kind() string       { return "max-pool" }
func (AvgPool) Kind() string       { return "avg-pool" }
func (GlobalAvgPool) Kind() string { return "global-avg-pool" }
func (BatchNorm) Kind() string     { return "batch-norm" }
func (a Activation) Kind() string  { return string(a.Func) }
func (Softmax) Kind() string       { return "softmax" }
func (Add) Kind() string           { return "add" }
func (Concat) Kind() string        { return "concat" }
func (Flatten) Kind() string       { return "flatten" }
func (Reshape) Kind() string       { return "reshape" }
func (Pad) Kind() string           { return "pad" }
func (Dropout) Kind() string       { return "dropout" }

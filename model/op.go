package model

// Op is a typed operator. The set is closed: readers refuse, by name, what they
// cannot express with it. Switch on the concrete type. The tags of the fields are the
// names of the attributes in the structure's JSON (MarshalStructure).
type Op interface {
	// Kind is the operator's stable lower-case name, as files, logs and
	// `model inspect` show it.
	Kind() string
}

// Pad2D is zero padding in pixels.
type Pad2D struct {
	Top    int `json:"top,omitzero"`
	Left   int `json:"left,omitzero"`
	Bottom int `json:"bottom,omitzero"`
	Right  int `json:"right,omitzero"`
}

// Conv is a 2-D convolution. Input {H, W, IC}, output {OH, OW, Out}.
// Parameters: weight [KH][KW][IC/Groups][Out]; bias [Out] if Bias.
// Depthwise is Groups == IC.
type Conv struct {
	Out      int    `json:"out"`
	Kernel   [2]int `json:"kernel"` // height, width
	Stride   [2]int `json:"stride"`
	Dilation [2]int `json:"dilation"`
	Pad      Pad2D  `json:"pad,omitzero"`
	Groups   int    `json:"groups"`
	Bias     bool   `json:"bias,omitzero"`
}

// Dense is a fully connected layer. Input {N}, output {Out}.
// Parameters: weight [N][Out]; bias [Out] if Bias.
type Dense struct {
	Out  int  `json:"out"`
	Bias bool `json:"bias,omitzero"`
}

// MaxPool takes the maximum of each window; padding never wins.
type MaxPool struct {
	Kernel [2]int `json:"kernel"`
	Stride [2]int `json:"stride"`
	Pad    Pad2D  `json:"pad,omitzero"`
}

// AvgPool takes the mean of each window. CountPad counts padded zeros in the
// divisor.
type AvgPool struct {
	Kernel   [2]int `json:"kernel"`
	Stride   [2]int `json:"stride"`
	Pad      Pad2D  `json:"pad,omitzero"`
	CountPad bool   `json:"count_pad,omitzero"`
}

// GlobalAvgPool averages each channel. Input {H, W, C}, output {C}.
type GlobalAvgPool struct{}

// BatchNorm normalises each channel (the last dimension).
// Parameters: scale, shift, mean, variance, each [C].
type BatchNorm struct {
	Epsilon  float32 `json:"epsilon"`
	Momentum float32 `json:"momentum"` // 0 to 1, of the running statistics, in training: new = (1-m)*old + m*batch
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
	Func  Func    `json:"-"` // its name is the layer's kind
	Alpha float32 `json:"alpha,omitzero"`
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
type Reshape struct {
	Shape Shape `json:"shape"`
}

// Pad adds zeros around {H, W, C}.
type Pad struct {
	Pad Pad2D `json:"pad"`
}

// Dropout zeroes elements at random while training; it does nothing else.
type Dropout struct {
	Rate float32 `json:"rate"`
}

// Kind implements Op.
func (Conv) Kind() string { return "conv" }

// Kind implements Op.
func (Dense) Kind() string { return "dense" }

// Kind implements Op.
func (MaxPool) Kind() string { return "max-pool" }

// Kind implements Op.
func (AvgPool) Kind() string { return "avg-pool" }

// Kind implements Op.
func (GlobalAvgPool) Kind() string { return "global-avg-pool" }

// Kind implements Op.
func (BatchNorm) Kind() string { return "batch-norm" }

// Kind implements Op.
func (a Activation) Kind() string { return string(a.Func) }

// Kind implements Op.
func (Softmax) Kind() string { return "softmax" }

// Kind implements Op.
func (Add) Kind() string { return "add" }

// Kind implements Op.
func (Concat) Kind() string { return "concat" }

// Kind implements Op.
func (Flatten) Kind() string { return "flatten" }

// Kind implements Op.
func (Reshape) Kind() string { return "reshape" }

// Kind implements Op.
func (Pad) Kind() string { return "pad" }

// Kind implements Op.
func (Dropout) Kind() string { return "dropout" }

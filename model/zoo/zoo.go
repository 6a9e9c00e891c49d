// Package zoo builds networks: the built-in architectures by name, and one's own
// from a list of layers. All take their input and number of classes from the data.
//
// Networks end in logits: softmax belongs to the loss and to what reads the
// scores. Batch normalisation uses epsilon 0.001 (Keras' default, as MLPerf Tiny's
// reference models) and momentum 0.1.
package zoo

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// Sentinels of this package.
var (
	// ErrName: no network has this name.
	ErrName = errors.New("unknown network")
	// ErrInput: the network cannot be built for this input or number of classes.
	ErrInput = errors.New("input does not fit the network")
	// ErrLayers: a list of layers is wrong; the message names the layer and the field.
	ErrLayers = errors.New("invalid layers")
)

// MaxClasses bounds the number of outputs that Build and FromLayers accept.
const MaxClasses = 1 << 16

type network struct {
	name    string
	summary string
	build   func(*builder, int)
}

// networks is ordered as Names lists it.
var networks = []network{
	{"mlp-784-128-10", "one hidden layer of 128 with ReLU; the input, flattened, and the classes follow the data", mlp(128)},
	{"lenet-300-100", "two hidden layers of 300 and 100 with ReLU on the flattened input (LeCun et al. 1998)", mlp(300, 100)},
	{"lenet-5", "two 5×5 convolutions with max-pooling, then 120, 84 and classes; ReLU (after LeCun et al. 1998)", lenet5},
	{"seed-cnn", "three 3×3 convolutions (32, 64, 64) with two max-pools, then 64 and classes; valid padding, ReLU", seedCNN},
	{"resnet-8", "residual network with 3 stacks of 16, 32 and 64 channels (MLPerf Tiny, image classification)", resnet8},
	{"ds-cnn", "depthwise-separable convolutions of 64 channels (MLPerf Tiny, keyword spotting)", dsCNN},
	{"mobilenet-025", "MobileNet v1 of width 0.25 (MLPerf Tiny, visual wake words)", mobilenet025},
	{"autoencoder-fc", "fully connected autoencoder 128×4, 8, 128×4; the output has the input's size (MLPerf Tiny, anomaly detection)", autoencoderFC},
}

// Names lists the built-in networks.
func Names() []string {
	out := make([]string, len(networks))
	for i, n := range networks {
		out[i] = n.name
	}
	return out
}

func find(name string) (network, error) {
	i := slices.IndexFunc(networks, func(n network) bool { return n.name == name })
	if i < 0 {
		return network{}, fmt.Errorf("%w: %q: want one of %s", ErrName, name, strings.Join(Names(), ", "))
	}
	return networks[i], nil
}

// Describe gives one line about a network. The error wraps ErrName.
func Describe(name string) (string, error) {
	n, err := find(name)
	return n.summary, err
}

// Build makes a network for one example's shape, {H, W, C} or {N}, and that many
// classes, with parameters initialised from seed: the same seed gives the same bits.
// For autoencoder-fc, whose output is its input, classes is 0 or the number of input
// elements. Errors wrap ErrName or ErrInput.
func Build(name string, input model.Shape, classes int, seed uint64) (*model.Graph, error) {
	n, err := find(name)
	if err != nil {
		return nil, err
	}
	b, err := newBuilder(name, input)
	if err != nil {
		return nil, err
	}
	if name == "autoencoder-fc" {
		if elements := input.Elements(); classes != 0 && classes != elements {
			return nil, fmt.Errorf("%w: %s: %d outputs: want 0 or the input's %d elements", ErrInput, name, classes, elements)
		}
	} else if classes < 1 || classes > MaxClasses {
		return nil, fmt.Errorf("%w: %s: %d classes: want 1 to %d", ErrInput, name, classes, MaxClasses)
	}
	n.build(b, classes)
	return b.graph(seed)
}

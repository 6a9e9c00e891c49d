package trainer

import (
	"context"
	"errors"
	"fmt"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/kernel"
	"github.com/espalier-ml/espalier/model/prune"
	"github.com/espalier-ml/espalier/model/train"
)

// rateFloor is the part of the rate that is left at the end of a cosine or
// polynomial.
const rateFloor = 0.01

// Native trains in this process.
type Native struct{}

var _ Trainer = Native{}

// errHalted ends a training from its gate.
var errHalted = errors.New("halted")

// Variant implements Trainer: the kernel variant.
func (Native) Variant() string { return string(kernel.Active()) }

// Train implements Trainer.
func (Native) Train(ctx context.Context, spec Spec, w Watch) (Result, error) {
	if spec.Checkpoint == nil || spec.Data == nil {
		return Result{}, fmt.Errorf("%w: no checkpoint or no data", ErrSpec)
	}
	loader, err := data.NewLoader(spec.Data, spec.Data.Train, data.LoaderConfig{Batch: spec.Batch, Seed: spec.Seed, Shuffle: true, Augment: spec.Augment})
	if err != nil {
		return Result{}, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	g := spec.Checkpoint.Clone()
	opts := train.Options{
		Epochs: spec.Epochs, Optimizer: train.Optimizer(spec.Optimizer), Momentum: spec.Momentum, Rate: spec.Rate,
		WeightDecay: spec.WeightDecay, L1: spec.L1, Clip: spec.Clip, LabelSmoothing: spec.LabelSmoothing,
		Schedule: schedule(spec), Seed: spec.Seed, Threads: spec.Threads, Masks: maskMap(spec.Masks), Gate: gate(w),
	}
	if w.Progress != nil {
		opts.OnProgress = func(p train.Progress) {
			w.Progress(Progress{Step: p.Step, Steps: p.Steps, Loss: p.MeanLoss})
		}
	}
	res, err := train.Train(ctx, g, loader, opts)
	out := Result{Checkpoint: g, Steps: res.Steps, Loss: res.Loss}
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, errHalted):
		out.Halted = true
		return out, nil
	case errors.Is(err, train.ErrDiverged):
		return Result{}, fmt.Errorf("%w: %w", ErrDiverged, err)
	case errors.Is(err, train.ErrOptions), errors.Is(err, train.ErrData), errors.Is(err, train.ErrGraph):
		return Result{}, fmt.Errorf("%w: %w", ErrSpec, err)
	default:
		return Result{}, err
	}
}

func schedule(spec Spec) train.Schedule {
	switch {
	case spec.Hold:
		return train.Schedule{Kind: train.Constant}
	case spec.Schedule == "":
		spec.Schedule = string(train.Cosine)
	}
	return train.Schedule{Kind: train.ScheduleKind(spec.Schedule), WarmUp: spec.WarmUp, Floor: rateFloor}
}

// gate asks for a halt, then for room.
func gate(w Watch) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-w.Halted:
			return errHalted
		default:
		}
		if w.Gate == nil {
			return nil
		}
		return w.Gate(ctx)
	}
}

// maskMap translates masks of weights for training.
func maskMap(m *prune.Masks) train.Masks {
	if m == nil {
		return nil
	}
	out := train.Masks{}
	for _, layer := range m.Layers() {
		out[layer] = map[string][]bool{model.Weight: m.Of(layer)}
	}
	return out
}

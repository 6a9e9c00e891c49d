package task

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/prune"
	"github.com/espalier-ml/espalier/model/zoo"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/worker/trainer"
)

// baseline trains the dense model: data → build → train → evaluate → store.
func (j *job) baseline(o *Outcome) error {
	spec := j.lease.GetSpec()
	j.begin("data", 0, 0.02)
	file, err := j.fetch(&espalierv1.FileRef{Hash: spec.GetData().GetHash(), Format: "data"}, "data set")
	if err != nil {
		return err
	}
	return j.noisily(func() error {
		set, release, err := j.sets.use(setKey{spec.GetData().GetHash(), spec.GetData().GetSeed()}, file.Path)
		if err != nil {
			return err
		}
		defer release()
		dense, err := j.build(set)
		if err != nil {
			return fmt.Errorf("build model: %w", err)
		}
		groups, strategies, err := applicable(dense, spec.GetSpace().GetStrategies())
		if err != nil {
			return err
		}
		begun := time.Now()
		j.begin("train", 0.02, 0.9)
		trained, err := j.train(trainer.Spec{
			Checkpoint: dense, Data: set, Epochs: spec.GetTrain().GetEpochs(), Rate: spec.GetTrain().GetRate(),
			Seed: deriveSeed(spec.GetSearch().GetSeed(), 0, seedTrain, 0),
		})
		if err != nil {
			return fmt.Errorf("train the dense model: %w", err)
		}
		m, err := j.finish(o, set, trained, nil, false)
		if err != nil {
			return err
		}
		o.Baseline = &espalierv1.Baseline{
			Accuracy: m.validation.Accuracy, TestAccuracy: m.test.Accuracy, Loss: m.validation.Loss,
			Params: m.cost.Params, Nonzeros: m.cost.NonZeros, Macs: m.cost.MACs,
			Checkpoint: m.checkpoint, Artifacts: m.artifacts, Groups: groups, Strategies: strategies,
			Variant: j.cfg.Trainer.Variant(), Version: j.cfg.Version, SplitHash: set.SplitHash(),
			TrainMs: time.Since(begun).Milliseconds(),
		}
		return nil
	})
}

// build makes the dense model with its initial weights.
func (j *job) build(set *data.Set) (*model.Graph, error) {
	m := j.lease.GetSpec().GetModel()
	seed := deriveSeed(j.lease.GetSpec().GetSearch().GetSeed(), 0, seedWeights, 0)
	switch m.GetSource().(type) {
	case *espalierv1.ModelSpec_Zoo:
		return zoo.Build(m.GetZoo(), set.Shape, len(set.Classes), seed)
	case *espalierv1.ModelSpec_Layers:
		return zoo.FromLayers(layers(m.GetLayers()), set.Shape, len(set.Classes), seed)
	default:
		return nil, fmt.Errorf("%w: this worker builds networks of the zoo and from layers only", ErrPermanent)
	}
}

// layers translates a job's own network.
func layers(list *espalierv1.LayerList) []zoo.LayerSpec {
	out := make([]zoo.LayerSpec, len(list.GetLayers()))
	for i, l := range list.GetLayers() {
		out[i] = zoo.LayerSpec{
			Op: l.GetKind(), Name: l.GetName(), From: l.GetInputs(), Out: int(l.GetOut()), Kernel: pair(l.GetKernel()),
			Stride: pair(l.GetStride()), Dilation: pair(l.GetDilation()), Padding: l.GetPadding(), Groups: int(l.GetGroups()),
			Bias: l.Bias, Norm: l.GetNorm(), Activation: l.GetActivation(), Alpha: float32(l.GetAlpha()), Rate: float32(l.GetRate()),
		}
	}
	return out
}

// pair is height and width; nothing is {0, 0}, one number both.
func pair(v []int32) (p zoo.Pair) {
	switch len(v) {
	case 0:
	case 1:
		p = zoo.Pair{int(v[0]), int(v[0])}
	default:
		p = zoo.Pair{int(v[0]), int(v[1])}
	}
	return p
}

// train trains with what all trainings of the job share.
func (j *job) train(s trainer.Spec) (*model.Graph, error) {
	t := j.lease.GetSpec().GetTrain()
	s.Batch, s.Optimizer, s.Threads = int(t.GetBatch()), t.GetOptimizer(), j.threads
	s.Momentum, s.WeightDecay, s.L1, s.Clip, s.LabelSmoothing = t.GetMomentum(), t.GetWeightDecay(), t.GetL1(), t.GetClip(), t.GetLabelSmoothing()
	s.Schedule, s.WarmUp, s.Augment = t.GetSchedule(), t.GetWarmUp(), augmentation(t)
	res, err := j.cfg.Trainer.Train(j.ctx, s, trainer.Watch{
		Gate:   j.cfg.Gate.Step,
		Halted: j.control.Halted(),
		Progress: func(p trainer.Progress) {
			j.stage.loss = p.Loss
			j.at(float64(p.Step) / float64(p.Steps))
		},
	})
	return res.Checkpoint, err
}

func augmentation(t *espalierv1.TrainSpec) data.Augment {
	a := t.GetAugment()
	return data.Augment{Shift: int(a.GetShift()), Flip: a.GetFlip(), Crop: a.GetCrop()}
}

// applicable lists the groups of a model, and those of the strategies that could
// remove something from it.
func applicable(g *model.Graph, strategies []string) ([]*espalierv1.Group, []string, error) {
	groups, err := prune.Groups(g)
	if err != nil {
		return nil, nil, fmt.Errorf("find groups: %w", err)
	}
	var out []*espalierv1.Group
	for _, k := range groups {
		p := &espalierv1.Group{Name: k.Name, Channels: int32(k.Channels), Prunable: k.Prunable, Weights: k.WeightParams}
		for _, i := range k.Producers {
			p.Layers = append(p.Layers, g.Layers[i].Name)
		}
		out = append(out, p)
	}
	var names []string
	var refused []error
	for _, name := range strategies {
		s, err := lookup(name)
		if err != nil {
			return nil, nil, err
		}
		if err := s.Applicable(g); err != nil {
			refused = append(refused, err)
			continue
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("%w: no strategy of the job applies to this model: %w", ErrPermanent, errors.Join(refused...))
	}
	return out, names, nil
}

// lookup finds a strategy that trials can carry out.
func lookup(name string) (prune.Strategy, error) {
	s, err := prune.Lookup(name)
	if err != nil {
		return nil, err
	}
	if s.Info().NeedsGradients {
		return nil, fmt.Errorf("%w: strategy %s needs gradients, which trials do not compute", ErrPermanent, name)
	}
	return s, nil
}

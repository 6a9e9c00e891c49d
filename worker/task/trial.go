package task

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/prune"
	"github.com/espalier-ml/espalier/model/safetensors"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/worker/cache"
	"github.com/espalier-ml/espalier/worker/trainer"
)

// The steps of the schedules that prune little by little. Half of the
// fine-tuning is shared by all steps but the last, which gets the other half.
const (
	iterativeSteps  = 3
	polynomialSteps = 5
	lastShare       = 0.5
)

// trial prunes → fine-tunes → rebuilds → quantizes → evaluates → stores, from the dense model
// or another trial's checkpoint. Rebuilding is part of every step of the
// schedule: channels go at once, and what training holds is only the masks.
func (j *job) trial(o *Outcome) error {
	spec := j.lease.GetSpec()
	plan, err := j.plan()
	if err != nil {
		return err
	}
	j.begin("data", 0, 0.02)
	file, err := j.fetch(&espalierv1.FileRef{Hash: spec.GetData().GetHash(), Format: "data"}, "data set")
	if err != nil {
		return err
	}
	denseFile, startFile, err := j.parents()
	if err != nil {
		return err
	}
	return j.noisily(func() error {
		set, release, err := j.sets.use(setKey{spec.GetData().GetHash(), spec.GetData().GetSeed()}, file.Path)
		if err != nil {
			return err
		}
		defer release()
		dense, start, err := readParents(denseFile, startFile)
		if err != nil {
			return err
		}
		groups, err := prune.Groups(dense)
		if err != nil {
			return fmt.Errorf("find groups: %w", err)
		}
		begun := time.Now()
		pruned, masks, err := j.pruneAndTune(plan, set, start, groups)
		if err != nil {
			return err
		}
		m, err := j.finish(o, set, pruned, masks, plan.int8)
		if err != nil {
			return err
		}
		reached, err := reached(plan.strategy.Info(), groups, pruned)
		if err != nil {
			return err
		}
		o.Trial = &espalierv1.TrialResult{
			Accuracy: m.validation.Accuracy, TestAccuracy: m.test.Accuracy, Loss: m.validation.Loss,
			Params: m.cost.Params, Nonzeros: m.cost.NonZeros, Macs: m.cost.MACs,
			Checkpoint: m.checkpoint, Artifacts: m.artifacts, Sparsity: reached,
			Variant: j.cfg.Trainer.Variant(), Version: j.cfg.Version, TrainMs: time.Since(begun).Milliseconds(),
		}
		return nil
	})
}

// plan is what a trial's configuration asks for.
type plan struct {
	strategy prune.Strategy
	schedule string
	steps    int
	epochs   float64
	rate     float64
	int8     bool // the files are int8
}

// plan checks the configuration as far as the model is not needed.
func (j *job) plan() (*plan, error) {
	c := j.lease.GetConfig()
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("%w: trial configuration: %s is %v; want %s", ErrPermanent, field, value, want)
	}
	s, err := lookup(c.GetStrategy())
	if err != nil {
		return nil, err
	}
	p := &plan{strategy: s, schedule: c.GetSchedule(), steps: 1, epochs: c.GetFinetuneEpochs(), rate: c.GetFinetuneRate()}
	switch p.schedule {
	case "", prune.OneShot:
		p.schedule = prune.OneShot
	case prune.Iterative:
		p.steps = iterativeSteps
	case prune.Polynomial:
		p.steps = polynomialSteps
	default:
		return nil, bad("schedule", p.schedule, "one-shot, iterative or polynomial")
	}
	if p.rate == 0 {
		p.rate = j.lease.GetSpec().GetTrain().GetRate()
	}
	switch {
	case !(p.epochs >= 0 && p.epochs <= 1e6):
		return nil, bad("finetune_epochs", p.epochs, "0 to 1000000")
	case !slices.Contains([]string{"", quantizeNone, quantizeInt8}, c.GetQuantize()):
		return nil, bad("quantize", c.GetQuantize(), quantizeNone+" or "+quantizeInt8)
	case c.GetDistill():
		return nil, bad("distill", true, "false")
	}
	p.int8 = c.GetQuantize() == quantizeInt8
	return p, nil
}

// What a trial's configuration says of quantization, as jobs do.
const (
	quantizeNone = "none"
	quantizeInt8 = "int8"
)

// target is what to remove of the dense model.
func (p *plan) target(c *espalierv1.TrialConfig, groups []prune.Group) (prune.Target, error) {
	info := p.strategy.Info()
	t := prune.Target{}
	if info.Structured {
		t.Channels = map[string]float64{}
	}
	if info.Unstructured {
		t.Weights = map[string]float64{}
	}
	known := map[string]bool{}
	for _, g := range groups {
		known[g.Name] = true
		s := c.GetSparsity()[g.Name]
		switch {
		case info.Structured && info.Unstructured:
			t.Weights[g.Name] = c.GetWeightSparsity()
			if g.Prunable {
				t.Channels[g.Name] = s
			}
		case info.Structured && g.Prunable:
			t.Channels[g.Name] = s
		case info.Unstructured:
			t.Weights[g.Name] = s
		}
	}
	for name := range c.GetSparsity() {
		if !known[name] {
			return t, fmt.Errorf("%w: trial configuration: sparsity of %q: the model has no such group", ErrPermanent, name)
		}
	}
	return t, nil
}

// parents brings the dense model's checkpoint and the one to start from. One that
// is gone is replaced by the dense model's.
func (j *job) parents() (dense, start *cache.File, err error) {
	ref := j.lease.GetBaseline().GetCheckpoint()
	if dense, err = j.fetch(ref, "checkpoint of the dense model"); err != nil {
		return nil, nil, err
	}
	j.started = ref.GetHash()
	parent := j.lease.GetParent()
	if parent.GetHash() == "" || parent.GetHash() == ref.GetHash() {
		return dense, dense, nil
	}
	start, err = j.fetch(parent, "checkpoint to start from")
	if connect.CodeOf(err) == connect.CodeNotFound {
		return dense, dense, nil
	}
	j.started = parent.GetHash()
	return dense, start, err
}

func readParents(denseFile, startFile *cache.File) (dense, start *model.Graph, err error) {
	if dense, err = readCheckpoint(denseFile.Path); err != nil {
		return nil, nil, fmt.Errorf("read checkpoint of the dense model: %w", err)
	}
	if startFile == denseFile {
		return dense, dense, nil
	}
	if start, err = readCheckpoint(startFile.Path); err != nil {
		return nil, nil, fmt.Errorf("read checkpoint to start from: %w", err)
	}
	return dense, start, nil
}

func readCheckpoint(path string) (*model.Graph, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := safetensors.ReadGraph(f, safetensors.Limits{})
	if err != nil {
		return nil, err
	}
	return c.Graph, nil
}

// pruneAndTune carries out the schedule. A halt shortens the training; what is to
// be removed is removed all the same.
func (j *job) pruneAndTune(p *plan, set *data.Set, g *model.Graph, groups []prune.Group) (*model.Graph, *prune.Masks, error) {
	c, seed, number := j.lease.GetConfig(), j.lease.GetSpec().GetSearch().GetSeed(), j.lease.GetTask().GetTrial()
	target, err := p.target(c, groups)
	if err != nil {
		return nil, nil, err
	}
	steps, err := prune.Steps(p.schedule, target, p.steps)
	if err != nil {
		return nil, nil, err
	}
	var masks *prune.Masks
	at := at0
	for i, t := range steps {
		share := p.share(i, len(steps))
		to := at + share*(at1-at0)
		j.begin("prune", at, at)
		g, masks, err = prune.Step(p.strategy, prune.Input{Graph: g, Target: t, Seed: deriveSeed(seed, number, seedPrune, i)}, groups)
		if err != nil {
			return nil, nil, fmt.Errorf("prune: %w", err)
		}
		j.begin("fine-tune", at, to)
		if p.epochs > 0 {
			g, err = j.train(trainer.Spec{
				Checkpoint: g, Masks: masks, Data: set, Epochs: p.epochs * share, Rate: p.rate, Hold: i < len(steps)-1,
				Seed: deriveSeed(seed, number, seedTrain, i),
			})
			if err != nil {
				return nil, nil, fmt.Errorf("fine-tune: %w", err)
			}
		}
		at = to
	}
	return g, masks, nil
}

// The progress of a trial when pruning begins, and when fine-tuning has ended.
const at0, at1 = 0.02, 0.9

// share is the part of the fine-tuning that step i of n gets.
func (p *plan) share(i, n int) float64 {
	switch {
	case n == 1:
		return 1
	case i == n-1:
		return lastShare
	default:
		return (1 - lastShare) / float64(n-1)
	}
}

// reached is the sparsity of each group in the end: of channels where a strategy
// removes channels only, of weights where it removes weights only, and of the
// group's weights, removed either way, where it removes both.
func reached(info prune.Info, groups []prune.Group, pruned *model.Graph) (map[string]float64, error) {
	now, err := prune.Groups(pruned)
	if err != nil {
		return nil, fmt.Errorf("find groups: %w", err)
	}
	if len(now) != len(groups) {
		return nil, errors.New("pruning changed the groups")
	}
	out := map[string]float64{}
	for i, g := range groups {
		switch {
		case info.Structured && !info.Unstructured:
			out[g.Name] = 1 - float64(now[i].Channels)/float64(g.Channels)
		default:
			left := 0
			for _, k := range now[i].Producers {
				left += pruned.Layers[k].Params[model.Weight].NonZeros()
			}
			out[g.Name] = 1 - float64(left)/float64(g.WeightParams)
		}
	}
	return out, nil
}

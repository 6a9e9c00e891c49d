package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/esp"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/onnx"
	"github.com/espalier-ml/espalier/model/prune"
	"github.com/espalier-ml/espalier/model/safetensors"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// made is what a training comes to.
type made struct {
	validation, test infer.Score
	cost             model.Cost
	checkpoint       *espalierv1.FileRef
	artifacts        []*espalierv1.FileRef
}

// finish evaluates and stores a trained model: its checkpoint, to go on from, and
// its artifacts, to run, which may be int8. What is evaluated and counted is what the
// artifacts hold.
func (j *job) finish(o *Outcome, set *data.Set, trained *model.Graph, masks *prune.Masks, int8 bool) (*made, error) {
	final, err := j.final(set, trained)
	if err != nil {
		return nil, err
	}
	if int8 {
		j.begin("quantize", 0.9, 0.9)
		if final, err = infer.Quantize(j.ctx, final, set, spread(set.Train, calibrateExamples)); err != nil {
			return nil, fmt.Errorf("quantize: %w", err)
		}
	}
	j.begin("evaluate", 0.9, 0.98)
	m := &made{}
	if m.cost, err = final.Cost(); err != nil {
		return nil, err
	}
	for i, part := range []struct {
		name    string
		indices []int32
		score   *infer.Score
	}{{"validation", set.Validation, &m.validation}, {"test", set.Test, &m.test}} {
		opts := infer.EvaluateOptions{Threads: j.threads, Gate: j.cfg.Gate.Step}
		if *part.score, err = infer.Evaluate(j.ctx, final, set, part.indices, opts); err != nil {
			return nil, fmt.Errorf("evaluate on the %s split: %w", part.name, err)
		}
		if math.IsNaN(part.score.Loss) || math.IsInf(part.score.Loss, 0) {
			return nil, fmt.Errorf("%w: loss on the %s split is %v", ErrPermanent, part.name, part.score.Loss)
		}
		j.stage.accuracy = m.validation.Accuracy
		j.at(float64(i+1) / 2)
	}
	j.begin("store", 0.98, 1)
	return m, j.store(o, m, trained, final, masks)
}

// calibrateExamples are those of the training split on which activations are seen.
const calibrateExamples = 512

// spread is n of the indices at equal distances, or all if there are fewer.
func spread(indices []int32, n int) []int32 {
	if len(indices) <= n {
		return indices
	}
	out := make([]int32, n)
	for i := range out {
		out[i] = indices[i*len(indices)/n]
	}
	return out
}

// final is the model as files hold it: without what inference does not need, and
// with its lineage.
func (j *job) final(set *data.Set, trained *model.Graph) (*model.Graph, error) {
	g, err := model.Simplify(trained)
	if err != nil {
		return nil, fmt.Errorf("simplify: %w", err)
	}
	if g, err = model.FoldBatchNorm(g); err != nil {
		return nil, fmt.Errorf("fold batch normalisation: %w", err)
	}
	lineage, err := j.lineage(set)
	if err != nil {
		return nil, err
	}
	g.Meta = set.Meta()
	g.Meta[model.MetaJob] = j.lease.GetTask().GetJob()
	g.Meta[model.MetaTrial] = strconv.Itoa(int(j.lease.GetTask().GetTrial()))
	g.Meta[model.MetaLineage] = lineage
	return g, nil
}

// store keeps the files and names them in m; they stay in use with o.
func (j *job) store(o *Outcome, m *made, trained, final *model.Graph, masks *prune.Masks) error {
	keep := func(format string, write func(*bytes.Buffer) error) (*espalierv1.FileRef, error) {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return nil, fmt.Errorf("write %s file: %w", format, err)
		}
		f, err := j.cfg.Files.Add(j.ctx, b.Bytes(), format)
		if err != nil {
			return nil, fmt.Errorf("store %s file: %w", format, err)
		}
		o.Files = append(o.Files, f)
		return f.Ref, nil
	}
	var err error
	var extra map[string]*model.Tensor
	if masks != nil {
		extra = masks.Tensors()
	}
	meta := map[string]string{model.MetaLineage: final.Meta[model.MetaLineage]}
	m.checkpoint, err = keep("checkpoint", func(b *bytes.Buffer) error { return safetensors.WriteGraph(b, trained, extra, meta) })
	if err != nil {
		return err
	}
	for _, a := range []struct {
		format string
		write  func(*bytes.Buffer) error
	}{
		{"esp", func(b *bytes.Buffer) error { return esp.Write(b, final) }},
		{"onnx", func(b *bytes.Buffer) error { return onnx.Write(b, final, onnx.Options{ProducerVersion: j.cfg.Version}) }},
	} {
		ref, err := keep(a.format, a.write)
		if err != nil {
			return err
		}
		m.artifacts = append(m.artifacts, ref)
	}
	return nil
}

// lineage says how a model was made: all of it, and nothing of when, where or at
// which attempt, so that making it again gives the same bytes.
type lineage struct {
	Job            string             `json:"job"`
	Trial          int32              `json:"trial"`
	Model          string             `json:"model"`
	Data           string             `json:"data"`
	Split          string             `json:"split"`
	Seed           uint64             `json:"seed"`
	Train          lineageTrain       `json:"train"`
	Strategy       string             `json:"strategy,omitempty"`
	Sparsity       map[string]float64 `json:"sparsity,omitempty"`
	WeightSparsity float64            `json:"weight_sparsity,omitempty"`
	Schedule       string             `json:"schedule,omitempty"`
	Finetune       *lineageTrain      `json:"finetune,omitempty"`
	Quantize       string             `json:"quantize,omitempty"` // int8, else nothing
	Parent         int32              `json:"parent,omitempty"`
	Checkpoint     string             `json:"checkpoint,omitempty"` // that it started from
	Variant        string             `json:"variant"`
	Version        string             `json:"version"`
}

type lineageTrain struct {
	Epochs      float64 `json:"epochs"`
	Batch       int32   `json:"batch"`
	Optimizer   string  `json:"optimizer"`
	Rate        float64 `json:"rate"`
	WeightDecay float64 `json:"weight_decay,omitempty"`

	Momentum       float64         `json:"momentum,omitempty"`
	L1             float64         `json:"l1,omitempty"`
	Clip           float64         `json:"clip,omitempty"`
	LabelSmoothing float64         `json:"label_smoothing,omitempty"`
	Schedule       string          `json:"schedule,omitempty"`
	WarmUp         float64         `json:"warm_up,omitempty"`
	Augment        *lineageAugment `json:"augment,omitempty"`
}

type lineageAugment struct {
	Shift int     `json:"shift,omitempty"`
	Flip  bool    `json:"flip,omitempty"`
	Crop  float64 `json:"crop,omitempty"`
}

func newLineageTrain(t *espalierv1.TrainSpec, epochs, rate float64) lineageTrain {
	l := lineageTrain{
		Epochs: epochs, Batch: t.GetBatch(), Optimizer: t.GetOptimizer(), Rate: rate, WeightDecay: t.GetWeightDecay(), Momentum: t.GetMomentum(),
		L1: t.GetL1(), Clip: t.GetClip(), LabelSmoothing: t.GetLabelSmoothing(), Schedule: t.GetSchedule(), WarmUp: t.GetWarmUp(),
	}
	if a := augmentation(t); !a.IsZero() {
		l.Augment = &lineageAugment{a.Shift, a.Flip, a.Crop}
	}
	return l
}

// modelName is the network's name in the zoo, or names a user's own by its layers.
func modelName(m *espalierv1.ModelSpec) string {
	if m.GetLayers() == nil {
		return m.GetZoo()
	}
	var kinds []string
	for _, l := range m.GetLayers().GetLayers() {
		kinds = append(kinds, l.GetKind())
	}
	return "layers: " + strings.Join(kinds, " ")
}

func (j *job) lineage(set *data.Set) (string, error) {
	spec, c, t := j.lease.GetSpec(), j.lease.GetConfig(), j.lease.GetSpec().GetTrain()
	l := lineage{
		Job: spec.GetName(), Trial: j.lease.GetTask().GetTrial(), Model: modelName(spec.GetModel()),
		Data: spec.GetData().GetHash(), Split: set.SplitHash(), Seed: spec.GetSearch().GetSeed(),
		Train:   newLineageTrain(t, t.GetEpochs(), t.GetRate()),
		Variant: j.cfg.Trainer.Variant(), Version: j.cfg.Version,
	}
	if c != nil {
		l.Strategy, l.Sparsity, l.WeightSparsity, l.Schedule = c.GetStrategy(), c.GetSparsity(), c.GetWeightSparsity(), c.GetSchedule()
		tuned := newLineageTrain(t, c.GetFinetuneEpochs(), c.GetFinetuneRate())
		l.Finetune = &tuned
		l.Parent, l.Checkpoint = c.GetParent(), j.started
		if c.GetQuantize() == quantizeInt8 {
			l.Quantize = quantizeInt8
		}
	}
	b, err := json.Marshal(l)
	if err != nil {
		return "", fmt.Errorf("write lineage: %w", err)
	}
	return string(b), nil
}

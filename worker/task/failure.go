package task

import (
	"errors"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/esp"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/prune"
	"github.com/espalier-ml/espalier/model/safetensors"
	"github.com/espalier-ml/espalier/model/zoo"
	"github.com/espalier-ml/espalier/worker/trainer"
)

// permanentErrors are about what is asked for, or about bytes that their hash
// vouches for: another attempt would meet them again.
var permanentErrors = []error{
	ErrPermanent,
	trainer.ErrSpec, trainer.ErrDiverged,
	zoo.ErrName, zoo.ErrInput, zoo.ErrLayers,
	data.ErrFormat, data.ErrTruncated, data.ErrNoData, data.ErrTooLarge, data.ErrOption,
	model.ErrGraph, model.ErrShape, model.ErrQuant,
	prune.ErrStrategy, prune.ErrSchedule, prune.ErrTarget, prune.ErrNotApplicable, prune.ErrWeights, prune.ErrPlan, prune.ErrTooLarge,
	safetensors.ErrCorrupt, safetensors.ErrType, safetensors.ErrTooLarge, safetensors.ErrName,
	esp.ErrCorrupt, esp.ErrVersion, esp.ErrTooLarge,
	infer.ErrGraph, infer.ErrOutput, infer.ErrLength,
}

func permanent(err error) bool {
	for _, p := range permanentErrors {
		if errors.Is(err, p) {
			return true
		}
	}
	return false
}

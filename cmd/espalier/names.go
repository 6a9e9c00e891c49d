package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/prune"
	"github.com/espalier-ml/espalier/model/train"
	"github.com/espalier-ml/espalier/model/zoo"
	"github.com/espalier-ml/espalier/search/sampler"
)

// commands lists the subcommands by the group under which the help shows them.
var commands = []struct {
	title string
	add   []func() *cobra.Command
}{
	{"Search, and take the result:", []func() *cobra.Command{newDemo, newRun, newFront, newPull}},
	{"Search on a cluster:", []func() *cobra.Command{
		newServer, newWorker, newSubmit, newWatch, newJobs, newJob,
		newControl("pause", "Pause a job: running trials end, no new ones start", pauseJob),
		newControl("resume", "Go on with a paused job", resumeJob),
		newControl("cancel", "End a job: running trials are dropped, what is on its fronts stays", cancelJob),
		newWorkers, newDevices, newData, newCluster,
	}},
	{"Without a cluster:", []func() *cobra.Command{newModel, newSearch}},
}

// known is what this build offers by name.
func known() job.Names {
	return job.Names{
		Zoo:        zoo.Names(),
		Strategies: strategies(),
		Schedules:  prune.Schedules(),
		Samplers:   sampler.Names(),
		Optimizers: []string{string(train.Adam), string(train.AdamW), string(train.SGD)},
		Builtins:   data.Builtins(),
	}
}

// strategies lists those that trials can carry out: without gradients.
func strategies() []string {
	return slices.DeleteFunc(prune.Names(), func(name string) bool {
		s, err := prune.Lookup(name)
		return err != nil || s.Info().NeedsGradients
	})
}

// usagef is an error of wrong use.
func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUsage, fmt.Sprintf(format, args...))
}

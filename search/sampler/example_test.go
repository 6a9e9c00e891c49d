package sampler_test

import (
	"fmt"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/pareto"
	"github.com/espalier-ml/espalier/search/sampler"
)

// A search asks for a configuration, evaluates it, and appends the result to the history.
func Example() {
	space := search.Space{Params: []search.Param{
		{Name: "strategy", Kind: search.Choice, Choices: []string{"magnitude", "channel"}},
		{Name: "removed", Kind: search.Int, Min: 0, Max: 9},
		{Name: "epochs", Kind: search.Choice, Choices: []string{"1", "2", "4"}, Ordered: true,
			When: &search.Condition{Param: "strategy", Values: []string{"channel"}}},
	}}
	s, err := sampler.New("auto")
	if err != nil {
		fmt.Println(err)
		return
	}
	var front pareto.Front
	request := search.Request{Space: space, Seed: 1, N: 1, Objectives: 2}
	for request.First < int(space.Size()) {
		configs, err := s.Suggest(request)
		if err != nil {
			fmt.Println(err)
			return
		}
		trial := search.Trial{Number: request.First, Config: configs[0], State: search.Complete}
		removed, loss := configs[0][1], 3.0
		if epochs, ok := space.Get(configs[0], "epochs"); ok {
			loss = map[any]float64{"1": 4, "2": 2, "4": 1}[epochs]
		}
		trial.Objectives = []float64{loss * removed * removed, 100 - 10*removed}
		request.History = append(request.History, trial)
		request.First++
		front.Add(pareto.Point{Number: trial.Number, Objectives: trial.Objectives})
	}
	best := front.Members()[8]
	values, err := space.Decode(request.History[best.Number].Config)
	fmt.Println(front.Len() >= 10, best.Objectives, values, err)
	// Output: true [25 50] map[epochs:4 removed:5 strategy:channel] <nil>
}

//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/e2e/chaos/check"
)

// evidence is what the checks of the end compared, for people who look for the cause of a violation.
type evidence struct {
	Acks      []check.Ack         `json:"acknowledged_reports"`
	Ops       []check.Op          `json:"job_operations"`
	Reads     []check.Read        `json:"linearizable_reads"`
	Submitted map[string][]string `json:"jobs_by_request"`
	Jobs      []json.RawMessage   `json:"jobs"`
	Trials    []json.RawMessage   `json:"trials"`
	Fronts    []json.RawMessage   `json:"fronts"`
}

// keep writes the evidence into the run's folder.
func (e evidence) keep(dir string, state *check.State) error {
	var failed error
	raw := func(m proto.Message) json.RawMessage {
		b, err := protojson.Marshal(m)
		if err != nil {
			failed = err
		}
		return b
	}
	for _, j := range state.Jobs {
		e.Jobs = append(e.Jobs, raw(j))
		for _, t := range state.Trials[j.GetJob().GetId()] {
			e.Trials = append(e.Trials, raw(t))
		}
		for _, f := range state.Fronts[j.GetJob().GetId()] {
			e.Fronts = append(e.Fronts, raw(f))
		}
	}
	if failed != nil {
		return failed
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "evidence.json"), data, 0o644)
}

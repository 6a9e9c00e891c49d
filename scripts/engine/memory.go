package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/esp"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/train"
)

// memory is the most that a process of its own had resident.
type memory struct {
	What      string `json:"what"`
	Network   string `json:"network"`
	Resident  int64  `json:"resident_bytes"`
	Given     int64  `json:"given_bytes"` // of it, weights for inference, the data set for training
	GivenName string `json:"given"`
}

// beyond is what counts against the bound, in megabytes.
func (m memory) beyond() float64 { return float64(m.Resident-m.Given) / 1e6 }

// Names of what the rows measure.
const (
	memoryTraining  = "training at batch 64"
	memoryInference = "inference at batch 1"
)

// memory adds the rows of resident memory: each is measured in a fresh process, this
// program again, with all that it brings along.
func (s *settings) memory(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, n := range networks {
		if !s.wants("memory", n.name) {
			continue
		}
		g, err := n.build()
		if err != nil {
			return err
		}
		file := filepath.Join(dir, n.name+".esp")
		var b bytes.Buffer
		if err := esp.Write(&b, g); err != nil {
			return err
		}
		if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
			return err
		}
		cost, err := g.Cost()
		if err != nil {
			return err
		}
		for _, m := range []memory{
			{What: memoryInference, Network: n.name, Given: 4 * cost.Params, GivenName: "weights"},
			{What: memoryTraining, Network: n.name, Given: memoryExamples * 4 * int64(g.Input.Elements()), GivenName: "data set"},
		} {
			if m.Resident, err = residentOf(ctx, m.What, file); err != nil {
				return fmt.Errorf("memory of %s of %s: %w", m.What, n.name, err)
			}
			s.Memory = append(s.Memory, m)
		}
	}
	return nil
}

// residentOf runs this program again to do one thing and tell its memory.
func residentOf(ctx context.Context, what, file string) (int64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	c := exec.CommandContext(ctx, self, "-resident", what, file)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
}

// memoryExamples are those of the data set of a training whose memory is measured.
const memoryExamples = 2048

// resident does what it says with a model file, and prints the most memory that this
// process has had resident.
func resident(ctx context.Context, what, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	g, err := esp.Read(f, esp.Limits{})
	if err != nil {
		return err
	}
	switch what {
	case memoryInference:
		plan, err := infer.Compile(g, infer.Options{Tune: true})
		if err != nil {
			return err
		}
		x, y := bench.Input(plan.InputSize()), make([]float32, plan.OutputSize())
		for range 1000 {
			if err := plan.Run(x, y); err != nil {
				return err
			}
		}
	case memoryTraining:
		set := &data.Set{Name: "random", Shape: g.Input, Classes: strings.Fields("0 1 2 3 4 5 6 7 8 9"),
			Features: bench.Input(memoryExamples * g.Input.Elements()), Labels: make([]int32, memoryExamples), TestFrom: memoryExamples}
		for i := range set.Labels {
			set.Labels[i] = int32(i % 10)
		}
		if err := set.Split(data.SplitOptions{Seed: 1}); err != nil {
			return err
		}
		l, err := data.NewLoader(set, set.Train, data.LoaderConfig{Batch: batchSize, Seed: 1, Shuffle: true})
		if err != nil {
			return err
		}
		if _, err := train.Train(ctx, g, l, train.Options{Steps: 60, Threads: 1}); err != nil {
			return err
		}
	default:
		return fmt.Errorf("resident %q: want %q or %q", what, memoryInference, memoryTraining)
	}
	n, err := highWater()
	if err != nil {
		return err
	}
	_, err = fmt.Println(n)
	return err
}

// highWater is the most bytes that this process has had resident.
func highWater() (int64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for l := bufio.NewScanner(f); l.Scan(); {
		if kb, ok := strings.CutPrefix(l.Text(), "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(kb, "kB")), 10, 64)
			return n * 1024, err
		}
	}
	return 0, errors.New("no VmHWM in /proc/self/status: want Linux")
}

package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/kernel"
	"github.com/espalier-ml/espalier/model/train"
)

const batchSize = 64

// same gives one batch again and again.
type same struct{ b *data.Batch }

func (s same) Steps() int { return 1 << 20 }

func (s same) Epoch(int) iter.Seq[*data.Batch] {
	return func(yield func(*data.Batch) bool) {
		for yield(s.b) {
		}
	}
}

var errEnough = errors.New("enough")

// layouts of PyTorch that n can have.
func (n network) layouts() []string {
	if n.flat {
		return []string{"nchw"}
	}
	return []string{"nchw", "nhwc"}
}

// train adds the rows of training steps.
func (s *settings) train(ctx context.Context) error {
	for _, n := range networks {
		if !s.wants("train", n.name) {
			continue
		}
		for _, threads := range []int{1, 2} {
			var all []contender
			var theirs []string
			for _, k := range s.kernels {
				all = append(all, contender{string(k), func() (float64, error) { return s.step(ctx, n, threads, k) }})
			}
			for _, layout := range n.layouts() {
				if s.torch != nil {
					theirs = append(theirs, "torch "+layout)
					all = append(all, contender{"torch " + layout, func() (float64, error) { return s.torch.step(n.name, threads, layout, s.turn, s.cpu) }})
				}
			}
			times, err := s.contest(all)
			if err != nil {
				return err
			}
			for _, k := range s.kernels {
				s.row(row{What: stepRow, Network: n.name, Threads: threads, Kernel: string(k)}, times, string(k), theirs...)
			}
		}
	}
	return nil
}

// pair adds the row of two trials at once, one thread each, against two
// processes of PyTorch: the time in which the two together finish one step.
func (s *settings) pair(ctx context.Context) error {
	n := networks[0]
	if s.cpu || !s.wants("pair", n.name) {
		return nil
	}
	both := func(one, other func() (float64, error)) (float64, error) {
		var us [2]float64
		var errs [2]error
		var wg sync.WaitGroup
		wg.Go(func() { us[0], errs[0] = one() })
		wg.Go(func() { us[1], errs[1] = other() })
		wg.Wait()
		return 1 / (1/us[0] + 1/us[1]), errors.Join(errs[:]...)
	}
	var all []contender
	for _, k := range s.kernels {
		all = append(all, contender{string(k), func() (float64, error) {
			restore, err := kernel.Force(k)
			if err != nil {
				return 0, err
			}
			defer restore()
			f := func() (float64, error) { return s.steps(ctx, n, 1) }
			return both(f, f)
		}})
	}
	var theirs []string
	for _, layout := range n.layouts() {
		if s.second != nil {
			name := "2 processes of torch " + layout
			f := func(t *torch) func() (float64, error) {
				return func() (float64, error) { return t.step(n.name, 1, layout, s.turn, false) }
			}
			theirs = append(theirs, name)
			all = append(all, contender{name, func() (float64, error) { return both(f(s.torch), f(s.second)) }})
		}
	}
	times, err := s.contest(all)
	if err != nil {
		return err
	}
	for _, k := range s.kernels {
		s.row(row{What: pairRow, Network: n.name, Threads: 1, Kernel: string(k)}, times, string(k), theirs...)
	}
	return nil
}

// gorgonia adds the rows of what Gorgonia costs, from the benchmark of
// model/train that compares its steps with a plain loop.
func (s *settings) gorgonia(ctx context.Context) error {
	if s.tax == "" || !s.wants("tax", "seed-cnn") {
		return nil
	}
	c := exec.CommandContext(ctx, s.tax, "-test.run", "^$", "-test.bench", "^BenchmarkTax$", "-test.benchtime", fmt.Sprintf("%dx", 20*s.turns))
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("measure the tax: %w: %s", err, out)
	}
	for _, m := range taxLine.FindAllStringSubmatch(string(out), -1) {
		threads, _ := strconv.Atoi(m[1]) // matched digits
		ratio, err1 := strconv.ParseFloat(m[2], 64)
		plain, err2 := strconv.ParseFloat(m[3], 64)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("measure the tax: %w", err)
		}
		s.Rows = append(s.Rows, row{What: taxRow, Network: "seed-cnn", Threads: threads, Kernel: string(kernel.Active()),
			Ours: plain * ratio * 1e3, Against: "plain loop", Other: plain * 1e3, Ratio: 1 / ratio})
	}
	return nil
}

var taxLine = regexp.MustCompile(`threads=(\d+)\S*\s.*?([0-9.]+) machine/plain\s+([0-9.]+) plain-ms`)

// step trains for a turn and gives the median time of a step.
func (s *settings) step(ctx context.Context, n network, threads int, k kernel.Variant) (float64, error) {
	restore, err := kernel.Force(k)
	if err != nil {
		return 0, err
	}
	defer restore()
	return s.steps(ctx, n, threads)
}

// steps is step with the active variant.
func (s *settings) steps(ctx context.Context, n network, threads int) (float64, error) {
	g, err := n.build()
	if err != nil {
		return 0, err
	}
	b := &data.Batch{Inputs: bench.Input(batchSize * g.Input.Elements())}
	for i := range batchSize {
		b.Labels = append(b.Labels, int32(i%10))
	}
	var times []float64
	var start, last time.Time
	var cpu time.Duration
	_, err = train.Train(ctx, g, same{b}, train.Options{Steps: 1 << 20, Threads: threads,
		OnProgress: func(p train.Progress) {
			now := time.Now()
			if p.Step > 3 {
				times = append(times, float64(now.Sub(last).Nanoseconds())/1e3)
			} else {
				start, cpu = now, processTime()
			}
			last = time.Now()
		},
		Gate: func(context.Context) error {
			if len(times) > 0 && time.Since(start) > s.turn {
				return errEnough
			}
			return nil
		}})
	if !errors.Is(err, errEnough) {
		return 0, fmt.Errorf("train %s: %w", n.name, err)
	}
	if s.cpu {
		return float64((processTime() - cpu).Nanoseconds()) / 1e3 / float64(len(times)), nil
	}
	return median(times), nil
}

// processTime is the processor time of this process so far.
func processTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

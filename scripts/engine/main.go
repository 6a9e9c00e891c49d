// Command engine prints the speed of training and inference beside PyTorch's
// and ONNX Runtime's. Run it by scripts/bench-engine.
//
// All are measured in turns, a fraction of a second each, so that whatever else
// the machine does disturbs them alike. A row gives medians over the turns, and
// the median of the ratios within a turn.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/kernel"
	"github.com/espalier-ml/espalier/model/zoo"
)

// network is one of the measured networks.
type network struct {
	name  string
	input model.Shape
	flat  bool // PyTorch's has no layout to choose
}

var networks = []network{
	{"seed-cnn", model.Shape{32, 32, 3}, false},
	{"mlp-784-128-10", model.Shape{28, 28, 1}, true},
	{"resnet-8", model.Shape{32, 32, 3}, false},
	{"ds-cnn", model.Shape{49, 10, 1}, false},
}

func (n network) build() (*model.Graph, error) { return zoo.Build(n.name, n.input, 10, 1) }

// row is one line of the result. Times are medians; Other is the fastest
// alternative, Ratio how many times as long it takes.
type row struct {
	What    string  `json:"what"`
	Network string  `json:"network"`
	Threads int     `json:"threads"`
	Kernel  string  `json:"kernel"`
	Ours    float64 `json:"ours_us"`
	Against string  `json:"against,omitempty"`
	Other   float64 `json:"other_us,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`
}

type settings struct {
	turns   int
	turn    time.Duration
	torch   *torch
	second  *torch // for two trials at once
	ort     *bench.ONNXRuntime
	only    string
	kernels []kernel.Variant
	cpu     bool
	tax     string // the tests of model/train, built
	result
}

// result is what is printed.
type result struct {
	CPU          string        `json:"cpu"`
	Rows         []row         `json:"rows"`
	Convolutions []convolution `json:"convolutions"`
	Memory       []memory      `json:"memory"`
	Bounds       []verdict     `json:"bounds"`
}

func main() {
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func command() error {
	s := &settings{}
	flag.IntVar(&s.turns, "turns", 5, "turns that each takes")
	flag.DurationVar(&s.turn, "turn", 400*time.Millisecond, "time of a turn")
	flag.StringVar(&s.only, "only", "", "only rows of this network, or of \"train\", \"pair\", \"tax\", \"latency\", \"peak\" or \"memory\"")
	script := flag.String("torch", "", "the script that times PyTorch")
	flag.StringVar(&s.tax, "tax", "", "the built tests of model/train")
	flag.BoolVar(&s.cpu, "cpu", false, "training: processor time of the process per step, for busy machines; means something at one thread")
	asJSON := flag.Bool("json", false, "print JSON")
	names := flag.String("kernels", "", "kernel variants, comma-separated; all of this processor's but the generic one if empty")
	alone := flag.String("resident", "", "used by this program itself, to measure memory in a process of its own")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *alone != "" {
		return resident(ctx, *alone, flag.Arg(0))
	}
	s.CPU = kernel.CPU()
	s.kernels = slices.DeleteFunc(kernel.Available(), func(v kernel.Variant) bool { return v == kernel.Generic })
	if *names != "" {
		s.kernels = nil
		for _, n := range strings.Split(*names, ",") {
			s.kernels = append(s.kernels, kernel.Variant(n))
		}
	}
	if s.turns < 1 || s.turn <= 0 {
		return fmt.Errorf("turns %d of %v: want 1 or more, of some time", s.turns, s.turn)
	}
	defer s.others(ctx, *script)()
	for _, part := range []func(context.Context) error{s.train, s.pair, s.gorgonia, s.latency, s.peak, s.memory} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	s.judge()
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(s.result)
	}
	return s.print()
}

// others starts what is compared with; stop it at the end.
func (s *settings) others(ctx context.Context, script string) (stop func()) {
	stop = func() {}
	if t, err := startTorch(ctx, script); err != nil {
		fmt.Fprintln(os.Stderr, "engine: without PyTorch:", err)
	} else {
		s.torch, stop = t, t.stop
		if t, err := startTorch(ctx, script); err == nil {
			s.second, stop = t, func() { s.torch.stop(); t.stop() }
		}
	}
	r := &bench.ONNXRuntime{}
	if v, err := r.Version(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "engine: without ONNX Runtime:", err)
	} else {
		fmt.Fprintln(os.Stderr, "engine: ONNX Runtime", v)
		s.ort = r
	}
	fmt.Fprintln(os.Stderr, "engine:", s.CPU)
	return stop
}

func (s *settings) wants(what, net string) bool {
	return s.only == "" || s.only == what || s.only == net
}

// contender is what takes turns with others: it gives a time in µs.
type contender struct {
	name string
	run  func() (float64, error)
}

// contest lets contenders take turns, and gives their times by name.
func (s *settings) contest(all []contender) (map[string][]float64, error) {
	times := map[string][]float64{}
	for range s.turns {
		for _, c := range all {
			us, err := c.run()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			times[c.name] = append(times[c.name], us)
		}
	}
	return times, nil
}

// row adds a row: the times of ours against the fastest of others that took
// part.
func (s *settings) row(r row, times map[string][]float64, ours string, others ...string) {
	r.Ours = median(times[ours])
	for _, name := range others {
		if len(times[name]) == 0 {
			continue
		}
		if m := median(times[name]); r.Against == "" || m < r.Other {
			r.Against, r.Other = name, m
			var ratios []float64
			for i, us := range times[ours] {
				ratios = append(ratios, times[name][i]/us)
			}
			r.Ratio = median(ratios)
		}
	}
	s.Rows = append(s.Rows, r)
	fmt.Fprintf(os.Stderr, "engine: %+v\n", r)
}

func median(x []float64) float64 {
	y := slices.Sorted(slices.Values(x))
	if n := len(y); n%2 == 0 {
		return (y[n/2-1] + y[n/2]) / 2
	}
	return y[len(y)/2]
}

func (s *settings) print() error {
	w := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, s.CPU)
	if len(s.Rows) > 0 {
		fmt.Fprintln(w, "what\tnetwork\tthreads\tkernel\tours\tagainst\ttheirs\ttheirs/ours")
	}
	for _, r := range s.Rows {
		other, ratio := "-", "-"
		if r.Against != "" {
			other, ratio = duration(r.Other), fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintln(w, strings.Join([]string{r.What, r.Network, fmt.Sprint(r.Threads), r.Kernel, duration(r.Ours), r.Against, other, ratio}, "\t"))
	}
	if len(s.Convolutions) > 0 {
		fmt.Fprintln(w, "\nconvolutions of seed-cnn, one thread\tbatch\tvariant\tkernel\ttime of an example\tGFLOP/s\tpeak\tof the peak")
	}
	for _, c := range s.Convolutions {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%.1f\t%.1f\t%.0f %%\n", c.What, c.Batch, c.Variant, c.Kernel, duration(c.Time), c.GFLOPS, c.Peak, 100*c.GFLOPS/c.Peak)
	}
	if len(s.Memory) > 0 {
		fmt.Fprintln(w, "\nmost memory of a process\tnetwork\tresident\tof it given\tbeyond that")
	}
	for _, m := range s.Memory {
		fmt.Fprintf(w, "%s\t%s\t%.1f MB\t%.1f MB of %s\t%.1f MB\n", m.What, m.Network, float64(m.Resident)/1e6, float64(m.Given)/1e6, m.GivenName, m.beyond())
	}
	if len(s.Bounds) > 0 {
		s.printBounds(w)
	}
	return w.Flush()
}

func duration(us float64) string {
	if us >= 1000 {
		return fmt.Sprintf("%.2f ms", us/1000)
	}
	return fmt.Sprintf("%.1f µs", us)
}

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
	ort     *bench.ONNXRuntime
	only    string
	kernels []kernel.Variant
	cpu     bool
	rows    []row
}

func main() {
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func command() error {
	s := &settings{}
	flag.IntVar(&s.turns, "turns", 7, "turns that each takes")
	flag.DurationVar(&s.turn, "turn", 400*time.Millisecond, "time of a turn")
	flag.StringVar(&s.only, "only", "", "only rows of this network, or of \"train\" or \"latency\"")
	script := flag.String("torch", "", "the script that times PyTorch")
	flag.BoolVar(&s.cpu, "cpu", false, "training: processor time of the process per step, for busy machines; means something at one thread")
	asJSON := flag.Bool("json", false, "print JSON")
	all := flag.Bool("kernels", false, "all kernel variants, not only the fastest")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s.kernels = kernel.Available()[:1]
	if *all {
		s.kernels = slices.DeleteFunc(kernel.Available(), func(v kernel.Variant) bool { return v == kernel.Generic })
	}
	defer s.others(ctx, *script)()
	if err := s.train(ctx); err != nil {
		return err
	}
	if err := s.latency(ctx); err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(s.rows)
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
	}
	r := &bench.ONNXRuntime{}
	if v, err := r.Version(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "engine: without ONNX Runtime:", err)
	} else {
		fmt.Fprintln(os.Stderr, "engine: ONNX Runtime", v)
		s.ort = r
	}
	fmt.Fprintln(os.Stderr, "engine:", kernel.CPU())
	return stop
}

func (s *settings) wants(what, net string) bool {
	return s.only == "" || s.only == what || s.only == net
}

// contest takes turns between ours and the others and adds a row.
func (s *settings) contest(r row, ours func() (float64, error), others map[string]func() (float64, error)) error {
	times := map[string][]float64{}
	for range s.turns {
		us, err := ours()
		if err != nil {
			return err
		}
		times[""] = append(times[""], us)
		for name, f := range others {
			if us, err = f(); err != nil {
				return err
			}
			times[name] = append(times[name], us)
		}
	}
	r.Ours = median(times[""])
	for name := range others {
		if m := median(times[name]); r.Against == "" || m < r.Other {
			r.Against, r.Other = name, m
			var ratios []float64
			for i, us := range times[""] {
				ratios = append(ratios, times[name][i]/us)
			}
			r.Ratio = median(ratios)
		}
	}
	s.rows = append(s.rows, r)
	fmt.Fprintf(os.Stderr, "engine: %+v\n", r)
	return nil
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
	fmt.Fprintln(w, "what\tnetwork\tthreads\tkernel\tours\tagainst\ttheirs\ttheirs/ours")
	for _, r := range s.rows {
		other, ratio := "-", "-"
		if r.Against != "" {
			other, ratio = duration(r.Other), fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintln(w, strings.Join([]string{r.What, r.Network, fmt.Sprint(r.Threads), r.Kernel, duration(r.Ours), r.Against, other, ratio}, "\t"))
	}
	return w.Flush()
}

func duration(us float64) string {
	if us >= 1000 {
		return fmt.Sprintf("%.2f ms", us/1000)
	}
	return fmt.Sprintf("%.1f µs", us)
}

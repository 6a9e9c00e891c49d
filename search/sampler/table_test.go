package sampler

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/problem"
	"github.com/espalier-ml/espalier/search/searchtest"
)

var (
	printIt = flag.Bool("table", false, "print hypervolumes and times on problems with known fronts")
	seeds   = flag.Int("seeds", 5, "seeds per median in the table")
	only    = flag.String("problems", "", "problems of the table, separated by commas; none for all")
	workers = flag.Int("workers", 1, "trials that run at a time in the table")
)

// optuna holds medians of Optuna 3.1's samplers by problem, sampler and trials: hypervolume of all evaluated points, sequential,
// NSGA-II with a population of 50, TPE with its defaults. The references are those of package problem.
var optuna = map[string]map[string]map[int]float64{
	"zdt1":  {"random": {1000: 96.3}, "nsga2": {200: 94.1, 500: 101.6, 1000: 109.5}, "tpe": {100: 97.6, 200: 101.4}},
	"zdt2":  {"random": {1000: 78.2}, "nsga2": {200: 79.1, 500: 90.2, 1000: 100.0}, "tpe": {100: 79.3, 200: 80.0}},
	"zdt3":  {"random": {1000: 100.3}, "nsga2": {200: 100.6, 500: 107.7, 1000: 117.0}, "tpe": {100: 99.6, 200: 102.4}},
	"zdt4":  {"random": {1000: 1428}, "nsga2": {200: 1501, 500: 1787, 1000: 2040}, "tpe": {100: 1468, 200: 1524}},
	"zdt6":  {"random": {1000: 43.8}, "nsga2": {200: 42.2, 500: 51.4, 1000: 63.8}, "tpe": {100: 43.0, 200: 44.5}},
	"dtlz2": {"random": {1000: 13.80}, "nsga2": {200: 13.06, 500: 14.19, 1000: 14.69}, "tpe": {100: 13.89, 200: 14.52}},
	"dtlz7": {"random": {1000: 12.89}, "nsga2": {200: 11.59, 500: 15.91, 1000: 19.33}, "tpe": {100: 13.72, 200: 14.52}},
}

// budgets are the trials after which each sampler is looked at.
var budgets = map[string][]int{
	"random": {25, 50, 100, 200, 500, 1000},
	"nsga2":  {25, 50, 100, 200, 500, 1000},
	"tpe":    {25, 50, 100, 200},
	Auto:     {200, 500, 1000},
}

// TestTable prints what the samplers reach. It checks nothing and runs only when asked: scripts/bench-search.
func TestTable(t *testing.T) {
	if !*printIt {
		t.Skip("SKIPPED: run scripts/bench-search to print the table")
	}
	fmt.Printf("medians of %d seeds, %d at a time\n", *seeds, *workers)
	fmt.Printf("%-15s %-7s %6s %12s %8s %8s\n", "problem", "sampler", "trials", "hypervolume", "of best", "optuna's")
	names := problem.Names()
	if *only != "" {
		names = strings.Split(*only, ",")
	}
	for _, name := range names {
		p, err := problem.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range []string{"random", "nsga2", "tpe", Auto} {
			printRows(t, p, info)
		}
	}
	fmt.Printf("\n%-15s %-7s %s\n", "problem", "sampler", "median time to suggest with 10000 trials of history")
	for _, name := range []string{"zdt1", "dtlz2", "levels"} {
		p, err := problem.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range []string{"random", "nsga2", "tpe"} {
			printTime(t, p, info)
		}
	}
}

func printRows(t *testing.T, p problem.Problem, name string) {
	sampler, err := New(name)
	if err != nil {
		t.Fatal(err)
	}
	at := budgets[name]
	values := map[int][]float64{}
	for seed := range uint64(*seeds) {
		trials, err := searchtest.Search{Problem: p, Sampler: sampler, Seed: seed, Trials: at[len(at)-1], Workers: *workers}.Run()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range at {
			values[n] = append(values[n], searchtest.Hypervolume(p, trials[:n]))
		}
	}
	for _, n := range at {
		median, ratio := searchtest.Median(values[n]), "-"
		if theirs := optuna[p.Name][name][n]; theirs > 0 {
			ratio = fmt.Sprintf("%.3f×", median/theirs)
		}
		fmt.Printf("%-15s %-7s %6d %12.3f %7.1f%% %8s\n", p.Name, name, n, median, 100*median/p.Best, ratio)
	}
}

func printTime(t *testing.T, p problem.Problem, name string) {
	sampler, err := New(name)
	if err != nil {
		t.Fatal(err)
	}
	req := searchtest.LongRequest(p, 10000)
	var times []time.Duration
	for range 31 {
		start := time.Now()
		if _, err := sampler.Suggest(req); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	fmt.Printf("%-15s %-7s %v\n", p.Name, name, times[len(times)/2].Round(10*time.Microsecond))
}

var _ search.Sampler = auto{}

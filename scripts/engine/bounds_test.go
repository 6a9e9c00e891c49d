package main

import (
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	r := result{Rows: []row{
		{What: stepRow, Network: "seed-cnn", Threads: 1, Kernel: "avx512", Against: "torch nhwc", Ratio: 2.1},
		{What: denseRow, Network: "ds-cnn", Threads: 1, Kernel: "avx2", Against: ortFloat, Ratio: 1 / 1.06},
		{What: int8Row, Network: "seed-cnn", Threads: 1, Kernel: "avx512", Against: ortBytes, Ratio: 4},
		{What: int8Row, Network: "seed-cnn", Threads: 1, Kernel: "avx512", Against: ownFloat, Ratio: 1 / 0.7004},
		{What: taxRow, Network: "seed-cnn", Threads: 2, Kernel: "avx512", Against: "plain loop", Ratio: 1 / 1.02},
		{What: denseRow, Network: "mlp-784-128-10", Threads: 1, Kernel: "avx512", Against: ortFloat, Ratio: 1},
		{What: denseRow, Network: "seed-cnn", Threads: 1, Kernel: "avx512"}, // nothing to compare with
	}, Memory: []memory{{What: memoryTraining, Network: "seed-cnn", Resident: 151e6, Given: 2e6, GivenName: "data set"}}}
	r.judge()
	var got []string
	for _, v := range r.Bounds {
		s := "short"
		if v.Met {
			s = "met"
		}
		if v.AimMet {
			s += ", aim"
		}
		got = append(got, v.What+" "+v.Network+": "+s)
	}
	want := []string{stepRow + " seed-cnn: met", taxRow + " seed-cnn: met, aim", denseRow + " ds-cnn: short",
		int8Row + " seed-cnn: met", int8Row + " seed-cnn: met, aim", memoryTraining + " seed-cnn: met"}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

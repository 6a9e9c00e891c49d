package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func sample() Front {
	member := func(n int32, acc float64, size, p50 int64) *espalierv1.FrontMember {
		return &espalierv1.FrontMember{
			Trial: n, Strategy: "hybrid", Accuracy: acc, TestAccuracy: acc - 0.01, SizeBytes: size,
			LatencyP50Ns: p50, LatencyP95Ns: p50 * 2, Params: 10, Nonzeros: 5, Macs: 7, Format: "esp", Artifact: "ab",
			Sparsity: map[string]float64{"conv1": 0.5, "fc": 0.25},
			Config:   &espalierv1.TrialConfig{Schedule: "one-shot"},
		}
	}
	a, b := member(3, 0.95, 40_000, 20_500), member(9, 0.90, 10_000, 9_000)
	return FromProto(&espalierv1.Front{
		Job: "j1", Name: "<name>", Device: "pi4", Hypervolume: 0.4, Baseline: member(0, 0.97, 400_000, 80_000),
		Members: []*espalierv1.FrontMember{a, b}, Measured: []*espalierv1.FrontMember{a, b, member(4, 0.8, 90_000, 70_000)},
	})
}

func TestJSONNamesStay(t *testing.T) {
	b, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	member := got["members"].([]any)[0].(map[string]any)
	for _, k := range []string{"job", "device", "hypervolume", "baseline", "members"} {
		if _, ok := got[k]; !ok {
			t.Errorf("front has no %q", k)
		}
	}
	for _, k := range []string{"trial", "strategy", "sparsity", "accuracy", "test_accuracy", "size_bytes", "latency_p50_us",
		"latency_p95_us", "params", "nonzeros", "macs", "format", "artifact"} {
		if _, ok := member[k]; !ok {
			t.Errorf("member has no %q", k)
		}
	}
	if member["latency_p50_us"] != 20.5 {
		t.Errorf("p50 is %v µs, want 20.5", member["latency_p50_us"])
	}
	if got["baseline"].(map[string]any)["strategy"] != "dense" {
		t.Error("the baseline's strategy is not dense")
	}
}

func TestCSVHasAColumnForEachGroup(t *testing.T) {
	var b bytes.Buffer
	if err := WriteCSV(&b, sample()); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.Index(rows[0], "sparsity.conv1")
	if len(rows) != 4 || i < 0 || rows[2][i] != "0.5" {
		t.Errorf("got %v", rows)
	}
}

func TestImageIsWellFormed(t *testing.T) {
	for name, f := range map[string]Front{"front": sample(), "empty": {Device: "pi4"}} {
		var b bytes.Buffer
		if err := WriteImage(&b, f, "svg"); err != nil {
			t.Fatal(name, err)
		}
		d := xml.NewDecoder(&b)
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := WriteImage(&b, f, "png"); err != nil || !bytes.Contains(b.Bytes(), []byte("PNG")) {
			t.Errorf("%s: png: %v", name, err)
		}
	}
	if _, err := PlotFormat("front.pdf"); err == nil {
		t.Error("a pdf was accepted")
	}
}

func TestPageStandsAloneAndEscapes(t *testing.T) {
	var b bytes.Buffer
	if err := WritePage(&b, Summary{Name: "<name>", State: "done"}, []Front{sample()}); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	if strings.Contains(s, "<name>") {
		t.Error("a name was not escaped")
	}
	for _, part := range []string{"src=", "href=\"http", "<script", "@import"} {
		if strings.Contains(s, part) {
			t.Errorf("the page has %q: it must open without a network", part)
		}
	}
	if !strings.Contains(s, "8.9× faster") || !strings.Contains(s, "<svg") {
		t.Error("the page lacks the ratio or the plot")
	}
}

func TestTableAndPlot(t *testing.T) {
	var b bytes.Buffer
	if err := WriteTable(&b, sample()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "10.0× smaller") || len(strings.Split(b.String(), "\n")) != 5 {
		t.Errorf("table:\n%s", b.String())
	}
	b.Reset()
	if err := WritePlot(&b, sample(), 60, 12); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "●"); n != 3 { // two members and the legend
		t.Errorf("%d marks, want 3:\n%s", n, b.String())
	}
	if !strings.Contains(b.String(), "D") {
		t.Error("the dense model is not drawn")
	}
	b.Reset()
	if err := WritePlot(&b, Front{}, 60, 12); err != nil || !strings.Contains(b.String(), "nothing measured") {
		t.Errorf("an empty front: %q, %v", b.String(), err)
	}
	one := sample()
	one.Members, one.Measured, one.Baseline = one.Members[:1], nil, nil
	if err := WritePlot(&b, one, 5, 1); err != nil {
		t.Error(err)
	}
}

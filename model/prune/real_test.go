package prune

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/onnx"
)

// real reads a network made by others, or skips.
func real(t *testing.T, path ...string) *model.Graph {
	t.Helper()
	dir := os.Getenv("ESPALIER_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	file := filepath.Join(append([]string{dir, "onnx-models"}, path...)...)
	b, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		t.Skipf("SKIPPED: no %s; set ESPALIER_TEST_DATA to the folder that holds onnx-models/", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	g, err := onnx.Read(b, onnx.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Trained networks by others, pruned by each strategy, compute what the masked ones do.
func TestRealNetworks(t *testing.T) {
	for file, channels := range map[string][]int{
		"resnet_2b.onnx":       {8, 16, 16, 16, 100, 10},
		"cifar_base_kw.onnx":   {8, 16, 100, 10},
		"cifar10_small.onnx":   {8, 16, 128, 64, 10},
		"Convnet_maxpool.onnx": {32, 10},
	} {
		t.Run(file, func(t *testing.T) {
			g := real(t, "vnncomp2021", file)
			groups := groupsOf(t, g)
			var got []int
			for _, x := range groups {
				got = append(got, x.Channels)
			}
			t.Logf("%q", text(g, groups))
			if !reflect.DeepEqual(got, channels) {
				t.Errorf("channels of the groups %v, want %v", got, channels)
			}
			for _, name := range []string{"channel-l1", "hybrid", "channel-fpgm"} {
				target := Uniform(groups, 0.5, 0)
				p, err := lookup(t, name).Plan(Input{Graph: g, Target: target})
				if err != nil {
					t.Fatal(err)
				}
				small, _, err := Rebuild(g, p)
				if err != nil {
					t.Fatal(err)
				}
				reference, _ := masked(t, g, p)
				x := modeltest.Example(g, 1)
				want, err := modeltest.Output(reference, x)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := modeltest.Output(small, x); err != nil || !slices.Equal(got, want) {
					t.Errorf("%s: got %v, error %v, want %v", name, got, err, want)
				}
			}
		})
	}
}

// SqueezeNet joins two convolutions by a concat in each of its modules.
func TestRealSqueezeNet(t *testing.T) {
	g := real(t, "onnx-light", "light_squeezenet.onnx")
	groups := groupsOf(t, g)
	if len(groups) != 26 {
		t.Errorf("%d groups, want the 26 convolutions: %q", len(groups), text(g, groups))
	}
	p, err := lookup(t, "channel-l1").Plan(Input{Graph: g, Target: Uniform(groups, 0.5, 0)})
	if err != nil {
		t.Fatal(err)
	}
	small, _, err := Rebuild(g, p)
	if err != nil {
		t.Fatal(err)
	}
	was, _ := g.Cost()
	is, _ := small.Cost()
	if is.Params*2 > was.Params || is.MACs*3 > was.MACs {
		t.Errorf("half of the channels removed, %d parameters and %d MACs became %d and %d", was.Params, was.MACs, is.Params, is.MACs)
	}
}

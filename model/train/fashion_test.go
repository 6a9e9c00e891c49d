package train_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/train"
	"github.com/espalier-ml/espalier/model/zoo"
)

// fashion opens Fashion-MNIST, or skips.
func fashion(t testing.TB) *data.Set {
	t.Helper()
	dir := os.Getenv("ESPALIER_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, "fashion-mnist")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED: no Fashion-MNIST at %s; set ESPALIER_TEST_DATA to the folder that holds fashion-mnist/", dir)
	}
	s, err := data.Open(dir, data.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Split(data.SplitOptions{Seed: 1}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Real data: a couple of thousand steps' worth is not needed to see learning.
func TestFashion(t *testing.T) {
	s := fashion(t)
	for name, examples := range map[string]int{"lenet-300-100": 4800, "seed-cnn": 1600} {
		g, err := zoo.Build(name, s.Shape, len(s.Classes), 1)
		if err != nil {
			t.Fatal(err)
		}
		l, err := data.NewLoader(s, s.Train[:examples], data.LoaderConfig{Batch: 32, Seed: 1, Shuffle: true})
		if err != nil {
			t.Fatal(err)
		}
		r, err := train.Train(t.Context(), g, l, train.Options{Epochs: 2})
		if err != nil {
			t.Fatal(err)
		}
		score, err := infer.Evaluate(t.Context(), g, s, s.Validation[:1500], infer.EvaluateOptions{Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		q, err := infer.Quantize(t.Context(), g, s, s.Train[:256])
		if err != nil {
			t.Fatal(err)
		}
		bytes, err := infer.Evaluate(t.Context(), q, s, s.Validation[:1500], infer.EvaluateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: losses %.3f, validation %+v, on bytes %.4f", name, r.Losses, score, bytes.Accuracy)
		if bytes.Accuracy < score.Accuracy-0.02 {
			t.Errorf("%s: accuracy %v on bytes: want at most 0.02 below %v", name, bytes.Accuracy, score.Accuracy)
		}
		if !(score.Accuracy > 0.7) || !(r.Loss < 0.9) {
			t.Errorf("%s: accuracy %v, losses %v: want more than 0.7 and the last below 0.9 (guessing gives 0.1 and 2.3)", name, score.Accuracy, r.Losses)
		}
	}
}

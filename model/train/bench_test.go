package train

import (
	"fmt"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/zoo"
)

// BenchmarkStep is one training step at batch 64 with Adam.
func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		name  string
		input model.Shape
	}{
		{"seed-cnn", model.Shape{32, 32, 3}},
		{"mlp-784-128-10", model.Shape{28, 28, 1}},
		{"resnet-8", model.Shape{32, 32, 3}},
		{"ds-cnn", model.Shape{49, 10, 1}},
	} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", c.name, threads), func(b *testing.B) {
				g, err := zoo.Build(c.name, c.input, 10, 1)
				if err != nil {
					b.Fatal(err)
				}
				tr, err := newTraining(b.Context(), g, newBlobs(g.Input, 10, 64, 64), Options{Threads: threads}.withDefaults())
				if err != nil {
					b.Fatal(err)
				}
				defer tr.team.close()
				batch := tr.src.(*blobs).batches[0]
				for b.Loop() {
					if err := tr.step(batch); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1e3, "ms/step")
			})
		}
	}
}

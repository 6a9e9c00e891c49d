//go:build unix

package train

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
				start, fastest := processTime(), time.Hour
				for b.Loop() {
					begin := time.Now()
					if err := tr.step(batch); err != nil {
						b.Fatal(err)
					}
					fastest = min(fastest, time.Since(begin))
				}
				b.ReportMetric(float64(fastest.Microseconds())/1e3, "min-ms/step")
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/1e3, "ms/step")
				b.ReportMetric(float64((processTime()-start).Microseconds())/float64(b.N)/1e3, "cpu-ms/step")
			})
		}
	}
}

// processTime is the processor time of this process so far: what a step costs
// however busy the machine is.
func processTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// BenchmarkTax is what Gorgonia's graph costs: steps through it, and the same
// blocks called in a plain loop, in turns.
func BenchmarkTax(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("seed-cnn/threads=%d", threads), func(b *testing.B) {
			g, err := zoo.Build("seed-cnn", model.Shape{32, 32, 3}, 10, 1)
			if err != nil {
				b.Fatal(err)
			}
			tr, err := newTraining(b.Context(), g, newBlobs(g.Input, 10, 64, 64), Options{Threads: threads}.withDefaults())
			if err != nil {
				b.Fatal(err)
			}
			defer tr.team.close()
			batch := tr.src.(*blobs).batches[0]
			q, err := tr.net(batch)
			if err != nil {
				b.Fatal(err)
			}
			var machine, plain []float64
			for b.Loop() {
				begin := time.Now()
				if _, err := q.step(batch.Inputs); err != nil {
					b.Fatal(err)
				}
				middle := time.Now()
				if err := plainStep(q, batch.Inputs); err != nil {
					b.Fatal(err)
				}
				machine, plain = append(machine, middle.Sub(begin).Seconds()), append(plain, time.Since(middle).Seconds())
			}
			slices.Sort(machine)
			slices.Sort(plain)
			b.ReportMetric(machine[len(machine)/2]/plain[len(plain)/2], "machine/plain")
			b.ReportMetric(plain[len(plain)/2]*1e3, "plain-ms")
		})
	}
}

// plainStep is net.step without Gorgonia.
func plainStep(q *net, x []float32) error {
	for _, b := range q.blocks {
		b.in.data = x
		if err := b.forward(); err != nil {
			return err
		}
		x = b.out.data
	}
	if _, err := q.loss.compute(x); err != nil {
		return err
	}
	grad := q.loss.grad
	for i := len(q.blocks) - 1; i >= 0; i-- {
		b := q.blocks[i]
		b.out.grad = grad
		if err := b.backward(); err != nil {
			return err
		}
		grad = b.in.grad
	}
	return nil
}

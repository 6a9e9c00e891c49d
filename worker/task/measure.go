package task

import (
	"fmt"
	"os"
	"time"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/esp"
	"github.com/espalier-ml/espalier/model/infer"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// measure takes the latency of a file on this device: fetch → read → quiet →
// compile and time. Compiling chooses kernels by timing, so it belongs to what
// nothing may disturb.
func (j *job) measure(o *Outcome) error {
	ref, device := j.lease.GetArtifact(), j.lease.GetTask().GetDevice()
	switch {
	case device != j.cfg.Device:
		return fmt.Errorf("measure for device %q came to a worker that measures on %q", device, j.cfg.Device)
	case ref.GetFormat() != "esp":
		return fmt.Errorf("%w: this device runs esp files, not %q", ErrPermanent, ref.GetFormat())
	}
	j.begin("fetch", 0, 0.2)
	file, err := j.fetch(ref, "file to measure")
	if err != nil {
		return err
	}
	var g *model.Graph
	var size int64
	err = j.noisily(func() (err error) {
		g, size, err = readModel(file.Path)
		return err
	})
	if err != nil {
		return fmt.Errorf("read file to measure: %w", err)
	}
	j.begin("wait for quiet", 0.2, 0.3)
	release, err := j.cfg.Gate.Quiet(j.ctx)
	if err != nil {
		return err
	}
	defer release()
	j.begin("measure", 0.3, 1)
	l, err := bench.MeasureGraph(j.ctx, g, infer.Options{Batch: 1, Threads: 1}, j.cfg.Bench)
	if err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	o.Measurement = &espalierv1.Measurement{
		Device: device, Format: ref.GetFormat(), Artifact: ref.GetHash(), SizeBytes: size,
		P50Ns: l.P50.Nanoseconds(), P95Ns: l.P95.Nanoseconds(), Spread: l.Spread, Runs: int32(min(l.Runs, 1<<31-1)),
		MeasuredMs: time.Now().UnixMilli(),
	}
	return nil
}

// readModel reads a native file, and its size.
func readModel(path string) (*model.Graph, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	g, err := esp.Read(f, esp.Limits{})
	return g, info.Size(), err
}

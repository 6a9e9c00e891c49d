package data

import (
	"errors"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epochOf copies what a loader hands out.
func epochOf(l *Loader, epoch int) (indices []int32, inputs []float32, labels []int32) {
	for b := range l.Epoch(epoch) {
		indices = append(indices, b.Indices...)
		inputs = append(inputs, b.Inputs...)
		labels = append(labels, b.Labels...)
	}
	return
}

func TestLoaderCoversAnEpoch(t *testing.T) {
	s := mustSplit(t, toy(t, 300, 3, 5), SplitOptions{})
	for _, test := range []struct {
		cfg  LoaderConfig
		want int
	}{
		{LoaderConfig{Batch: 32}, len(s.Train)},
		{LoaderConfig{Batch: 32, Shuffle: true, Prefetch: 5}, len(s.Train)},
		{LoaderConfig{Batch: 32, Shuffle: true, DropLast: true}, len(s.Train) / 32 * 32},
		{LoaderConfig{Batch: 1000}, len(s.Train)},
	} {
		l, err := NewLoader(s, s.Train, test.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for epoch := range 3 {
			indices, inputs, labels := epochOf(l, epoch)
			if len(indices) != test.want || len(inputs) != test.want*s.Shape.Elements() {
				t.Fatalf("%+v: %d samples: want %d", test.cfg, len(indices), test.want)
			}
			x, y := make([]float32, len(inputs)), make([]int32, len(labels))
			s.Batch(x, y, indices)
			if !slices.Equal(x, inputs) || !slices.Equal(y, labels) {
				t.Fatalf("%+v: values differ from those of the same samples", test.cfg)
			}
			if slices.Equal(indices, s.Train[:len(indices)]) == test.cfg.Shuffle {
				t.Fatalf("%+v: order", test.cfg)
			}
			slices.Sort(indices)
			if len(slices.Compact(indices)) != test.want {
				t.Fatalf("%+v: a sample came twice", test.cfg)
			}
		}
	}
}

func TestLoaderDependsOnSeedAndEpochAlone(t *testing.T) {
	s := mustSplit(t, toy(t, 200, 1, 5), SplitOptions{})
	aug := Augment{Shift: 2, Flip: true, Crop: 0.3}
	get := func(seed uint64, batch, prefetch, epoch int) []float32 {
		l, err := NewLoader(s, s.Train, LoaderConfig{Batch: batch, Seed: seed, Shuffle: true, Augment: aug, Prefetch: prefetch})
		if err != nil {
			t.Fatal(err)
		}
		_, x, _ := epochOf(l, epoch)
		return x
	}
	base := get(1, 16, 1, 4)
	if !slices.Equal(base, get(1, 7, 4, 4)) {
		t.Error("batch size or prefetching changed the samples")
	}
	if slices.Equal(base, get(2, 16, 1, 4)) || slices.Equal(base, get(1, 16, 1, 5)) {
		t.Error("another seed or epoch gave the same samples")
	}
}

func TestLoaderStopsInMidEpoch(t *testing.T) {
	s := mustSplit(t, toy(t, 200, 1, 5), SplitOptions{})
	l, err := NewLoader(s, s.Train, LoaderConfig{Batch: 8, Shuffle: true})
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ := epochOf(l, 1)
	for stop := range l.Steps() {
		n := 0
		for range l.Epoch(0) {
			if n++; n > stop {
				break
			}
		}
	}
	if got, _, _ := epochOf(l, 1); !slices.Equal(got, want) {
		t.Error("a broken epoch changed a later one")
	}
}

func TestLoaderRefuses(t *testing.T) {
	s := mustSplit(t, toy(t, 100, 1, 5), SplitOptions{})
	features := mustSplit(t, &Set{Shape: model.Shape{1}, Features: make([]float32, 60), Labels: slices.Repeat([]int32{0, 1}, 30), Classes: numbered(2), TestFrom: 60}, SplitOptions{})
	for name, test := range map[string]struct {
		set  *Set
		cfg  LoaderConfig
		want error
	}{
		"batch":           {s, LoaderConfig{}, ErrOption},
		"prefetch":        {s, LoaderConfig{Batch: 1, Prefetch: -1}, ErrOption},
		"no full batch":   {s, LoaderConfig{Batch: 1000, DropLast: true}, ErrNoData},
		"shift":           {s, LoaderConfig{Batch: 1, Augment: Augment{Shift: 4}}, ErrOption},
		"crop":            {s, LoaderConfig{Batch: 1, Augment: Augment{Crop: 1}}, ErrOption},
		"vectors":         {features, LoaderConfig{Batch: 1, Augment: Augment{Flip: true}}, ErrOption},
		"not split":       {toy(t, 100, 1, 5), LoaderConfig{Batch: 1}, ErrOption},
		"index too large": {&Set{Shape: s.Shape, Images: s.Images[:20], Labels: s.Labels[:1], Mean: s.Mean}, LoaderConfig{Batch: 1}, ErrOption},
	} {
		if _, err := NewLoader(test.set, s.Train, test.cfg); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v: want %v", name, err, test.want)
		}
	}
}

func TestLoaderSteadyStateAllocations(t *testing.T) {
	s := mustSplit(t, toy(t, 2000, 1, 5), SplitOptions{})
	l, err := NewLoader(s, s.Train, LoaderConfig{Batch: 2, Shuffle: true, Augment: Augment{Shift: 1}})
	if err != nil {
		t.Fatal(err)
	}
	perEpoch := testing.AllocsPerRun(3, func() {
		for range l.Epoch(1) {
		}
	})
	if perEpoch > 20 {
		t.Errorf("%v allocations in an epoch of %d steps", perEpoch, l.Steps())
	}
}

func TestAugmentMovesPixels(t *testing.T) {
	src := []uint8{
		1, 2, 3,
		4, 5, 6,
		7, 8, 9}
	seen := map[string]bool{}
	for i := range 200 {
		dst := make([]uint8, 9)
		Augment{Shift: 1, Flip: true}.apply(dst, src, 3, 3, 1, newRandom(uint64(i)))
		seen[string(dst)] = true
	}
	if len(seen) != 18 {
		t.Errorf("%d different images: want 9 shifts, each mirrored or not", len(seen))
	}
	for _, want := range [][]uint8{src, {3, 2, 1, 6, 5, 4, 9, 8, 7}, {0, 0, 0, 1, 2, 3, 4, 5, 6}, {2, 3, 0, 5, 6, 0, 8, 9, 0}} {
		if !seen[string(want)] {
			t.Errorf("never gave %v", want)
		}
	}
}

func TestAugmentCropKeepsAConstantImage(t *testing.T) {
	src := slices.Repeat([]uint8{200, 10, 90}, 30)
	for i := range 50 {
		dst := make([]uint8, len(src))
		Augment{Crop: 0.5, Flip: true}.apply(dst, src, 5, 6, 3, newRandom(uint64(i)))
		if !slices.Equal(dst, src) {
			t.Fatalf("seed %d: %v", i, dst)
		}
	}
}

package task

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/espalier-ml/espalier/model/data"
)

func TestSetsAreShared(t *testing.T) {
	src, err := data.Shapes(data.ShapesOptions{Train: 200, Test: 50})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := data.WriteCanonical(&b, src); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "set")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newSets()
	var wg sync.WaitGroup
	got := make([]*data.Set, 8)
	for i := range got {
		wg.Go(func() {
			set, release, err := s.use(setKey{"a", 1}, path)
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = set
			release()
		})
	}
	wg.Wait()
	for _, g := range got {
		if g == nil || g != got[0] {
			t.Fatal("decoded more than once")
		}
	}
	for seed := range uint64(4) {
		set, release, err := s.use(setKey{"a", seed + 1}, path)
		if err != nil {
			t.Fatal(err)
		}
		if (seed == 0) != (set == got[0]) {
			t.Errorf("seed %d: the same set is %v", seed+1, set == got[0])
		}
		release()
	}
	if len(s.open) != idleSets {
		t.Errorf("%d sets kept, want %d", len(s.open), idleSets)
	}
}

func TestSetThatCannotBeDecoded(t *testing.T) {
	s := newSets()
	path := filepath.Join(t.TempDir(), "set")
	for range 2 {
		if _, _, err := s.use(setKey{"a", 1}, path); err == nil {
			t.Fatal("decoded a file that is not there")
		}
	}
	if len(s.open) != 0 {
		t.Errorf("%d sets kept", len(s.open))
	}
}

func TestSeeds(t *testing.T) {
	seen := map[uint64]bool{}
	for job := range uint64(4) {
		for trial := range int32(8) {
			for purpose := range 3 {
				for step := range 5 {
					seen[deriveSeed(job, trial, purpose, step)] = true
				}
			}
		}
	}
	if len(seen) != 4*8*3*5 || seen[0] {
		t.Errorf("%d different seeds", len(seen))
	}
	// Results depend on these: they must never change.
	if got := deriveSeed(7, 3, seedTrain, 0); got != 0xb75842510e41719d {
		t.Errorf("seed %#x", got)
	}
}

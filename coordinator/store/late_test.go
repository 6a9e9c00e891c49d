package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func putSet(i int) *v1.Command {
	return &v1.Command{TimeMs: 1, Op: &v1.Command_PutData{PutData: &v1.PutData{Data: &v1.DataSet{
		Name: fmt.Sprint("set ", i), File: &v1.FileRef{Hash: strings.Repeat("a", 64), SizeBytes: 1}}}}}
}

// TestLate: a caller that goes away in the middle of a commit does not know its outcome; when the command was applied all the
// same, those who follow results are told that they have missed one.
func TestLate(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.NoSync = false // so that a commit takes a while
	var late atomic.Int64
	cfg.Late = func() { late.Add(1) }
	s := open(t, cfg)
	uncertain := int64(0)
	deadline := time.Now().Add(time.Minute)
	for i := 0; uncertain < 3; i++ {
		if time.Now().After(deadline) {
			t.Fatalf("%d commits of %d were left in the middle", uncertain, i)
		}
		// The call is left as soon as it has been taken into an entry, or a little later.
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%40)*25*time.Microsecond)
		_, err := s.Apply(ctx, putSet(i))
		cancel()
		if errors.Is(err, ErrUncertain) {
			uncertain++
		}
	}
	for late.Load() < uncertain {
		if time.Now().After(deadline) {
			t.Fatalf("%d commands were left, %d were told late", uncertain, late.Load())
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Apply(t.Context(), putSet(0)); err != nil {
		t.Fatal(err)
	}
	if n := late.Load(); n != uncertain {
		t.Errorf("%d commands were left, %d were told late", uncertain, n)
	}
}

package trace_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/proto/trace"
)

func TestHeaders(t *testing.T) {
	want := trace.IDs{Request: trace.NewID(), Task: "f00d/measure/3/père", Attempt: 2}
	h := http.Header{}
	want.Set(h)
	if got := trace.Read(h); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if f := want.Fields(); f["request"] != want.Request || f["task"] != want.Task || f["attempt"] != want.Attempt {
		t.Errorf("%v", f)
	}
	empty := http.Header{}
	trace.IDs{Attempt: 3}.Set(empty)
	if len(empty) != 0 || len(trace.Read(empty).Fields()) != 0 {
		t.Errorf("%v", empty)
	}
	if got := trace.From(trace.With(t.Context(), want)); got != want {
		t.Errorf("%+v", got)
	}
	if got := trace.From(t.Context()); got != (trace.IDs{}) {
		t.Errorf("%+v", got)
	}
}

// TestUntrusted: what would spoil a log is left out.
func TestUntrusted(t *testing.T) {
	for name, value := range map[string]string{"long": strings.Repeat("a", 1000), "line": "a\nb", "escape": "\x1b[31m", "delete": "\x7f"} {
		h := http.Header{trace.RequestHeader: {value}, trace.TaskHeader: {value}, trace.AttemptHeader: {"3"}}
		if got := trace.Read(h); got != (trace.IDs{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	h := http.Header{trace.TaskHeader: {"a/baseline"}, trace.AttemptHeader: {"-4"}}
	if got := trace.Read(h); got.Attempt != 0 || got.Task != "a/baseline" {
		t.Errorf("%+v", got)
	}
}

func TestNewID(t *testing.T) {
	if a, b := trace.NewID(), trace.NewID(); a == b || len(a) != 16 {
		t.Error(a, b)
	}
}

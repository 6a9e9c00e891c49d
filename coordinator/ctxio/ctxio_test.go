package ctxio

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	r, w := Reader(ctx, strings.NewReader("abcdef")), Writer(ctx, &out)
	if n, err := io.CopyN(w, r, 3); n != 3 || err != nil || out.String() != "abc" {
		t.Fatalf("copied %d, %v, %q", n, err, out.String())
	}
	cancel()
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("read %d, %v after the end", n, err)
	}
	if n, err := w.Write([]byte("x")); n != 0 || !errors.Is(err, context.Canceled) || out.String() != "abc" {
		t.Errorf("wrote %d, %v after the end", n, err)
	}
}

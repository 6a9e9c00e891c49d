package certs_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/espalier-ml/espalier/coordinator/certs"
)

func TestTokens(t *testing.T) {
	for text, want := range map[string][]string{
		"":                   nil,
		" \n\n":              nil,
		"one":                {"one"},
		"one\n":              {"one"},
		"\r\none\r\ntwo\r\n": {"one", "two"},
		"  one \n\n\ttwo":    {"one", "two"},
	} {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := certs.ReadTokens(path)
		if !slices.Equal(got, want) || (len(want) == 0) != errors.Is(err, certs.ErrNoToken) {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
			continue
		}
		if len(want) == 0 && got.Shown() != "" || len(want) > 0 && got.Shown() != want[0] {
			t.Errorf("%q: shows %q", text, got.Shown())
		}
		for _, w := range want {
			if !got.Has(w) {
				t.Errorf("%q: does not let in %q", text, w)
			}
		}
		for _, other := range []string{"", "on", "ones", "o", "one\n", "one\ntwo"} {
			if got.Has(other) {
				t.Errorf("%q: lets in %q", text, other)
			}
		}
	}
	if _, err := certs.ReadTokens(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

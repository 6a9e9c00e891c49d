package certs

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"strings"
)

// ErrNoToken says that a file of tokens holds none.
var ErrNoToken = errors.New("no token")

// Tokens let in whoever shows one of them. The first is the one to show; there are more only while a cluster exchanges one for
// another. None: nobody is asked.
type Tokens []string

// ReadTokens reads a file with a token on each line. Errors: ErrNoToken, those of os.ReadFile.
func ReadTokens(path string) (Tokens, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	t := ParseTokens(string(b))
	if len(t) == 0 {
		return nil, fmt.Errorf("%w: token file %s is empty: want a token on a line", ErrNoToken, path)
	}
	return t, nil
}

// ParseTokens takes a token from each line that is not blank.
func ParseTokens(text string) (t Tokens) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			t = append(t, line)
		}
	}
	return t
}

// Shown is the token to show to others; "" if there is none.
func (t Tokens) Shown() string {
	if len(t) == 0 {
		return ""
	}
	return t[0]
}

// Has tells whether token lets in, in a time that tells nothing of the tokens but their lengths.
func (t Tokens) Has(token string) bool {
	found := 0
	for _, mine := range t {
		found |= subtle.ConstantTimeCompare([]byte(mine), []byte(token))
	}
	return found == 1
}

package lock

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestOneHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "lock")
	first, err := Acquire(path, "process 7")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(path, "process 8"); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "process 7") {
		t.Fatalf("error %v, want ErrHeld by process 7", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := Acquire(path, "process 8")
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestPathThatCannotBe(t *testing.T) {
	if _, err := Acquire("/dev/null/lock", "x"); err == nil || errors.Is(err, ErrHeld) {
		t.Fatalf("error %v, want another one", err)
	}
}

func TestShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var shared []*Lock
	for range 2 {
		l, err := Share(path)
		if err != nil {
			t.Fatal(err)
		}
		shared = append(shared, l)
	}
	if _, err := Acquire(path, "alone"); !errors.Is(err, ErrHeld) {
		t.Fatalf("error %v, want ErrHeld", err)
	}
	for _, l := range shared {
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
	}
	alone, err := Acquire(path, "alone")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := alone.Release(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := Share(path); !errors.Is(err, ErrHeld) {
		t.Fatalf("error %v, want ErrHeld", err)
	}
}

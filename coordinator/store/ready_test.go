package store

import (
	"errors"
	"strings"
	"testing"
)

// TestReady: members of a working cluster are ready, and say why when they are not.
func TestReady(t *testing.T) {
	c := newCluster(t, 3, nil)
	for _, s := range c.up {
		eventually(t, "every replica ready", func() bool {
			behind, err := s.Ready()
			return err == nil && behind <= readyLag
		})
	}
	lone, err := Open(t.Context(), Config{Dir: t.TempDir(), Address: "127.0.0.1:0", NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer lone.Close()
	if _, err := lone.Ready(); !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), "not a member") {
		t.Errorf("a replica that nobody added: %v", err)
	}
	c.stop(1)
	c.stop(2)
	eventually(t, "a replica alone not ready", func() bool {
		_, err := c.up[0].Ready()
		return errors.Is(err, ErrNotReady)
	})
	c.up[0].fsm.restoring.Store(true)
	if _, err := c.up[0].Ready(); err == nil || !strings.Contains(err.Error(), "restored") {
		t.Errorf("while a snapshot is restored: %v", err)
	}
}

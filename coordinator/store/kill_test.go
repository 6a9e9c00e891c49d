package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	// childDir, in the environment, makes the test's program a process that fills the store
	// in that folder until it is killed.
	childDir = "ESPALIER_TEST_STORE_CHILD"
	// childAcks ends it after that many acknowledgements; 0 is no limit.
	childAcks = "ESPALIER_TEST_STORE_ACKS"
	// childAddress makes it a replica of a cluster at that address, which only follows.
	childAddress = "ESPALIER_TEST_STORE_ADDRESS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := runChild(dir); err != nil {
			fmt.Println("failed", strings.ReplaceAll(err.Error(), "\n", "; "))
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/espalier-ml/espalier/coordinator/store.forget"))
}

func childConfig(dir string) Config {
	cfg := testConfig(dir)
	cfg.NoSync = false
	cfg.SnapshotEvery, cfg.SnapshotInterval, cfg.TrailingLogs = 15, 20*time.Millisecond, 5
	return cfg
}

// runChild submits jobs from several goroutines and prints each one that was acknowledged.
func runChild(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cfg := childConfig(dir)
	if address := os.Getenv(childAddress); address != "" {
		return runFollower(ctx, cfg, address)
	}
	most, _ := strconv.Atoi(os.Getenv(childAcks)) // absent: no limit
	s, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	for !s.IsLeader() && s.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if err := s.Barrier(ctx); err != nil {
		return errors.Join(err, s.Err())
	}
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	for g := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), g, i)
				if _, err := s.Apply(ctx, submit(1, id, "local")); err != nil {
					failed <- err
					return
				}
				fmt.Println("ack", id)
				if most > 0 && i >= most/4 {
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	return s.Close()
}

// runFollower follows until a write fails.
func runFollower(ctx context.Context, cfg Config, address string) error {
	cfg.ID, cfg.Address, cfg.Bootstrap, cfg.Election = "child", address, false, electionInTests
	s, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Println("up", s.Address())
	select {
	case <-s.Failed():
		return errors.Join(s.Err(), s.Close())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestKilled kills a process at some moment, again and again: between an append and its
// reply, during a snapshot, while the log is cut. Whatever it acknowledged is there.
func TestKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := mrand.New(mrand.NewPCG(seed, 0))
	dir := t.TempDir()
	var acknowledged []string
	for range 5 {
		acks := killAfter(t, self, dir, 1+rng.IntN(150), time.Duration(rng.IntN(3000))*time.Microsecond)
		acknowledged = append(acknowledged, acks...)
	}
	s := open(t, childConfig(dir))
	err = s.View(func(v *View) error {
		for _, id := range acknowledged {
			if v.Job(id) == nil {
				t.Errorf("job %s was acknowledged and is lost", id)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d acknowledged over 5 kills", len(acknowledged))
}

// killAfter starts the child, kills it some time after it has printed n lines, and
// returns all that it had printed by then.
func killAfter(t *testing.T, self, dir string, n int, more time.Duration) (acks []string) {
	t.Helper()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var timer *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		id, ok := strings.CutPrefix(lines.Text(), "ack ")
		if !ok {
			t.Errorf("the process said %q", lines.Text())
			continue
		}
		acks = append(acks, id)
		if len(acks) == n {
			timer = time.AfterFunc(more, func() { _ = cmd.Process.Kill() }) // it may have ended
		}
	}
	if timer == nil {
		_ = cmd.Process.Kill()
		t.Errorf("the process ended after %d of %d lines", len(acks), n)
	}
	_ = cmd.Wait() // killed
	return acks
}

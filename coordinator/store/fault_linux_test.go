package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// strace runs this test's program as a child, with a system call failing now and then.
type strace struct {
	call  string // as -e inject= names it
	fault string // error=EIO
	when  string // 3, 3+: as strace counts in each thread
	path  string // only calls on this file; "" for any
}

func (f strace) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s:%s:when=%s %s", f.call, f.fault, f.when, filepath.Base(f.path)))
}

// command is the child's; nil where strace cannot run.
func (f strace) command(ctx context.Context, t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + f.call, "-e", fmt.Sprintf("inject=%s:%s:when=%s", f.call, f.fault, f.when)}
	if f.path != "" {
		args = append(args, "-P", f.path)
	}
	cmd := exec.CommandContext(ctx, "strace", append(args, self)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// needStrace skips, loudly, where calls cannot be made to fail.
func needStrace(t *testing.T) {
	t.Helper()
	out, err := exec.Command("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=getppid:error=EIO", "true").CombinedOutput()
	if err != nil {
		t.Skipf("SKIPPED: no system call can be made to fail: strace: %v %s", err, out)
	}
}

// run gives what the child acknowledged, and the last thing that it said.
func (f strace) run(t *testing.T, dir string) (acks []string, last string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := f.command(ctx, t, childDir+"="+dir, childAcks+"=40")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "ack "); ok {
			acks = append(acks, id)
		} else {
			last = lines.Text()
		}
	}
	_ = cmd.Wait() // 1 after a failure
	if ctx.Err() != nil {
		t.Errorf("%s: the process did not end", f)
	}
	return acks, last
}

// TestFailingCalls makes a write, sync, growth or rename fail, at each of the first moments
// and then at later ones: the process stops with a named error, or, if it was a snapshot that
// failed, goes on. The next start has all that was acknowledged.
func TestFailingCalls(t *testing.T) {
	needStrace(t)
	var faults []strace
	moments := []string{"1", "2", "3", "5", "8", "13", "21", "2+"}
	if testing.Short() {
		moments = []string{"3"}
	}
	for _, call := range []string{"fdatasync", "pwrite64", "fsync", "ftruncate", "renameat,renameat2", "linkat"} {
		for i, when := range moments {
			if i > 0 && i < len(moments)-1 && (call == "linkat" || call == "ftruncate") {
				continue // they happen once or twice
			}
			faults = append(faults, strace{call: call, fault: "error=EIO", when: when})
			if call == "pwrite64" || call == "ftruncate" {
				faults = append(faults, strace{call: call, fault: "error=ENOSPC", when: when})
			}
		}
		if testing.Short() && len(faults) > 2 {
			break
		}
	}
	stopped, went := 0, 0
	for _, f := range faults {
		dir := t.TempDir()
		if f.call == "pwrite64" {
			f.path = filepath.Join(dir, "raft.db")
		}
		acks, last := f.run(t, dir)
		switch {
		case strings.Contains(last, "panic") || strings.Contains(last, "goroutine"):
			t.Errorf("%s: the process said %q", f, last)
		case strings.HasPrefix(last, "failed"):
			stopped++
			named := ErrFailed.Error()
			if strings.Contains(f.fault, "ENOSPC") {
				named = ErrFull.Error()
			}
			if !strings.Contains(last, named) && !strings.Contains(last, "failed open store: ") {
				t.Errorf("%s: the process said %q, want %q in it", f, last, named)
			}
		default:
			went++
			if len(acks) < 40 {
				t.Errorf("%s: the process ended after %d acknowledgements: %q", f, len(acks), last)
			}
		}
		s := open(t, childConfig(dir))
		err := s.View(func(v *View) error {
			for _, id := range acks {
				if v.Job(id) == nil {
					t.Errorf("%s: job %s was acknowledged and is lost", f, id)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", f, err)
		}
		must(t, s, submit(1, "after", "local"))
		closeStore(t, s)
		t.Logf("%-40s %2d acknowledged, then: %.150s", f, len(acks), last)
	}
	t.Logf("%d faults: %d processes stopped, %d went on", len(faults), stopped, went)
	if stopped == 0 {
		t.Error("no process stopped")
	}
}

// TestFailingFollower: a replica whose disk fails stops; the other two go on without it.
func TestFailingFollower(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long: a replica in a process of its own")
	}
	needStrace(t)
	c := newCluster(t, 2, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// It makes about a dozen until it is a member, a few more with each election meanwhile: the fault comes well after them.
	cmd := strace{call: "fdatasync", fault: "error=EIO", when: "60+"}.command(ctx, t, childDir+"="+t.TempDir(), childAddress+"=127.0.0.1:0")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "up ") {
		t.Fatalf("the replica said %q", lines.Text())
	}
	address := strings.TrimPrefix(lines.Text(), "up ")
	c.onLeader("add the replica", func(s *Store) error { return s.Add(ctx, "child", address) })
	ended := make(chan string)
	go func() {
		last := ""
		for lines.Scan() {
			last = lines.Text()
		}
		_ = cmd.Wait() // 1 after a failure
		ended <- last
	}()
	last, after := "", 0
	for i := 0; after < 20; i++ {
		if !c.try(submit(int64(i), fmt.Sprint("job-", i), "local")) {
			t.Fatalf("command %d is not acknowledged, the replica said %q", i, last)
		}
		select {
		case last = <-ended:
		default:
		}
		if last != "" {
			after++
		}
	}
	if !strings.Contains(last, ErrFailed.Error()) || !strings.Contains(last, "input/output error") {
		t.Errorf("the replica said %q, want %q", last, ErrFailed)
	}
	if got := len(c.running()); got != 2 {
		t.Errorf("%d replicas run", got)
	}
	c.same()
}

package e2e

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
)

const trialKind = espalierv1.TaskKind_TASK_KIND_TRIAL

// TestUndisturbed also checks that everything ends in order when asked to, and
// that a trial gives the same files whoever runs it.
func TestUndisturbed(t *testing.T) {
	c := newCluster(t)
	c.worker(measuring("m"))
	c.worker(training("a"))
	c.submit()
	c.did("nothing killed")
	first := c.finish()
	c.submit()
	if n := sameWhereSame(t, first, c.finish()); n == 0 {
		t.Error("the same job twice has no trial in common")
	}
	for _, p := range c.workers {
		p.terminate()
	}
	c.server.terminate()
}

// TestWorkersKilled kills two of three workers in the middle of a trial; one comes
// back, the other does not.
func TestWorkersKilled(t *testing.T) {
	c := newCluster(t)
	c.worker(measuring("m"))
	a, b := c.worker(training("a")), c.worker(training("b"))
	c.submit()
	lost := c.untilRunning("a")
	a.kill()
	c.did("worker a killed in %s", lost.GetId())
	c.untilRunning("b")
	b.kill()
	c.did("worker b killed in a trial for good")
	c.worker(training("a"))
	all := c.finish()
	if tr := all[lost.GetTrial()-1]; tr.GetAttempt() < 2 {
		t.Errorf("trial %d was done at attempt %d although its worker was killed", tr.GetNumber(), tr.GetAttempt())
	}
}

// TestAllWorkersKilled leaves nobody for a while, in the middle of a trial and of
// the baseline.
func TestAllWorkersKilled(t *testing.T) {
	c := newCluster(t)
	m := c.worker(measuring("m"))
	c.submit()
	c.until("the baseline runs", func() bool { return len(c.status().GetRunning()) > 0 })
	m.kill()
	c.did("the only worker killed in the baseline")
	m = c.worker(measuring("m"))
	c.untilRunning("m")
	m.kill()
	c.did("the only worker killed in a trial")
	time.Sleep(lease)
	c.worker(measuring("m"))
	c.finish()
}

// reports counts and finds reports among what a client sends to the broker.
var reportLine = []byte("PUB " + subject.Report + " ")

// replyOf is the subject on which the answer to the report in b is awaited.
func replyOf(b []byte) []byte {
	_, rest, _ := bytes.Cut(b, reportLine)
	reply, _, _ := bytes.Cut(rest, []byte(" "))
	return bytes.Clone(reply)
}

// TestServerKilled kills the server with -9 at each step of a report, and starts
// it again on what it left.
func TestServerKilled(t *testing.T) {
	for name, arm := range map[string]func(c *cluster, kill func()){
		// The report reaches the broker's door and no further.
		"before the commit": func(c *cluster, kill func()) {
			c.broker.watch(func(b []byte) bool {
				if !bytes.Contains(b, reportLine) {
					return true
				}
				kill()
				return false
			}, nil)
		},
		// The answer to the report, which follows its commit, gets no further.
		"after the commit, before the reply": func(c *cluster, kill func()) {
			var reply atomic.Pointer[[]byte]
			c.broker.watch(func(b []byte) bool {
				if bytes.Contains(b, reportLine) {
					r := replyOf(b)
					reply.Store(&r)
				}
				return true
			}, func(b []byte) bool {
				r := reply.Load()
				if r == nil || !bytes.Contains(b, append([]byte("MSG "), *r...)) {
					return true
				}
				kill()
				return false
			})
		},
		// Some of a file has come.
		"during an upload": func(c *cluster, kill func()) {
			var sent atomic.Int64
			c.api.watch(func(b []byte) bool {
				if sent.Add(int64(len(b))) < 60_000 {
					return true
				}
				kill()
				return false
			}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.worker(measuring("m"))
			c.worker(training("a"))
			c.submit()
			// The first kill is in the baseline's report, the others in later ones.
			for range 3 {
				killed := make(chan struct{})
				var once atomic.Bool
				server := c.server
				arm(c, func() {
					if once.CompareAndSwap(false, true) {
						server.kill()
						close(killed)
					}
				})
				select {
				case <-killed:
				case <-time.After(30 * time.Second):
					t.Fatal("the server was not killed: the moment never came")
				}
				c.broker.watch(nil, nil)
				c.api.watch(nil, nil)
				c.did("server killed %s", name)
				c.startServer()
				before := c.status().GetJob().GetCompleted()
				c.until("another trial is done", func() bool {
					s := c.status()
					return s != nil && (s.GetJob().GetCompleted() > before || s.GetJob().GetCompleted() == trials)
				})
			}
			c.finish()
		})
	}
}

// TestServerAndWorkerKilled kills both at once, at moments drawn from a seed.
func TestServerAndWorkerKilled(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 14))
	c := newCluster(t)
	m := c.worker(measuring("m"))
	a := c.worker(training("a"))
	c.submit()
	for range 4 {
		time.Sleep(time.Duration(100+r.IntN(900)) * time.Millisecond)
		victim := m
		if r.IntN(2) == 0 {
			victim = a
		}
		c.server.kill()
		victim.kill()
		c.did("server and %s killed", victim.name)
		c.startServer()
		if victim == m {
			m = c.worker(measuring("m"))
		} else {
			a = c.worker(training("a"))
		}
	}
	c.finish()
}

// TestStoppedWorker freezes a worker in the middle of a trial until its lease has
// gone to another, and lets it go on.
func TestStoppedWorker(t *testing.T) {
	c := newCluster(t)
	c.worker(measuring("m"))
	elsewhere := training("a")
	elsewhere.Host = "another host"
	a := c.worker(elsewhere)
	c.submit()
	task := c.untilRunning("a")
	a.signal(syscall.SIGSTOP)
	c.until("another attempt at the trial", func() bool {
		for _, r := range c.status().GetRunning() {
			if r.GetTask().GetId() == task.GetId() && r.GetTask().GetAttempt() > task.GetAttempt() {
				return true
			}
		}
		return c.done(task.GetTrial())
	})
	a.signal(syscall.SIGCONT)
	c.did("worker a stopped in %s until its lease was another's", task.GetId())
	all := c.finish()
	if tr := all[task.GetTrial()-1]; tr.GetAttempt() <= task.GetAttempt() {
		t.Errorf("trial %d counts attempt %d of the frozen worker", tr.GetNumber(), tr.GetAttempt())
	}
	c.until("the worker knows", func() bool {
		return strings.Contains(a.output(), "lease lost") || strings.Contains(a.output(), "came too late")
	})
	a.terminate()
}

// TestCutOff takes the connections of a worker away in the middle of a trial, for
// less than its lease.
func TestCutOff(t *testing.T) {
	c := newCluster(t)
	c.worker(measuring("m"))
	c.worker(training("a"))
	c.submit()
	for range 3 {
		c.untilRunning("a")
		c.broker.cut()
		c.api.cut()
		c.did("connections cut in a trial")
	}
	c.finish()
	for name, p := range c.workers {
		if strings.Contains(p.output(), "task failed") {
			t.Errorf("a task of %s failed:\n%s", name, p.output())
		}
	}
}

// TestDrain asks a worker to end in the middle of a trial; it finishes or hands
// back, so that nobody waits for a lease to expire.
func TestDrain(t *testing.T) {
	c := newCluster(t)
	c.worker(measuring("m"))
	a := c.worker(training("a"))
	c.submit()
	task := c.untilRunning("a")
	a.terminate()
	c.did("worker a asked to end in %s", task.GetId())
	all := c.finish()
	if tr := all[task.GetTrial()-1]; tr.GetAttempt() != 1 || tr.GetWorker() != "a" {
		t.Errorf("trial %d was done by %s at attempt %d; the draining worker had time for it", tr.GetNumber(), tr.GetWorker(), tr.GetAttempt())
	}
}

// TestFullDisk has a worker whose disk holds next to nothing, beside others that can.
func TestFullDisk(t *testing.T) {
	c := newCluster(t)
	tiny := training("tiny")
	tiny.TinyDisk = "64k"
	if err := mountTiny(filepath.Join(c.dir, "probe"), "64k"); err != nil {
		t.Skipf("SKIPPED: no small file system: %v", err)
	}
	_ = unmountTiny(filepath.Join(c.dir, "probe"))
	t.Cleanup(func() { _ = unmountTiny(filepath.Join(c.dir, "tiny", "cache")) })
	c.worker(measuring("m"))
	c.worker(training("a"))
	c.submit()
	c.untilRunning("m")
	p := c.worker(tiny)
	c.until("the full disk is told", func() bool { return strings.Contains(p.output(), "disk is full") })
	c.did("a worker with a full disk joined")
	c.finish()
	p.terminate()
}

// TestWrongFiles damages files behind their hashes while nobody looks: in the
// cache of a worker, and in the server's store.
func TestWrongFiles(t *testing.T) {
	c := newCluster(t)
	m := c.worker(measuring("m"))
	c.submit()
	c.untilRunning("m")
	m.terminate()
	damaged := damage(t, filepath.Join(c.dir, "m", "cache", "files"))
	if damaged == 0 {
		t.Fatal("no file in the worker's cache")
	}
	c.did("%d files damaged in a worker's cache", damaged)
	c.worker(measuring("m"))
	all := c.finish()

	// A damaged file is never given out, whoever holds it.
	if damage(t, filepath.Join(c.role.Dir, "files")) == 0 {
		t.Fatal("no file in the server's store")
	}
	for _, ref := range all[0].GetResult().GetArtifacts() {
		if _, err := c.client.Read(t.Context(), ref, 64<<20); err == nil {
			t.Errorf("a damaged %s file was given out", ref.GetFormat())
		}
	}
}

// damage flips a byte in every file under dir.
func damage(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return err
		}
		b[len(b)/2] ^= 0x40
		n++
		return os.WriteFile(path, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

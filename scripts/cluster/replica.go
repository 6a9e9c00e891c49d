package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// startTimeout bounds a start, and a stop.
const startTimeout = 60 * time.Second

// replica is one server process with a data folder of its own.
type replica struct {
	bin, dir, id string
	address      string
	join         []string
	cluster      bool
	log          *os.File

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// start starts the process and returns when it says that it is ready; it gives the time that took.
func (r *replica) start(ctx context.Context) (time.Duration, error) {
	args := []string{"server", "--data", r.dir, "--listen", r.address, "--id", r.id}
	if len(r.join) > 0 {
		args = append(args, "--join", strings.Join(r.join, ","))
	} else if r.cluster {
		args = append(args, "--cluster")
	}
	r.cmd = exec.Command(r.bin, args...)
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	// A group of its own: Ctrl-C is for this program, which then ends the replicas. They never outlive it.
	r.cmd.SysProcAttr = childAttr()
	begin := time.Now()
	if err := r.cmd.Start(); err != nil {
		return 0, err
	}
	r.done = make(chan struct{})
	go func() {
		_ = r.cmd.Wait() // how it ended is in its log
		close(r.done)
	}()
	for {
		if ready(r.address) {
			return time.Since(begin), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-r.done:
			return 0, fmt.Errorf("replica %s ended at its start: %s", r.id, r.lastLines())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(begin) > startTimeout {
			return 0, fmt.Errorf("replica %s is not ready after %v: %s", r.id, startTimeout, r.lastLines())
		}
	}
}

// lastLines is the end of the replica's log.
func (r *replica) lastLines() string {
	b, err := os.ReadFile(r.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// kill ends the process as kill -9 does and returns when it is gone.
func (r *replica) kill() {
	_ = r.cmd.Process.Kill() // it may have ended already
	<-r.done
}

// stop ends the process in good order.
func (r *replica) stop() error {
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-r.done:
		return nil
	case <-time.After(startTimeout):
		r.kill()
		return fmt.Errorf("replica %s did not stop within %v", r.id, startTimeout)
	}
}

// memory reads the most resident memory that the process had, and how much of what it has now is its own, not pages of
// mapped files, which the system may take back; in bytes.
func (r *replica) memory() (most, own int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if (name == "VmHWM" || name == "RssAnon") && len(f) > 0 {
			kb, err := strconv.ParseInt(f[0], 10, 64)
			if err != nil {
				return 0, 0, err
			}
			if name == "VmHWM" {
				most = kb << 10
			} else {
				own = kb << 10
			}
		}
	}
	return most, own, nil
}

// applied asks the replica itself which log entry it has applied.
func (r *replica) applied(ctx context.Context) (uint64, error) {
	api, err := client.New(client.Config{Addresses: []string{r.address}, Patience: -1})
	if err != nil {
		return 0, err
	}
	defer api.Close()
	got, err := api.Cluster.Replicas(ctx, &espalierv1.ReplicasRequest{})
	return got.GetAppliedIndex(), err
}

// ticksPerSecond is the unit of the times in /proc, the same on every Linux.
const ticksPerSecond = 100

// processor reads the processor time that the process has taken.
func (r *replica) processor() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The second field, the name, is in parentheses and may have spaces; times in user and kernel mode are fields 14 and 15.
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", r.cmd.Process.Pid, len(f))
	}
	var ticks int64
	for _, field := range f[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// ready asks a replica whether it can serve.
func ready(address string) bool {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + address + "/readyz")
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close()) == nil && resp.StatusCode == http.StatusOK
}

// cluster is the replicas of one part of the benchmark.
type cluster struct {
	dir      string
	replicas []*replica
}

// startCluster starts n replicas, all of them voters. On an error nothing is left running.
func startCluster(ctx context.Context, bin string, n int) (c *cluster, err error) {
	c = &cluster{}
	if c.dir, err = os.MkdirTemp("", "espalier-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	for i := range n {
		r := &replica{bin: bin, id: fmt.Sprint("replica-", i), dir: filepath.Join(c.dir, fmt.Sprint(i)), cluster: n > 1}
		if r.address, err = freePorts(); err != nil {
			return nil, err
		}
		if i > 0 {
			r.join = []string{c.replicas[0].address}
		}
		if r.log, err = os.Create(filepath.Join(c.dir, r.id+".log")); err != nil {
			return nil, err
		}
		c.replicas = append(c.replicas, r)
		if _, err = r.start(ctx); err != nil {
			return nil, err
		}
	}
	// From now on each finds the others whichever are up.
	for _, r := range c.replicas {
		r.join = nil
		for _, o := range c.replicas {
			if o != r {
				r.join = append(r.join, o.address)
			}
		}
	}
	return c, c.together(ctx)
}

// server is how clients reach the cluster.
func (c *cluster) server() client.Config {
	var out client.Config
	for _, r := range c.replicas {
		out.Addresses = append(out.Addresses, r.address)
	}
	return out
}

// processor is the processor time that all replicas have taken.
func (c *cluster) processor() (sum time.Duration, err error) {
	for _, r := range c.replicas {
		t, err := r.processor()
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// state asks for the replicas and the leader's place among them.
func (c *cluster) state(ctx context.Context) (voters, leader int, err error) {
	api, err := client.New(c.server())
	if err != nil {
		return 0, -1, err
	}
	defer api.Close()
	got, err := api.Cluster.Replicas(ctx, &espalierv1.ReplicasRequest{})
	if err != nil {
		return 0, -1, err
	}
	leader = -1
	for _, r := range got.GetReplicas() {
		if r.GetVoter() && r.GetApiAddress() != "" {
			voters++
		}
		for i, own := range c.replicas {
			if own.id == r.GetId() && r.GetLeader() {
				leader = i
			}
		}
	}
	return voters, leader, nil
}

// together waits until all replicas are voters that know each other, and each knows of the others' brokers.
func (c *cluster) together(ctx context.Context) error {
	api, err := client.New(c.server())
	if err != nil {
		return err
	}
	defer api.Close()
	for deadline := time.Now().Add(startTimeout); ; {
		voters, leader, err := c.state(ctx)
		if err == nil && voters == len(c.replicas) && leader >= 0 {
			info, err := api.Info(ctx)
			if err == nil && len(info.GetBrokerUrls()) == len(c.replicas) {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d replicas of %d are together, leader %d, after %v: %w", voters, len(c.replicas), leader, startTimeout, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// close kills what still runs and removes the data.
func (c *cluster) close() error {
	var err error
	for _, r := range c.replicas {
		if r.done != nil {
			r.kill()
		}
		if r.log != nil {
			err = errors.Join(err, r.log.Close())
		}
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// portsOfReplica is how many ports a replica takes, from the API's on.
const portsOfReplica = 4

// freePorts gives a loopback address whose port and the three above it were free a moment ago. They lie below those that the
// system gives to connections, which could take one while its replica is killed.
func freePorts() (string, error) {
	for range 100 {
		port := 10000 + rand.IntN(22000)
		var open []net.Listener
		for i := range portsOfReplica {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port+i)))
			if err != nil {
				break
			}
			open = append(open, l)
		}
		for _, l := range open {
			if err := l.Close(); err != nil {
				return "", err
			}
		}
		if len(open) == portsOfReplica {
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
		}
	}
	return "", errors.New("no four free ports in a row on loopback")
}

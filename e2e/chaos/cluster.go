//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/client"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

const (
	servers = 3
	// trainers are real workers; the first ones measure too, as realDevice.
	trainers   = 3
	measuring  = 2
	realDevice = "real"
	// handProcesses run handsEach simulated workers each.
	handProcesses = 2
	handsEach     = 3

	serverDisk = 1024 // megabytes
	workerDisk = 128

	// lease is short, so that pauses outlast it.
	lease = 4 * time.Second
)

// cluster is all processes.
type cluster struct {
	dir     string
	ledger  *ledger
	all     []*process
	byName  map[string]*process
	clients []*client.Client // one for each server, which asks no other

	// copies are duplicated messages on their way.
	copies sync.WaitGroup

	mu     sync.Mutex
	counts map[Kind]int
	// filled are the processes whose disks were full in this period: they may have ended by themselves.
	filled map[string]bool
}

// names of processes, without the harness.
func serverNames() (out []string) {
	for i := range servers {
		out = append(out, fmt.Sprintf("s%d", i+1))
	}
	return out
}

func workerNames() (out []string) {
	for i := range trainers {
		out = append(out, fmt.Sprintf("w%d", i+1))
	}
	for i := range handProcesses {
		out = append(out, fmt.Sprintf("h%d", i+1))
	}
	return out
}

func newCluster(o options, dir string, l *ledger) (*cluster, error) {
	c := &cluster{dir: dir, ledger: l, byName: map[string]*process{}, counts: map[Kind]int{}, filled: map[string]bool{}}
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var apis []string
	for i := range servers {
		apis = append(apis, fmt.Sprintf("10.99.0.%d:8470", 11+i))
	}
	for i, name := range serverNames() {
		args := []string{binary, "server", "--data", c.data(name), "--id", name, "--listen", apis[i], "--insecure", "--lease", lease.String()}
		if i == 0 {
			args = append(args, "--cluster")
		} else {
			args = append(args, "--join", strings.Join(slices.Delete(slices.Clone(apis), i, i+1), ","))
		}
		if err := c.add(name, 11+i, serverDisk, args); err != nil {
			return nil, err
		}
		api, err := client.New(client.Config{Addresses: apis[i : i+1], Insecure: true, DialTimeout: time.Second, Patience: -1})
		if err != nil {
			return nil, err
		}
		c.clients = append(c.clients, api)
	}
	for i, name := range workerNames() {
		args := []string{binary, "worker", "--server", strings.Join(apis, ","), "--insecure", "--name", name, "--slots", "1", "--cache", c.data(name), "--cache-size", "60MB", "--drain-timeout", "2s"}
		switch {
		case i < measuring:
			args = append(args, "--device", realDevice)
		case i < trainers:
			args = append(args, "--no-measure")
		default:
			args = []string{self, handRole, name, fmt.Sprint(handsEach), strings.Join(apis, ",")}
		}
		if err := c.add(name, 31+i, workerDisk, args); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// data is the folder of a process on its own disk.
func (c *cluster) data(name string) string { return filepath.Join(c.dir, name, "disk", "data") }

func (c *cluster) add(name string, number int, megabytes int64, args []string) error {
	h, err := newHost(name, number)
	if err != nil {
		return err
	}
	dir := filepath.Join(c.dir, name)
	tmp := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	d, err := newDisk(filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk"), megabytes)
	if err != nil {
		return err
	}
	p := &process{
		name: name, host: h, disk: d, args: args, logPath: filepath.Join(c.dir, name+".log"),
		// The lock of a host's measuring worker lies in the folder for temporary files.
		env: []string{"TMPDIR=" + tmp, "GOMAXPROCS=2", "ESPALIER_FAULTS_CLOCK=" + c.clock(name), "GOTRACEBACK=all"},
	}
	p.line = func(p *process, line []byte) { c.ledger.line(p.name, line) }
	p.died = c.died
	c.all = append(c.all, p)
	c.byName[name] = p
	return nil
}

// clock is the file with a process's offset.
func (c *cluster) clock(name string) string { return filepath.Join(c.dir, name, "clock") }

// died is told of a process that ended by itself.
func (c *cluster) died(p *process, state string) {
	c.mu.Lock()
	excused := c.filled[p.name]
	c.mu.Unlock()
	if excused {
		c.ledger.note("%s ended because of its full disk: %s", p.name, state)
		return
	}
	c.ledger.violation("%s ended by itself: %s", p.name, state)
}

// start starts the first server, then the others, then the workers.
func (c *cluster) start(ctx context.Context) error {
	for i, p := range c.all {
		if err := p.start(); err != nil {
			return err
		}
		if i < servers && !poll(ctx, time.Minute, 50*time.Millisecond, func() bool { return c.answers(ctx, i) }) {
			return fmt.Errorf("%s does not answer, see %s", p.name, p.logPath)
		}
	}
	if !poll(ctx, time.Minute, 100*time.Millisecond, func() bool { return c.voters(ctx) == servers }) {
		return errors.New("the replicas do not become one cluster")
	}
	return nil
}

func (c *cluster) answers(ctx context.Context, server int) bool {
	_, ok := c.replicas(ctx, server)
	return ok
}

// replicas asks one server how it sees the cluster.
func (c *cluster) replicas(ctx context.Context, server int) (*v1.ReplicasResponse, bool) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := c.clients[server].Cluster.Replicas(ctx, &v1.ReplicasRequest{})
	return r, err == nil
}

// info is the brokers' addresses.
func (c *cluster) info(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var errs []error
	for _, api := range c.clients {
		r, err := api.Info(ctx)
		if err == nil && len(r.GetBrokerUrls()) > 0 {
			return strings.Join(r.GetBrokerUrls(), ","), nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

func (c *cluster) voters(ctx context.Context) (n int) {
	r, _ := c.replicas(ctx, 0)
	for _, m := range r.GetReplicas() {
		if m.GetVoter() {
			n++
		}
	}
	return n
}

// leader is the server that leads in the latest term that one of them knows, and the term.
func (c *cluster) leader(ctx context.Context) (leader *process, term uint64) {
	var mu sync.Mutex
	var asking sync.WaitGroup
	for i := range servers {
		asking.Go(func() {
			r, ok := c.replicas(ctx, i)
			mu.Lock()
			defer mu.Unlock()
			if ok && r.GetTerm() >= term && c.byName[r.GetLeader()] != nil {
				leader, term = c.byName[r.GetLeader()], r.GetTerm()
			}
		})
	}
	asking.Wait()
	return leader, term
}

// others are the addresses of all but the named, the harness's among them.
func (c *cluster) others(names ...string) []string {
	out := []string{harnessIP}
	for _, p := range c.all {
		if !slices.Contains(names, p.name) {
			out = append(out, p.host.ip)
		}
	}
	return out
}

// stop ends all, workers first, and tells who did not end in order.
func (c *cluster) stop() (errs []error) {
	for _, p := range slices.Backward(c.all) {
		if err := p.terminate(40 * time.Second); err != nil {
			errs = append(errs, err)
		}
		p.wg.Wait()
	}
	return errs
}

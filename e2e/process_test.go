package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/coordinator"
	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/tlsfile"
	"github.com/espalier-ml/espalier/worker"
)

// roleEnv tells the test binary what to be, configEnv how, as JSON.
const (
	roleEnv   = "ESPALIER_E2E_ROLE"
	configEnv = "ESPALIER_E2E_CONFIG"
)

// ready is what a process prints when it works.
const ready = "READY"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		goleak.VerifyTestMain(m)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := play(ctx, role, []byte(os.Getenv(configEnv)))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ERROR", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serverRole and workerRole are what tests set; the rest is the same for all.
type serverRole struct {
	Dir, Listen, Broker, BrokerAdvertise string
	// Of a replica among several.
	ID, Raft, RaftAdvertise, Routes, RoutesAdvertise, Advertise string
	Join                                                        []string
	Cert, Key, CA, Version                                      string
	Tokens                                                      []string
	build
}

type workerRole struct {
	Name, Dir string
	Server    string // one or more, with commas; empty: the cluster's
	CA, Token string
	Device    string // empty: does not measure
	Slots     int
	Host      string // file that stands for the host
	TinyDisk  string // size of a file system of its own for the cache
	build
}

// build is which one plays a role.
type build struct {
	Program string `json:"-"` // the test binary of another build; empty: this one
}

func (b build) program() string { return cmp.Or(b.Program, os.Args[0]) }

func play(ctx context.Context, role string, config []byte) error {
	log := zerolog.New(os.Stderr).Level(zerolog.InfoLevel).With().Timestamp().Logger()
	switch role {
	case "server":
		var r serverRole
		if err := json.Unmarshal(config, &r); err != nil {
			return err
		}
		s, err := coordinator.Start(ctx, coordinator.Config{
			Dir: r.Dir, Listen: r.Listen, BrokerListen: r.Broker, BrokerAdvertise: r.BrokerAdvertise, Advertise: r.Advertise,
			ReplicaID: r.ID, RaftListen: r.Raft, RaftAdvertise: r.RaftAdvertise, BrokerCluster: r.Routes,
			BrokerClusterAdvertise: r.RoutesAdvertise, Join: r.Join, CertFile: r.Cert, KeyFile: r.Key, CAFile: r.CA, Tokens: r.Tokens,
			Version: cmp.Or(r.Version, "e2e"), Lease: lease, Logger: log,
		})
		if err != nil {
			return err
		}
		fmt.Println(ready)
		select {
		case <-ctx.Done():
		case err = <-s.Failed():
		}
		return errors.Join(err, s.Close(context.Background()))
	case "worker":
		var r workerRole
		if err := json.Unmarshal(config, &r); err != nil {
			return err
		}
		cfg := worker.Config{
			Name: r.Name, Device: r.Device, NoMeasure: r.Device == "", Slots: r.Slots, CacheDir: r.Dir + "/cache", HostLock: r.Host,
			Version: "e2e", DrainTimeout: 20 * time.Second, Heartbeat: 50 * time.Millisecond, Logger: log,
			Bench: bench.Options{WarmUp: time.Millisecond, Rounds: 2, Round: 5 * time.Millisecond},
		}
		cfg.Server.Addresses, cfg.Server.Token = strings.Split(r.Server, ","), r.Token
		if r.CA != "" {
			trusted, err := tlsfile.OpenAuthorities(r.CA, log)
			if err != nil {
				return err
			}
			cfg.Server.Authorities = trusted
		}
		if r.TinyDisk != "" {
			if err := mountTiny(cfg.CacheDir, r.TinyDisk); err != nil {
				return err
			}
		}
		w, err := worker.New(cfg)
		if err != nil {
			return err
		}
		fmt.Println(ready)
		return w.Run(ctx)
	default:
		return fmt.Errorf("no such role: %s", role)
	}
}

// process is one started role.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu  sync.Mutex
	log strings.Builder
}

// spawn starts a role and waits until it works.
func spawn(t *testing.T, name, role string, config interface{ program() string }) *process {
	t.Helper()
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, cmd: exec.Command(config.program()), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), roleEnv+"="+role, configEnv+"="+string(data), "GOMAXPROCS=2")
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = (*logWriter)(p)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(out).ReadString('\n')
		line <- text
		_, _ = io.Copy(io.Discard, out)
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(p.end)
	select {
	case text := <-line:
		if strings.TrimSpace(text) != ready {
			t.Fatalf("%s does not start:\n%s", name, p.output())
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not start in time:\n%s", name, p.output())
	}
	return p
}

// logWriter keeps what a process says.
type logWriter process

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) signal(s os.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !p.ended() {
		p.t.Errorf("signal %s: %v", p.name, err)
	}
}

// kill ends the process as kill -9 does, and waits for that.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// terminate asks the process to end and checks that it does so in order.
func (p *process) terminate() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			p.t.Errorf("%s ended with code %d:\n%s", p.name, code, p.output())
		}
	case <-time.After(40 * time.Second):
		p.t.Errorf("%s does not end", p.name)
		p.kill()
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// end cleans up after a test.
func (p *process) end() {
	if !p.ended() {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	if p.t.Failed() {
		p.t.Logf("---- %s\n%s", p.name, p.output())
	}
}

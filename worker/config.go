package worker

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/model/bench"
)

// Config says how a worker works. Zero values take the defaults written here.
type Config struct {
	// Server is how to reach the cluster's API; its addresses must be given.
	Server client.Config
	// Name is this worker's, unique in the cluster and kept over restarts: a new
	// start frees the leases of the last. Default: the host's name with four
	// digits that follow from CacheDir.
	Name string
	// Slots is how many tasks run at once. Default: one per core that this process
	// may use; 1 with MeasureOnly or Once.
	Slots int
	// Threads is how many threads one task may use. Default 1.
	Threads int
	// Device is the name under which this machine measures. Default: the host's
	// name. Measures of every device of this name come here.
	Device string
	// Labels describe this worker to people.
	Labels map[string]string
	// MeasureOnly takes no other tasks than measures.
	MeasureOnly bool
	// NoMeasure takes no measures, and needs no host lock.
	NoMeasure bool
	// Once ends the worker after its first task.
	Once bool
	// DrainTimeout is how long tasks may go on after the worker was asked to end;
	// then they are handed back. Zero hands back at once.
	DrainTimeout time.Duration
	// CacheDir belongs to this worker alone. Default: "worker", "worker-2" and so on
	// in the user's cache folder, the first that no other worker uses.
	CacheDir string
	// CacheBytes bounds the files kept. Default 4 GB.
	CacheBytes int64
	// Heartbeat is the longest time between two heartbeats. Default: what each
	// lease says.
	Heartbeat time.Duration
	// HostLock is the file that keeps a second measuring worker off this host. The
	// workers of a host that do not measure pause while the one that has this lock
	// does. Default: DefaultHostLock().
	HostLock string
	// Version is told to the cluster and recorded with every model made here.
	Version string
	// Bench says how long a measurement takes; zero fields take bench's defaults.
	Bench  bench.Options
	Logger zerolog.Logger

	waits waits // zero outside of tests
}

// waits are times that tests shorten.
type waits struct {
	claim  time.Duration // how long the leader may hold a claim
	reply  time.Duration // how long its answer may take beyond that
	report time.Duration // how long the answer to a report may take, before it is sent again
	retry  time.Duration // first delay before a request is made again
	sick   time.Duration // first pause after a failure that another worker may not have
	// refresh is how long the connection may be down before the brokers' addresses
	// are asked for again.
	refresh time.Duration
}

const (
	defaultCacheBytes = 4_000_000_000
	maxSlots          = 1024
)

// DefaultHostLock is the same path for every user of this host.
func DefaultHostLock() string { return filepath.Join(os.TempDir(), "espalier-measure.lock") }

func (c Config) withDefaults() Config {
	if c.Slots == 0 {
		c.Slots = runtime.GOMAXPROCS(0)
		if c.MeasureOnly || c.Once {
			c.Slots = 1
		}
	}
	if c.Threads == 0 {
		c.Threads = 1
	}
	if c.Device == "" && !c.NoMeasure {
		c.Device = hostName()
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultCacheBytes
	}
	if c.HostLock == "" {
		c.HostLock = DefaultHostLock()
	}
	c.waits = waits{
		claim: cmp.Or(c.waits.claim, 15*time.Second), reply: cmp.Or(c.waits.reply, 5*time.Second),
		report: cmp.Or(c.waits.report, 10*time.Second), retry: cmp.Or(c.waits.retry, 100*time.Millisecond),
		sick: cmp.Or(c.waits.sick, 5*time.Second), refresh: cmp.Or(c.waits.refresh, 2*time.Second),
	}
	return c
}

// Validate reports the first field that is wrong; the error wraps ErrConfig.
func (c Config) Validate() error {
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("%w: %s is %v; want %s", ErrConfig, field, value, want)
	}
	switch {
	case len(c.Server.Addresses) == 0:
		return bad("Server.Addresses", "empty", "the address of a server")
	case c.Slots < 0 || c.Slots > maxSlots:
		return bad("Slots", c.Slots, fmt.Sprintf("1 to %d, or 0 for one per core", maxSlots))
	case c.Threads < 0 || c.Threads > maxSlots:
		return bad("Threads", c.Threads, fmt.Sprintf("1 to %d, or 0 for 1", maxSlots))
	case c.Once && c.Slots > 1:
		return bad("Slots", c.Slots, "1 with Once")
	case c.MeasureOnly && c.NoMeasure:
		return bad("MeasureOnly", true, "not together with NoMeasure")
	case c.NoMeasure && c.Device != "":
		return bad("Device", fmt.Sprintf("%q", c.Device), "none with NoMeasure")
	case !validName(c.Device):
		return bad("Device", fmt.Sprintf("%q", c.Device), "at most 200 bytes without slash or space")
	case !validName(c.Name):
		return bad("Name", fmt.Sprintf("%q", c.Name), "at most 200 bytes without slash or space")
	case c.DrainTimeout < 0:
		return bad("DrainTimeout", c.DrainTimeout, "0 or more")
	case c.CacheBytes < 0:
		return bad("CacheBytes", c.CacheBytes, "more than 0")
	case c.Heartbeat < 0:
		return bad("Heartbeat", c.Heartbeat, "0 or more")
	}
	return nil
}

func validName(s string) bool {
	return len(s) <= 200 && !strings.ContainsAny(s, "/ \t\r\n\x00")
}

// hostName is this machine's name, made fit for a device's.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "host"
	}
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune("/ \t\r\n\x00", r) {
			return '-'
		}
		return r
	}, name)
	return name[:min(len(name), 100)]
}

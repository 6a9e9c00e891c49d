// Package rules holds, as data, which room may import which. Its test fails on
// a new edge: a new room or arrow is a decision, made here and in the commit.
package rules

// Module is the module's path; rooms are named relative to it.
const Module = "github.com/espalier-ml/espalier"

// Rooms maps each room to the rooms of ours that it may import, besides its own
// subtree. The longest matching prefix counts; a trailing /... covers a subtree.
// A name with ! before it is an exception to a wider arrow.
var Rooms = map[string][]string{
	"proto/...":  {},
	"search/...": {},
	"model/...":  {},

	// The job file: its checks are shared by the command line and the API.
	"job/...": {"proto/..."},
	// Fronts for people and programs; it writes sizes as the job file reads them.
	"report/...": {"proto/...", "job"},
	// Certificates from files that may change, for both ends of a connection.
	"tlsfile": {},
	// The API from outside, for the command line and for workers.
	"client/...": {"proto/...", "tlsfile"},
	// Everything in one process, over a results folder.
	"local/...": {"client", "coordinator", "worker", "job", "report", "proto/...", "model/data", "search/pareto"},

	"coordinator/...": {"search/...", "proto/...", "job", "client", "tlsfile", "model", "model/onnx/...", "model/esp", "model/safetensors"},
	"worker/...":      {"model/...", "proto/...", "client"},

	"cmd/...": {"..."},
	// Tests of the built binary and of real processes.
	"e2e/...":     {"..."},
	"scripts/...": {"..."},
}

// Libraries maps the prefix of a library's path to the only rooms that may
// import it outside tests.
var Libraries = map[string][]string{
	"gorgonia.org/":                  {"model/train"},
	"github.com/hashicorp/raft":      {"coordinator/store"},
	"go.etcd.io/bbolt":               {"coordinator/store"},
	"github.com/nats-io/nats-server": {"coordinator/broker"},
	"github.com/nats-io/nats.go":     {"coordinator/broker", "coordinator/dispatch", "worker/link", "e2e/chaos"},
	"github.com/ebitengine/purego":   {"cmd/espalier-ort"},
	"github.com/spf13/cobra":         {"cmd/..."},
	"github.com/vbauerster/mpb":      {"cmd/..."},
	"gonum.org/v1/plot":              {"report"},
	"github.com/goccy/go-yaml":       {"job"},
}

// Siblings are subtrees whose members must not import each other: only the
// rooms listed with them are common ground.
var Siblings = map[string][]string{
	"search": {"search", "search/pareto"},
}

// Registries may import all of their siblings: they list them by name.
var Registries = []string{"search/sampler"}

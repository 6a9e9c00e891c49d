package store

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

var golden = flag.String("golden", "", "write a log and what it holds under testdata/golden/NAME")

// TestGoldenLogs replays logs that older builds wrote: testdata/golden/NAME holds
// raft.db.gz and what was in the store. Add one (-golden NAME) when commands are added;
// never change one.
func TestGoldenLogs(t *testing.T) {
	if *golden != "" {
		writeGolden(t, filepath.Join("testdata", "golden", *golden))
	}
	logs, err := filepath.Glob("testdata/golden/*/raft.db.gz")
	if err != nil || len(logs) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, path := range logs {
		t.Run(filepath.Base(filepath.Dir(path)), func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join(filepath.Dir(path), "want.txt"))
			if err != nil {
				t.Fatal(err)
			}
			cfg := testConfig(t.TempDir())
			write(t, cfg.Dir, "raft.db", gunzip(t, path))
			diffLines(t, path, string(want), dump(t, open(t, cfg)))
		})
	}
}

func writeGolden(t *testing.T, dir string) {
	t.Helper()
	cfg := testConfig(t.TempDir())
	s := open(t, cfg)
	fill(t, s, "alpha", 12)
	for _, c := range everyOtherCommand() {
		must(t, s, c)
	}
	r, err := s.Apply(t.Context(), newTrial(8000, "alpha", 13, "g1", "w", "s"), newTrial(8001, "alpha", 15, "g2", "w", "s"), stop(8002, "alpha"))
	if err != nil || r[1].Err == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	text := dump(t, s)
	closeStore(t, s)
	log, err := os.ReadFile(filepath.Join(cfg.Dir, "raft.db"))
	if err != nil {
		t.Fatal(err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(log); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "raft.db.gz", z.Bytes())
	write(t, dir, "want.txt", []byte(text))
}

// everyOtherCommand is what fill leaves out.
func everyOtherCommand() []*v1.Command {
	file := &v1.FileRef{Hash: artifactHash(900), SizeBytes: 10, Format: "data"}
	other := &v1.FileRef{Hash: artifactHash(901), SizeBytes: 20, Format: "checkpoint"}
	return []*v1.Command{
		{TimeMs: 6000, Op: &v1.Command_PutDevice{PutDevice: &v1.PutDevice{Device: &v1.Device{
			Name: "pi4", Fingerprint: &v1.Fingerprint{Cpu: "a72", Variant: "neon"}, Runtime: "native", Format: "esp",
		}}}},
		{TimeMs: 6001, Op: &v1.Command_AddFiles{AddFiles: &v1.AddFiles{Files: []*v1.FileRef{file, other}}}},
		{TimeMs: 6002, Op: &v1.Command_DropFiles{DropFiles: &v1.DropFiles{Hashes: []string{other.Hash}}}},
		{TimeMs: 6003, Op: &v1.Command_PutData{PutData: &v1.PutData{Data: &v1.DataSet{Name: "set", File: file, Classes: 10}}}},
		submit(6004, "beta", "pi4"),
		setState(6005, "beta", v1.JobState_JOB_STATE_PAUSED),
		setState(6006, "beta", v1.JobState_JOB_STATE_PREPARING),
		lease(6007, "beta/baseline", "beta", "w", "s"),
		worker(6008, "w", "s2"),
		setState(6009, "beta", v1.JobState_JOB_STATE_CANCELLED),
		worker(6010, "w", "s"),
		replica(6011, "a", "v1"), replica(6012, "b", "v1"), replica(6013, "a", "v2"),
		{TimeMs: 6014, Op: &v1.Command_DropReplica{DropReplica: &v1.DropReplica{Id: "b"}}},
		{TimeMs: 6014, Op: &v1.Command_LoseFiles{LoseFiles: &v1.LoseFiles{Hashes: []string{file.Hash}}}},
		submit(6015, "gamma", "pi4"),
		lease(6016, "gamma/baseline", "gamma", "w", "s"),
		endLease(6017, "gamma/baseline", 1),
	}
}

func replica(at int64, id, version string) *v1.Command {
	return &v1.Command{TimeMs: at, Op: &v1.Command_PutReplica{PutReplica: &v1.PutReplica{Replica: &v1.Replica{
		Id: id, RaftAddress: "h:1", ApiAddress: "h:2", BrokerAddress: "h:3", Version: version,
	}}}}
}

// TestGoldenLogsHoldEveryCommand: a command that no log of testdata/golden holds is not known to replay in later builds.
func TestGoldenLogsHoldEveryCommand(t *testing.T) {
	logs, err := filepath.Glob("testdata/golden/*/raft.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	note := func(c *v1.Command) {
		m := c.ProtoReflect()
		if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("op")); f != nil {
			seen[string(f.Name())] = true
		}
	}
	for _, path := range logs {
		file := filepath.Join(t.TempDir(), "raft.db")
		write(t, filepath.Dir(file), "raft.db", gunzip(t, path))
		s, err := openLogStore(file, true, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := s.first; i <= s.last; i++ {
			var l raft.Log
			if err := s.GetLog(i, &l); err != nil || l.Type != raft.LogCommand {
				continue
			}
			c := new(v1.Command)
			if err := proto.Unmarshal(l.Data, c); err != nil {
				t.Fatal(err)
			}
			note(c)
			for _, inner := range c.GetBatch().GetCommands() {
				note(inner)
			}
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
	ops := new(v1.Command).ProtoReflect().Descriptor().Oneofs().ByName("op").Fields()
	for i := range ops.Len() {
		if name := string(ops.Get(i).Name()); !seen[name] {
			t.Errorf("no log holds the command %s: add one with -golden", name)
		}
	}
}

// dump writes what the store holds, in words that outlive its layout.
func dump(t *testing.T, s applies) string {
	t.Helper()
	var b strings.Builder
	var jobs []string
	err := s.View(func(v *View) error {
		for _, j := range v.Jobs() {
			jobs = append(jobs, j.Id)
		}
		for _, w := range v.Workers() {
			fmt.Fprintf(&b, "worker %s session %s since %d\n", w.Info.Name, w.Info.Session, w.SessionMs)
		}
		for _, d := range v.Devices() {
			fmt.Fprintf(&b, "device %s %s %s %s\n", d.Name, d.Fingerprint.GetCpu(), d.Runtime, d.Format)
		}
		for _, d := range v.DataSets() {
			fmt.Fprintf(&b, "data %s %s %d classes\n", d.Name, d.File.GetHash(), d.Classes)
		}
		for _, r := range v.Replicas() {
			fmt.Fprintf(&b, "replica %s raft %s api %s broker %s build %s\n", r.Id, r.RaftAddress, r.ApiAddress, r.BrokerAddress, r.Version)
		}
		for _, f := range v.Files("", 0) {
			fmt.Fprintf(&b, "file %s %d bytes dropped %d\n", f.File.Hash, f.File.SizeBytes, f.DroppedMs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		b.WriteString(strings.Join(showJob(t, s, j), "\n") + "\n")
	}
	return b.String()
}

func gunzip(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

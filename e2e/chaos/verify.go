//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/e2e/chaos/check"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// end lets the jobs end, checks everything, and stops the cluster.
func (s *suite) end(ctx context.Context) *summary {
	s.allEnd(ctx)
	s.compareReplicas(ctx)
	var state *check.State
	var err error
	poll(ctx, recovery, time.Second, func() bool {
		state, err = s.state(ctx)
		return err == nil
	})
	if ctx.Err() != nil {
		return nil // asked to end: nothing can be said
	}
	if err != nil {
		s.l.violation("the records cannot be read in the end: %v", err)
		state = &check.State{}
	}
	acks, ops, reads, submitted := s.l.seen()
	if err := (evidence{Acks: acks, Ops: ops, Reads: reads, Submitted: submitted}).keep(s.c.dir, state); err != nil {
		s.l.note("evidence not kept: %v", err)
	}
	s.report(check.Ended(state))
	s.report(check.Known(state, submitted))
	s.report(check.Counts(state))
	s.report(check.Results(state, acks))
	s.report(check.Fronts(state))
	s.report(check.Fresh(state, reads, acks))
	late, bad := check.Linearizable(ops, 2*time.Minute)
	s.report(bad)
	compared, bad := check.Digests(s.digests)
	s.report(bad)
	if compared == 0 {
		s.l.violation("no two replicas were ever at the same entry")
	}
	s.resourcesBack(ctx)
	sum := s.summary(ctx, state, late, compared)
	for _, err := range s.c.stop() {
		s.l.violation("%v", err)
	}
	s.report(leftProcesses())
	for _, name := range serverNames() {
		s.report(wrongFiles(name, filepath.Join(s.c.data(name), "files")))
	}
	s.report(missingFiles(state, s.c.data))
	sum.Violations = s.l.broken()
	return sum
}

func (s *suite) report(bad []string) {
	for _, text := range bad {
		s.l.violation("%s", text)
	}
}

// allEnd resumes what is paused and waits until all jobs have ended; check.Ended tells which have not.
func (s *suite) allEnd(ctx context.Context) {
	s.l.note("no new jobs; waiting for the end of all")
	asked := 0
	poll(ctx, finish, 200*time.Millisecond, func() bool {
		r, err := s.c.clients[asked%servers].Jobs.List(ctx, &v1.ListRequest{})
		asked++
		if err != nil {
			return false
		}
		left := 0
		for _, j := range r.GetJobs() {
			if j.GetJob().GetState() == v1.JobState_JOB_STATE_PAUSED {
				s.ld.control(ctx, clients, asked%servers, s.ld.byID(j.GetJob().GetId()), check.Resume)
			}
			if !client.Ended(j.GetJob().GetState()) || len(j.GetRunning()) > 0 || j.GetPendingMeasures() > 0 {
				left++
			}
		}
		return left == 0
	})
	// Every job's last state belongs to the history.
	for _, j := range s.ld.jobs {
		if j.id != "" {
			s.ld.submit(ctx, clients, 0, j)
		}
	}
}

// state reads all records.
func (s *suite) state(ctx context.Context) (*check.State, error) {
	api := s.c.clients[0]
	r, err := api.Jobs.List(ctx, &v1.ListRequest{})
	if err != nil {
		return nil, err
	}
	out := &check.State{Jobs: r.GetJobs(), Trials: map[string][]*v1.Trial{}, Fronts: map[string]map[string]*v1.Front{}}
	for _, j := range r.GetJobs() {
		id := j.GetJob().GetId()
		for after := int32(0); ; {
			page, err := api.Jobs.Trials(ctx, &v1.TrialsRequest{Job: id, After: after, Limit: 1000})
			if err != nil {
				return nil, err
			}
			if len(page.GetTrials()) == 0 {
				break
			}
			out.Trials[id] = append(out.Trials[id], page.GetTrials()...)
			after = page.GetTrials()[len(page.GetTrials())-1].GetNumber()
		}
		out.Fronts[id] = map[string]*v1.Front{}
		for _, device := range j.GetJob().GetDevices() {
			f, err := api.Jobs.Front(ctx, &v1.FrontRequest{Job: id, Device: device})
			if err != nil {
				return nil, err
			}
			out.Fronts[id][device] = f.GetFront()
		}
	}
	return out, nil
}

// byID finds a job that clients know; one that none was told of belongs to a request without an answer.
func (ld *load) byID(id string) *jobSeen {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	for _, j := range ld.jobs {
		if j.id == id {
			return j
		}
	}
	return &jobSeen{request: "unknown-" + id, id: id}
}

// resources are what a server holds of the machine.
type resources struct{ Goroutines, Files int }

// baseline notes what the servers hold before anything is broken.
func (s *suite) baseline(ctx context.Context) {
	s.before = map[string]resources{}
	for _, p := range s.c.all[:servers] {
		s.before[p.name] = s.held(ctx, p)
	}
}

// held reads a server's resources.
func (s *suite) held(ctx context.Context, p *process) (r resources) {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid()))
	r.Files = len(fds)
	r.Goroutines = int(metric(ctx, "http://"+p.host.ip+":8470/metrics", "go_goroutines"))
	return r
}

// spare is how many more goroutines and files a server may hold in the end: connections of workers and clients that were
// not there in the beginning, and those not yet found dead.
const spare = 60

// within tells whether a server holds about what it held before. A server that does not answer has no goroutines.
func (r resources) within(before resources) bool {
	return r.Goroutines > 0 && r.Goroutines <= before.Goroutines+spare && r.Files <= before.Files+spare
}

// resourcesBack holds that nothing leaks: once nothing happens, servers hold about what they held in the beginning.
func (s *suite) resourcesBack(ctx context.Context) {
	for _, p := range s.c.all[:servers] {
		var now resources
		before := s.before[p.name]
		ok := poll(ctx, recovery, time.Second, func() bool {
			now = s.held(ctx, p)
			return now.within(before)
		})
		s.l.note("%s: %d goroutines and %d files in the beginning, %d and %d in the end", p.name, before.Goroutines, before.Files, now.Goroutines, now.Files)
		if !ok {
			s.l.violation("%s leaks: %d goroutines and %d files in the beginning, %d and %d in the end",
				p.name, before.Goroutines, before.Files, now.Goroutines, now.Files)
		}
	}
}

// leftProcesses lists what still runs in the sandbox besides this program.
func leftProcesses() (bad []string) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmd, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && len(cmd) > 0 {
			bad = append(bad, fmt.Sprintf("process %d is left: %s", pid, strings.ReplaceAll(string(cmd), "\x00", " ")))
		}
	}
	return bad
}

// isHash tells whether a file's name is a SHA-256.
func isHash(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == sha256.Size
}

// wrongFiles lists the files of a replica whose content is not what their name says.
func wrongFiles(replica, dir string) (bad []string) {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !isHash(e.Name()) || strings.Contains(path, "partial") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		if hex.EncodeToString(sum.Sum(nil)) != e.Name() {
			bad = append(bad, fmt.Sprintf("%s: file %s does not hold what its name says", replica, e.Name()))
		}
		return nil
	})
	if err != nil {
		bad = append(bad, fmt.Sprintf("%s: files cannot be read: %v", replica, err))
	}
	return bad
}

// missingFiles lists what is pinned and not on a majority of replicas: baselines, and members of fronts.
func missingFiles(state *check.State, data func(replica string) string) (bad []string) {
	pinned := map[string]string{}
	pin := func(what string, refs ...*v1.FileRef) {
		for _, r := range refs {
			if r != nil {
				pinned[r.GetHash()] = what
			}
		}
	}
	for _, js := range state.Jobs {
		j := js.GetJob()
		pin("the baseline of job "+j.GetId(), append(j.GetBaseline().GetArtifacts(), j.GetBaseline().GetCheckpoint())...)
		for _, f := range state.Fronts[j.GetId()] {
			for _, m := range f.GetMembers() {
				pin(fmt.Sprintf("trial %d of job %s, a member of a front", m.GetTrial(), j.GetId()), m.GetArtifacts()...)
			}
		}
	}
	for hash, what := range pinned {
		n := 0
		for _, name := range serverNames() {
			if _, err := os.Stat(filepath.Join(data(name), "files", hash[:2], hash[2:4], hash)); err == nil {
				n++
			}
		}
		if n <= servers/2 {
			bad = append(bad, fmt.Sprintf("file %s of %s is on %d of %d replicas", hash, what, n, servers))
		}
	}
	return bad
}

// compareReplicas reads each replica's digest of its records until all three were seen at the same entry. What they had at
// every entry is kept for the check at the end.
func (s *suite) compareReplicas(ctx context.Context) {
	poll(ctx, recovery, 10*time.Millisecond, func() bool {
		same := true
		var first uint64
		for i, name := range serverNames() {
			asking, cancel := context.WithTimeout(ctx, opTimeout)
			r, err := s.c.clients[i].Cluster.Replicas(asking, &v1.ReplicasRequest{Digest: true})
			cancel()
			if err != nil || r.GetDigest() == "" {
				return false
			}
			if s.digests[name] == nil {
				s.digests[name] = map[uint64]string{}
			}
			s.digests[name][r.GetDigestIndex()] = r.GetDigest()
			if i == 0 {
				first = r.GetDigestIndex()
			}
			same = same && r.GetDigestIndex() == first
		}
		return same
	})
}

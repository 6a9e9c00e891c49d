package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Report commits the end of an attempt, then replies. The store fences by attempt; what it finds of the report before the
// commit is only refused early.
func (d *Dispatcher) Report(ctx context.Context, req *v1.ReportRequest) *v1.ReportReply {
	if !d.Enabled() {
		return &v1.ReportReply{Error: errNotLeader}
	}
	if problem := checkReport(req); problem != "" {
		return &v1.ReportReply{Error: &v1.DispatchError{Code: v1.DispatchError_CODE_INVALID, Message: problem}}
	}
	var cmds []*v1.Command
	if files := reportFiles(req); len(files) > 0 && d.holds(req) {
		missing, err := d.cfg.Files.Missing(ctx, files)
		if err != nil {
			return &v1.ReportReply{Error: unavailable(err)}
		}
		if len(missing) > 0 {
			return &v1.ReportReply{Error: &v1.DispatchError{
				Code: v1.DispatchError_CODE_FILES_MISSING, Files: missing,
				Message: fmt.Sprintf("%d of %d files are not on a majority of replicas: upload them, then report again", len(missing), len(files)),
			}}
		}
		cmds = append(cmds, &v1.Command{Op: &v1.Command_AddFiles{AddFiles: &v1.AddFiles{Files: files}}})
	}
	cmds = append(cmds, &v1.Command{Op: &v1.Command_Report{Report: req}})
	results, err := d.apply(ctx, cmds...)
	if err != nil {
		return &v1.ReportReply{Error: storeError(err)}
	}
	for _, r := range results {
		if r.Err != nil {
			return &v1.ReportReply{Error: reportError(r.Err)}
		}
	}
	status := results[len(results)-1].Status
	d.reported(req, status)
	d.nudge()
	return &v1.ReportReply{Status: status}
}

// Enabled reports whether this replica answers.
func (d *Dispatcher) Enabled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.on
}

// holds reports whether the report is of a lease that stands; only then do its files matter.
func (d *Dispatcher) holds(req *v1.ReportRequest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.cache.leases[req.GetTask()]
	return d.cache.stale || l != nil && l.task.GetAttempt() == req.GetAttempt() && l.task.GetSession() == req.GetSession()
}

func reportError(err error) *v1.DispatchError {
	code := v1.DispatchError_CODE_UNAVAILABLE
	if errors.Is(err, store.ErrInvalid) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrExists) {
		code = v1.DispatchError_CODE_INVALID
	}
	return &v1.DispatchError{Code: code, Message: err.Error()}
}

// reportFiles returns the files that a report names, each once.
func reportFiles(req *v1.ReportRequest) []*v1.FileRef {
	var all []*v1.FileRef
	switch {
	case req.GetBaseline() != nil:
		all = append(all, req.GetBaseline().GetCheckpoint())
		all = append(all, req.GetBaseline().GetArtifacts()...)
	case req.GetTrial() != nil:
		all = append(all, req.GetTrial().GetCheckpoint())
		all = append(all, req.GetTrial().GetArtifacts()...)
	}
	seen := map[string]bool{}
	out := all[:0]
	for _, f := range all {
		if f != nil && !seen[f.GetHash()] {
			seen[f.GetHash()] = true
			out = append(out, f)
		}
	}
	return out
}

// Bounds of one report: what it says is recorded.
const (
	maxFiles  = 64
	maxGroups = 4096
)

// checkReport returns what is wrong with a report that the store need not see, or "".
func checkReport(req *v1.ReportRequest) string {
	for _, s := range []string{req.GetWorker(), req.GetSession(), req.GetTask()} {
		if s == "" || len(s) > 3*maxName {
			return fmt.Sprintf("worker, session and task must have 1 to %d bytes", 3*maxName)
		}
	}
	for _, f := range reportFiles(req) {
		if !isHash(f.GetHash()) || f.GetSizeBytes() < 0 {
			return fmt.Sprintf("file %.80q of %d bytes: the hash must be 64 lower-case hexadecimal digits, the size not negative", f.GetHash(), f.GetSizeBytes())
		}
	}
	switch out := req.GetOutcome().(type) {
	case *v1.ReportRequest_Baseline:
		return checkBaseline(out.Baseline)
	case *v1.ReportRequest_Trial:
		return checkTrial(out.Trial)
	case nil:
		return "outcome is missing: it must be one of baseline, trial, measurement, failure, hand_back"
	}
	return ""
}

func checkBaseline(b *v1.Baseline) string {
	switch {
	case !fraction(b.GetAccuracy()) || !fraction(b.GetTestAccuracy()):
		return fmt.Sprintf("baseline: accuracy %v and test_accuracy %v must lie in [0, 1]", b.GetAccuracy(), b.GetTestAccuracy())
	case b.GetCheckpoint() == nil || len(b.GetArtifacts()) == 0 || len(b.GetArtifacts()) > maxFiles:
		return fmt.Sprintf("baseline: it must have a checkpoint and 1 to %d artifacts", maxFiles)
	case len(b.GetGroups()) == 0 || len(b.GetGroups()) > maxGroups || len(b.GetStrategies()) == 0 || len(b.GetStrategies()) > maxGroups:
		return fmt.Sprintf("baseline: it has %d groups and %d strategies, it must have 1 to %d of each", len(b.GetGroups()), len(b.GetStrategies()), maxGroups)
	}
	names := map[string]bool{}
	for _, g := range b.GetGroups() {
		if g.GetName() == "" || names[g.GetName()] {
			return fmt.Sprintf("baseline: group name %q is empty or occurs twice", g.GetName())
		}
		names[g.GetName()] = true
	}
	return ""
}

func checkTrial(t *v1.TrialResult) string {
	switch {
	case !fraction(t.GetAccuracy()) || !fraction(t.GetTestAccuracy()):
		return fmt.Sprintf("trial: accuracy %v and test_accuracy %v must lie in [0, 1]; report a failure instead", t.GetAccuracy(), t.GetTestAccuracy())
	case len(t.GetArtifacts()) == 0 || len(t.GetArtifacts()) > maxFiles:
		return fmt.Sprintf("trial: it must have 1 to %d artifacts", maxFiles)
	}
	return ""
}

func fraction(v float64) bool { return v >= 0 && v <= 1 && !math.IsNaN(v) }

func isHash(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

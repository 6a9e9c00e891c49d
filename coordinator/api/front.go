package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search/pareto"
)

// Front implements JobService. It may be stale.
func (s *service) Front(_ context.Context, req *v1.FrontRequest) (*v1.FrontResponse, error) {
	out := &v1.FrontResponse{}
	err := s.cfg.Store.View(func(v *store.View) error {
		job, device, err := jobAndDevice(v, req.GetJob(), req.GetDevice())
		if err != nil {
			return err
		}
		out.Front = front(v, job, device)
		return nil
	})
	return out, wrap(err)
}

// jobAndDevice finds the job, and the device: the only one if none is named.
func jobAndDevice(v *store.View, ref, device string) (*v1.Job, string, error) {
	job, err := resolve(v, ref)
	if err != nil {
		return nil, "", err
	}
	devices := job.GetDevices()
	switch {
	case device == "" && len(devices) == 1:
		device = devices[0]
	case !slices.Contains(devices, device):
		return nil, "", invalid("device", device, "one of "+strings.Join(devices, ", "))
	}
	return job, device, nil
}

// front builds the whole front, with every measured trial.
func front(v *store.View, job *v1.Job, device string) *v1.Front {
	out := &v1.Front{
		Job: job.GetId(), Name: job.GetSpec().GetName(), Device: device,
		Baseline: baselineMember(job, device),
		Budget:   budget(v, job, device),
	}
	on := map[int32]bool{}
	for _, n := range v.Front(job.GetId(), device) {
		on[n] = true
	}
	for _, t := range v.Trials(job.GetId(), 0, 0) {
		m := member(t, device)
		if m == nil {
			continue
		}
		out.Measured = append(out.Measured, m)
		if on[t.GetNumber()] {
			m.Note = memberNote(v, job, m)
			out.Members = append(out.Members, m)
		}
	}
	slices.SortFunc(out.Members, compareMembers)
	out.Hypervolume = hypervolume(job, device, out.Members)
	return out
}

// frontMembers returns the members of a front alone.
func frontMembers(v *store.View, job *v1.Job, device string) []*v1.FrontMember {
	var out []*v1.FrontMember
	for _, n := range v.Front(job.GetId(), device) {
		if m := member(v.Trial(job.GetId(), n), device); m != nil {
			m.Note = memberNote(v, job, m)
			out = append(out, m)
		}
	}
	slices.SortFunc(out, compareMembers)
	return out
}

// memberNote says what is to be known of a member's files.
func memberNote(v *store.View, job *v1.Job, m *v1.FrontMember) string {
	if slices.Contains(job.GetRemakes(), m.GetTrial()) {
		return note(v, job, m.GetTrial())
	}
	if at := v.File(m.GetArtifact()).GetLostMs(); at > 0 {
		return "its file was lost on all replicas at " + clockTime(at)
	}
	return ""
}

// compareMembers puts the most accurate first.
func compareMembers(a, b *v1.FrontMember) int {
	return cmp.Or(
		cmp.Compare(b.GetAccuracy(), a.GetAccuracy()),
		cmp.Compare(a.GetSizeBytes(), b.GetSizeBytes()),
		cmp.Compare(a.GetTrial(), b.GetTrial()),
	)
}

// member describes a trial as measured on a device; nil if it was not.
func member(t *v1.Trial, device string) *v1.FrontMember {
	m, r := t.GetMeasurements()[device], t.GetResult()
	if m == nil || r == nil {
		return nil
	}
	sparsity := r.GetSparsity()
	if len(sparsity) == 0 {
		sparsity = t.GetConfig().GetSparsity()
	}
	return &v1.FrontMember{
		Trial: t.GetNumber(), Strategy: t.GetConfig().GetStrategy(), Sparsity: sparsity,
		Accuracy: r.GetAccuracy(), TestAccuracy: r.GetTestAccuracy(),
		SizeBytes: m.GetSizeBytes(), LatencyP50Ns: m.GetP50Ns(), LatencyP95Ns: m.GetP95Ns(), Spread: m.GetSpread(),
		Params: r.GetParams(), Nonzeros: r.GetNonzeros(), Macs: r.GetMacs(),
		Format: m.GetFormat(), Artifact: m.GetArtifact(), Config: t.GetConfig(), Artifacts: r.GetArtifacts(),
	}
}

// baselineMember describes the dense model; nil while it is not measured.
func baselineMember(job *v1.Job, device string) *v1.FrontMember {
	b := job.GetBaseline()
	m := b.GetMeasurements()[device]
	if m == nil {
		return nil
	}
	return &v1.FrontMember{
		Accuracy: b.GetAccuracy(), TestAccuracy: b.GetTestAccuracy(),
		SizeBytes: m.GetSizeBytes(), LatencyP50Ns: m.GetP50Ns(), LatencyP95Ns: m.GetP95Ns(), Spread: m.GetSpread(),
		Params: b.GetParams(), Nonzeros: b.GetNonzeros(), Macs: b.GetMacs(),
		Format: m.GetFormat(), Artifact: m.GetArtifact(), Artifacts: b.GetArtifacts(),
	}
}

func paretoMember(m *v1.FrontMember) pareto.Member {
	return pareto.Member{
		Number: int(m.GetTrial()), Accuracy: m.GetAccuracy(), SizeBytes: m.GetSizeBytes(),
		LatencyP50: time.Duration(m.GetLatencyP50Ns()), LatencyP95: time.Duration(m.GetLatencyP95Ns()),
	}
}

// hypervolume is the share of the normalised box that the members dominate; 0 until the dense model is measured.
func hypervolume(job *v1.Job, device string, members []*v1.FrontMember) float64 {
	dense := job.GetBaseline().GetMeasurements()[device]
	if dense == nil {
		return 0
	}
	b := pareto.Baseline{Error: 1 - job.GetBaseline().GetAccuracy(), SizeBytes: dense.GetSizeBytes(), LatencyP50: time.Duration(dense.GetP50Ns())}
	points := make([]pareto.Member, len(members))
	for i, m := range members {
		points[i] = paretoMember(m)
	}
	return b.Hypervolume(points)
}

// budget is the device's budget for a job: the job's fields that are set override the device record's.
func budget(v *store.View, job *v1.Job, device string) *v1.Budget {
	return override(v.Device(device).GetBudget(), job.GetSpec().GetBudgets()[device])
}

// override returns base with the fields that b sets.
func override(base, b *v1.Budget) *v1.Budget {
	return &v1.Budget{
		LatencyNs: cmp.Or(b.GetLatencyNs(), base.GetLatencyNs()),
		SizeBytes: cmp.Or(b.GetSizeBytes(), base.GetSizeBytes()),
		Accuracy:  cmp.Or(b.GetAccuracy(), base.GetAccuracy()),
	}
}

func paretoBudget(b *v1.Budget) pareto.Budget {
	return pareto.Budget{Latency: time.Duration(b.GetLatencyNs()), SizeBytes: b.GetSizeBytes(), Accuracy: b.GetAccuracy()}
}

// fit returns the member that satisfies the budget best, nil if none does.
func fit(members []*v1.FrontMember, b *v1.Budget) *v1.FrontMember {
	points := make([]pareto.Member, len(members))
	for i, m := range members {
		points[i] = paretoMember(m)
	}
	found, err := pareto.Fit(points, paretoBudget(b))
	if err != nil {
		return nil
	}
	i := slices.IndexFunc(members, func(m *v1.FrontMember) bool { return int(m.GetTrial()) == found.Number })
	return members[i]
}

// nearest returns the member whose worst miss, relative to the limit, is least.
func nearest(members []*v1.FrontMember, b *v1.Budget) *v1.FrontMember {
	var out *v1.FrontMember
	least := 0.0
	for _, m := range members {
		worst := 0.0
		if limit := b.GetLatencyNs(); limit > 0 {
			worst = max(worst, float64(m.GetLatencyP95Ns())/float64(limit)-1)
		}
		if limit := b.GetSizeBytes(); limit > 0 {
			worst = max(worst, float64(m.GetSizeBytes())/float64(limit)-1)
		}
		if limit := b.GetAccuracy(); limit > 0 {
			worst = max(worst, (limit-m.GetAccuracy())/limit)
		}
		if out == nil || worst < least {
			out, least = m, worst
		}
	}
	return out
}

// misses says which limits a member misses, and by how much.
func misses(m *v1.FrontMember, b *v1.Budget) string {
	var out []string
	if limit := b.GetLatencyNs(); limit > 0 && m.GetLatencyP95Ns() > limit {
		out = append(out, fmt.Sprintf("latency p95 is %v, the limit is %v", time.Duration(m.GetLatencyP95Ns()), time.Duration(limit)))
	}
	if limit := b.GetSizeBytes(); limit > 0 && m.GetSizeBytes() > limit {
		out = append(out, fmt.Sprintf("size is %d bytes, the limit is %d", m.GetSizeBytes(), limit))
	}
	if limit := b.GetAccuracy(); limit > 0 && m.GetAccuracy() < limit {
		out = append(out, fmt.Sprintf("accuracy is %.4f, the least wanted is %.4f", m.GetAccuracy(), limit))
	}
	return strings.Join(out, "; ")
}

// Fit implements JobService. It is linearizable.
func (s *service) Fit(ctx context.Context, req *v1.FitRequest) (*v1.FitResponse, error) {
	if err := checkBudget("budget", req.GetBudget()); err != nil {
		return nil, err
	}
	if err := s.cfg.Store.Linearizable(ctx); err != nil {
		return nil, wrap(err)
	}
	out := &v1.FitResponse{}
	err := s.cfg.Store.View(func(v *store.View) error {
		job, device, err := jobAndDevice(v, req.GetJob(), req.GetDevice())
		if err != nil {
			return err
		}
		out.Budget = override(budget(v, job, device), req.GetBudget())
		members := frontMembers(v, job, device)
		if len(members) == 0 {
			return connect.NewError(connect.CodeFailedPrecondition, errors.New(emptyFront(v, job, device)))
		}
		if out.Member = fit(members, out.GetBudget()); out.Member == nil {
			out.Nearest = nearest(members, out.GetBudget())
			out.Misses = misses(out.GetNearest(), out.GetBudget())
		}
		return nil
	})
	return out, wrap(err)
}

// emptyFront says why a front has no members yet.
func emptyFront(v *store.View, job *v1.Job, device string) string {
	waiting := len(v.PendingOf(job.GetId(), v1.TaskKind_TASK_KIND_MEASURE, device, 0))
	if waiting > 0 {
		return fmt.Sprintf("nothing of job %s is measured on device %s yet: %d measures wait for a worker started with --device %s",
			job.GetId(), device, waiting, device)
	}
	return fmt.Sprintf("nothing of job %s is measured on device %s yet", job.GetId(), device)
}

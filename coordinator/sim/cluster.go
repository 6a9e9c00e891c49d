package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/coordinator/dispatch"
	"github.com/espalier-ml/espalier/coordinator/leader"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search"
)

// unclear is the store whose commits sometimes do not say what became of them, and which tells the checks what it did.
type unclear struct {
	s     *sim
	local *store.Local
}

func (u *unclear) View(f func(*store.View) error) error { return u.local.View(f) }

// Apply implements the stores of dispatch and leader.
func (u *unclear) Apply(ctx context.Context, cmds ...*v1.Command) ([]store.Result, error) {
	lost := u.s.chance(u.s.cfg.Unclear)
	if lost {
		u.s.counts.Unclear++
		if u.s.chance(0.5) {
			return nil, fmt.Errorf("%w: simulated, not committed", store.ErrUncertain)
		}
	}
	results, err := u.local.Apply(ctx, cmds...)
	if err == nil {
		u.s.committed(cmds, results)
	}
	if lost && err == nil {
		return nil, fmt.Errorf("%w: simulated, committed", store.ErrUncertain)
	}
	return results, err
}

// telling tells dispatch of what the leader's own commands change.
type telling struct {
	*unclear
	s *sim
}

// Apply implements leader.Store.
func (t telling) Apply(ctx context.Context, cmds ...*v1.Command) ([]store.Result, error) {
	results, err := t.unclear.Apply(ctx, cmds...)
	t.s.disp.Changed(jobID)
	return results, err
}

// Missing implements dispatch.Files.
func (s *sim) Missing(_ context.Context, refs []*v1.FileRef) (out []string, err error) {
	for _, f := range refs {
		if !s.present[f.GetHash()] {
			out = append(out, f.GetHash())
		}
	}
	return out, nil
}

// crown makes a new leader.
func (s *sim) crown() {
	var err error
	st := &unclear{s, s.local}
	s.lead, err = leader.New(leader.Config{Store: telling{st, s}, Clock: &s.clock, Log: zerolog.Nop(),
		Planner: func(*v1.Job, []string) (leader.Plan, error) { return &plan{s}, nil }})
	if err == nil {
		s.disp, err = dispatch.New(dispatch.Config{Store: st, Proposer: s.lead, Files: s, Clock: &s.clock, Log: zerolog.Nop()})
	}
	if err == nil {
		s.counts.Leaders++
		err = s.disp.Enable(uint64(s.counts.Leaders))
	}
	if err != nil {
		s.fail(err)
		return
	}
	s.leading = true
}

// depose ends the lead; a new leader comes soon, and the old one answers nobody.
func (s *sim) depose() {
	s.disp.Disable()
	s.leading = false
	s.after(s.between(100*time.Millisecond, 3*time.Second), s.crown)
}

// tick is what the leader's loops do by the clock.
func (s *sim) tick() {
	if s.leading {
		if err := s.disp.Expire(s.ctx); err != nil {
			s.tolerate(err)
		}
		s.check()
	}
	s.after(time.Second, s.tick)
}

// reign deposes leaders now and then.
func (s *sim) reign() {
	if s.leading && s.chance(s.cfg.Depose) {
		s.depose()
	}
	s.after(10*time.Second, s.reign)
}

// check asks the leader whether a stop rule holds.
func (s *sim) check() {
	if err := s.lead.Check(s.ctx, jobID); err != nil {
		s.tolerate(err)
	}
}

func (s *sim) claim(r *v1.ClaimRequest) *v1.ClaimReply { return s.disp.ClaimNow(s.ctx, r) }

func (s *sim) reported(r *v1.ReportRequest) *v1.ReportReply {
	reply := s.disp.Report(s.ctx, r)
	s.check()
	return reply
}

// plan makes the job search the problem.
type plan struct{ s *sim }

var _ leader.Plan = (*plan)(nil)

func (p *plan) Space() search.Space              { return p.s.cfg.Problem.Space() }
func (p *plan) Reference() []float64             { return p.s.cfg.Problem.Reference() }
func (p *plan) Seed(int32) (search.Config, bool) { return nil, false }
func (p *plan) Config(c search.Config) (*v1.TrialConfig, error) {
	return &v1.TrialConfig{Strategy: "problem", Point: c}, p.s.cfg.Problem.Space().Check(c)
}

// Outcome implements leader.Plan: the very objectives, which the records hold squashed.
func (p *plan) Outcome(t *v1.Trial) leader.Outcome {
	return leader.Outcome{Objectives: p.s.values[t.GetNumber()].objectives}
}

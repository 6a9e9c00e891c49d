package check

import (
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

var zero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }

// good is a cluster in which two trials were done and measured, and what its workers were told.
func good() (*State, []Ack) {
	trial := func(n int32, accuracy float64, p50 int64) *v1.Trial {
		return &v1.Trial{Job: "j", Number: n, State: v1.TrialState_TRIAL_STATE_DONE, Worker: "w", Attempt: n, Order: n,
			Result:       &v1.TrialResult{Accuracy: accuracy},
			Measurements: map[string]*v1.Measurement{"d": {Device: "d", Worker: "m", SizeBytes: 10, P50Ns: p50}}}
	}
	job := &v1.Job{Id: "j", Spec: &v1.JobSpec{Name: "r-1", Stop: &v1.StopSpec{Trials: 2}}, State: v1.JobState_JOB_STATE_DONE,
		Devices: []string{"d"}, LastTrial: 2, Completed: 2, Baseline: &v1.Baseline{Measurements: map[string]*v1.Measurement{"d": {Worker: "m"}}}}
	s := &State{
		Jobs:   []*v1.JobStatus{{Job: job}},
		Trials: map[string][]*v1.Trial{"j": {trial(1, 0.9, 100), trial(2, 0.8, 200)}},
		Fronts: map[string]map[string]*v1.Front{"j": {"d": {Members: []*v1.FrontMember{{Trial: 1}}}}},
	}
	return s, []Ack{
		{Worker: "w", Task: "j/baseline", Outcome: Baseline, Attempt: 1, At: at(0)},
		{Worker: "w", Task: "j/trial/1", Outcome: Trial, Attempt: 1, At: at(10)},
		{Worker: "v", Task: "j/trial/2", Outcome: Trial, Attempt: 1, Stale: true, At: at(15)},
		{Worker: "w", Task: "j/trial/2", Outcome: Trial, Attempt: 2, At: at(20)},
		{Worker: "m", Task: "j/measure/0/d", Outcome: Measurement, Attempt: 1, At: at(25)},
		{Worker: "m", Task: "j/measure/1/d", Outcome: Measurement, Attempt: 1, At: at(30)},
		{Worker: "m", Task: "j/measure/2/d", Outcome: Measurement, Attempt: 1, At: at(40)},
		{Worker: "w", Task: "j/baseline", Outcome: Baseline, Attempt: 2, Stale: true, At: at(45)},
		{Worker: "m", Task: "j/measure/1/d", Outcome: Measurement, Attempt: 2, Stale: true, At: at(45)},
		{Worker: "w", Task: "j/trial/2", Outcome: "hand-back", Attempt: 7, At: at(50)},
	}
}

var goodReads = []Read{
	{Job: "j", Device: "d", Begun: at(5), None: true},
	{Job: "j", Device: "d", Begun: at(35), Trial: 1, Accuracy: 0.9},
}

var submitted = map[string][]string{"r-1": {"j", "j"}}

// all runs every check on a state.
func all(s *State, acks []Ack, reads []Read, submitted map[string][]string) (bad []string) {
	for _, b := range [][]string{Results(s, acks), Counts(s), Ended(s), Known(s, submitted), Fronts(s), Fresh(s, reads, acks)} {
		bad = append(bad, b...)
	}
	return bad
}

func TestGoodHolds(t *testing.T) {
	s, acks := good()
	if bad := all(s, acks, goodReads, submitted); len(bad) > 0 {
		t.Error(bad)
	}
}

// TestPlanted plants one violation after the other in a good cluster.
func TestPlanted(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(s *State, acks *[]Ack, reads *[]Read, submitted map[string][]string)
		want  string
	}{
		"a dropped result": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Trials["j"][1].State, s.Jobs[0].Job.Completed, s.Jobs[0].Job.Failed = v1.TrialState_TRIAL_STATE_FAILED, 1, 1
		}, "j/trial/2 attempt 2 of w was acknowledged at 00:00:00, and is lost"},
		"a dropped measurement": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Trials["j"][1].Measurements = nil
		}, "j/measure/2/d attempt 1 of m was acknowledged at 00:00:00, and is lost"},
		"a dropped baseline": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Jobs[0].Job.Baseline = nil
		}, "j/baseline attempt 1 of w was acknowledged"},
		"another attempt counts": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Trials["j"][0].Attempt = 3
		}, "j/trial/1 attempt 1 of w was acknowledged at 00:00:00, and is lost"},
		"a doubled result": {func(_ *State, acks *[]Ack, _ *[]Read, _ map[string][]string) {
			*acks = append(*acks, Ack{Worker: "w", Task: "j/trial/1", Outcome: Trial, Attempt: 2})
		}, "j/trial/1 was acknowledged twice: attempt 1 of w and attempt 2 of w"},
		"a stale report counts": {func(_ *State, acks *[]Ack, _ *[]Read, _ map[string][]string) {
			(*acks)[1].Stale = true
		}, "refused as stale, and counts"},
		"a wrong count": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Jobs[0].Job.Completed = 3
		}, "it counts 3 completed and 0 failed trials, there are 2 and 0"},
		"a place taken twice": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Trials["j"][1].Order = 1
		}, "have the same place 1"},
		"a trial without a record": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Jobs[0].Job.LastTrial = 3
		}, "2 records for 3 trials"},
		"an early end": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Jobs[0].Job.Spec.Stop.Trials = 5
		}, "done after 2 of 5 trials"},
		"a job that hangs": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Jobs[0].Job.State = v1.JobState_JOB_STATE_SEARCHING
		}, "job j hangs"},
		"a zombie": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Jobs[0].Running = []*v1.RunningTask{{Task: &v1.Task{Id: "j/trial/2", Worker: "w"}}}
		}, "j/trial/2 is a zombie"},
		"a measure that waits": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Jobs[0].PendingMeasures = 1
		}, "1 measures wait for ever"},
		"a trial that runs for ever": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Trials["j"][1].State = v1.TrialState_TRIAL_STATE_RUNNING
		}, "trial 2 of job j runs"},
		"a lost job": {func(_ *State, _ *[]Ack, _ *[]Read, sub map[string][]string) {
			sub["r-2"] = []string{"k"}
		}, "job k was acknowledged, and is lost"},
		"a request that made two jobs": {func(s *State, _ *[]Ack, _ *[]Read, sub map[string][]string) {
			sub["r-1"] = []string{"j", "k"}
		}, "request r-1 made 2 jobs"},
		"a second job unknown to clients": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Jobs = append(s.Jobs, &v1.JobStatus{Job: &v1.Job{Id: "k", Spec: &v1.JobSpec{Name: "r-1"}, State: v1.JobState_JOB_STATE_DONE}})
		}, "jobs j and k are of one request"},
		"a member too few": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Fronts["j"]["d"].Members = nil
		}, "the front is [], brute force over 2 measurements gives [1]"},
		"a member too many": {func(s *State, _ *[]Ack, _ *[]Read, _ map[string][]string) {
			s.Fronts["j"]["d"].Members = append(s.Fronts["j"]["d"].Members, &v1.FrontMember{Trial: 2})
		}, "the front is [1 2], brute force over 2 measurements gives [1]"},
		"a stale read of nothing": {func(_ *State, _ *[]Ack, reads *[]Read, _ map[string][]string) {
			(*reads)[1].None = true
		}, "stale read"},
		"a stale read of a worse member": {func(_ *State, _ *[]Ack, reads *[]Read, _ map[string][]string) {
			(*reads)[1].Trial, (*reads)[1].Accuracy = 2, 0.8
		}, "stale read"},
		"a read of what is not there": {func(_ *State, _ *[]Ack, reads *[]Read, _ map[string][]string) {
			(*reads)[1].Accuracy = 0.95
		}, "not what is recorded"},
	} {
		t.Run(name, func(t *testing.T) {
			s, acks := good()
			reads := append([]Read{}, goodReads...)
			sub := map[string][]string{"r-1": {"j", "j"}}
			c.plant(s, &acks, &reads, sub)
			bad := all(s, acks, reads, sub)
			if !strings.Contains(strings.Join(bad, "\n"), c.want) {
				t.Errorf("found %q, want %q", bad, c.want)
			}
		})
	}
}

func TestDigests(t *testing.T) {
	compared, bad := Digests(map[string]map[uint64]string{"a": {1: "x", 2: "y"}, "b": {2: "y", 3: "z"}, "c": {2: "y"}})
	if compared != 1 || len(bad) > 0 {
		t.Errorf("compared %d: %v", compared, bad)
	}
	_, bad = Digests(map[string]map[uint64]string{"a": {2: "y"}, "b": {2: "z"}})
	if len(bad) != 1 || !strings.Contains(bad[0], "replicas a and b differ after entry 2") {
		t.Errorf("found %q", bad)
	}
}

// did is an operation that took the time from one millisecond to another.
func did(verb Verb, answer Answer, state v1.JobState, begun, ended int) Op {
	return Op{Request: "r", Verb: verb, Answer: answer, State: state, Begun: at(begun), Ended: at(ended)}
}

func TestLinearizable(t *testing.T) {
	const (
		preparing = v1.JobState_JOB_STATE_PREPARING
		searching = v1.JobState_JOB_STATE_SEARCHING
		paused    = v1.JobState_JOB_STATE_PAUSED
		ended     = v1.JobState_JOB_STATE_DONE
		cancelled = v1.JobState_JOB_STATE_CANCELLED
		none      = v1.JobState_JOB_STATE_UNSPECIFIED
	)
	submit := did(Submit, Done, preparing, 0, 10)
	for name, c := range map[string]struct {
		ops  []Op
		good bool
	}{
		"a whole life":                    {[]Op{submit, did(Pause, Done, paused, 20, 30), did(Resume, Done, searching, 40, 50), did(Submit, Done, ended, 60, 70), did(Cancel, Refused, none, 80, 90)}, true},
		"ended while paused":              {[]Op{submit, did(Pause, Done, paused, 20, 30), did(Resume, Done, ended, 40, 50)}, true},
		"ended by itself, then refused":   {[]Op{submit, did(Pause, Refused, none, 20, 30), did(Submit, Done, ended, 40, 50)}, true},
		"a lost answer that took effect":  {[]Op{submit, did(Pause, Unknown, none, 20, 30), did(Submit, Done, paused, 40, 50)}, true},
		"a lost answer that took none":    {[]Op{submit, did(Pause, Unknown, none, 20, 30), did(Submit, Done, searching, 40, 50)}, true},
		"a lost answer that took it late": {[]Op{submit, did(Pause, Unknown, none, 20, 30), did(Submit, Done, searching, 40, 50), did(Submit, Done, paused, 60, 70)}, true},
		"submit lost, made by the next":   {[]Op{did(Submit, Unknown, none, 0, 5), did(Submit, Done, searching, 20, 30)}, true},
		"at once, either order":           {[]Op{submit, did(Pause, Done, paused, 20, 50), did(Resume, Done, searching, 20, 50), did(Submit, Done, paused, 60, 70)}, true},
		"a stale read after a pause":      {[]Op{submit, did(Pause, Done, paused, 20, 30), did(Submit, Done, searching, 40, 50)}, false},
		"a pause of nobody":               {[]Op{submit, did(Submit, Done, paused, 20, 30)}, false},
		"a job that rises from the dead":  {[]Op{submit, did(Cancel, Done, cancelled, 20, 30), did(Submit, Done, searching, 40, 50)}, false},
		"an end that is taken back":       {[]Op{submit, did(Submit, Done, ended, 20, 30), did(Resume, Done, searching, 40, 50)}, false},
		"a cancel that was lost":          {[]Op{submit, did(Cancel, Done, cancelled, 20, 30), did(Submit, Done, ended, 40, 50)}, false},
		"a second cancel is no refusal":   {[]Op{submit, did(Cancel, Done, cancelled, 20, 30), did(Cancel, Refused, none, 40, 50)}, false},
		"an acknowledged job is absent":   {[]Op{submit, did(Pause, Absent, none, 20, 30)}, false},
		"once seen, a late effect stays":  {[]Op{submit, did(Pause, Unknown, none, 20, 30), did(Submit, Done, paused, 40, 50), did(Submit, Done, searching, 60, 70)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			late, bad := Linearizable(c.ops, 10*time.Second)
			if late > 0 || (len(bad) == 0) != c.good {
				t.Errorf("late %d, found %q", late, bad)
			}
			// Each checker by itself.
			if ok, decided := ordered(c.ops); !decided || ok != c.good {
				t.Errorf("the search in time says %t, %t", ok, decided)
			}
			if ok := porcupine.CheckOperations(model, operations(c.ops)); ok != c.good {
				t.Errorf("porcupine says %t", ok)
			}
		})
	}
}

package check

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// lived makes the history of a job that behaves, by clients who work at once and of whose answers a part is lost.
func lived(rng *rand.Rand, n, clients int, lost float64) (ops []Op) {
	type call struct {
		op    Op
		moves int // when it takes effect
	}
	var calls []call
	free := make([]int, clients)
	for range n {
		c := rng.IntN(clients)
		begun := free[c] + 1 + rng.IntN(20)
		moves := begun + rng.IntN(30)
		ended := moves + rng.IntN(10)
		free[c] = ended
		op := did(verbs[rng.IntN(len(verbs))], Done, 0, begun, ended)
		op.Client = c
		if rng.Float64() < lost {
			op.Answer, op.Client = Unknown, clients+len(calls) // nothing keeps a client from going on
			if rng.IntN(3) == 0 {
				moves += rng.IntN(200) // late
			}
		}
		calls = append(calls, call{op, moves})
	}
	now := absent
	for t := 0; len(ops) < n; t++ {
		if now == live && rng.IntN(300) == 0 {
			now = over
		}
		for i := range calls {
			if c := &calls[i]; c.moves == t {
				c.op.Answer, c.op.State, now = answered(now, c.op)
				ops = append(ops, c.op)
			}
		}
	}
	return ops
}

// answered is what a job in a state answers, and its state after that.
func answered(now life, op Op) (Answer, v1.JobState, life) {
	next := after(now, op.Verb)
	states := map[life]v1.JobState{live: v1.JobState_JOB_STATE_SEARCHING, paused: v1.JobState_JOB_STATE_PAUSED,
		over: v1.JobState_JOB_STATE_DONE, cancelled: v1.JobState_JOB_STATE_CANCELLED}
	switch {
	case op.Answer == Unknown:
		return Unknown, 0, next
	case next == absent:
		return Absent, 0, next
	case next == over && op.Verb != Submit, next == cancelled && (op.Verb == Pause || op.Verb == Resume):
		return Refused, 0, next
	}
	return Done, states[next], next
}

// TestOrdered: the search in time and porcupine say the same of jobs that behave, and of ones of which an answer was changed.
func TestOrdered(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	verdicts := map[bool]int{}
	for range 3000 {
		ops := lived(rng, 1+rng.IntN(14), 1+rng.IntN(4), 0.3)
		changed := rng.IntN(2) == 0
		if changed {
			o := &ops[rng.IntN(len(ops))]
			o.Answer = []Answer{Done, Done, Refused, Absent}[rng.IntN(4)]
			o.State = []v1.JobState{v1.JobState_JOB_STATE_SEARCHING, v1.JobState_JOB_STATE_PAUSED, v1.JobState_JOB_STATE_DONE, v1.JobState_JOB_STATE_CANCELLED}[rng.IntN(4)]
		}
		rng.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		ok, decided := ordered(ops)
		want := porcupine.CheckOperations(model, operations(ops))
		if !decided || ok != want || !changed && !ok {
			t.Fatalf("the search in time says %t, %t, porcupine %t, of a history (changed: %t):%s", ok, decided, want, changed, describe(ops))
		}
		verdicts[ok]++
	}
	if verdicts[true] < 500 || verdicts[false] < 300 {
		t.Errorf("verdicts %v: too few of one kind to compare", verdicts)
	}
}

// TestOrderedLong: hundreds of lost answers, of which a search over subsets sees no end.
func TestOrderedLong(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		ops := lived(rng, 600, 8, 0.5)
		if ok, decided := ordered(ops); !ok || !decided {
			t.Fatalf("%t, %t of a job that behaved", ok, decided)
		}
	}
}

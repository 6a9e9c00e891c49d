package check

import (
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Verb is what a client asks of a job.
type Verb string

// Verbs. Submitting again under the same request id is a linearizable read of the job's state.
const (
	Submit Verb = "submit"
	Pause  Verb = "pause"
	Resume Verb = "resume"
	Cancel Verb = "cancel"
)

// Answer is what the client was told.
type Answer int

// Answers.
const (
	// Unknown: there was none, or one that says nothing. It may have happened, or happen later, or never.
	Unknown Answer = iota
	// Done: it happened, and the job is in State.
	Done
	// Refused: the job's state does not allow it.
	Refused
	// Absent: there is no such job.
	Absent
)

// Op is one operation on a job, from the request to the answer.
type Op struct {
	Client  int
	Request string // the request id under which the job was submitted; stands for the job
	Verb    Verb
	Answer  Answer
	State   v1.JobState
	Begun   time.Time
	Ended   time.Time
}

// life is a job's state as clients may tell it apart.
type life int

const (
	absent life = iota
	live
	paused
	over // done or failed
	cancelled
)

func lifeOf(s v1.JobState) life {
	switch s {
	case v1.JobState_JOB_STATE_PREPARING, v1.JobState_JOB_STATE_SEARCHING:
		return live
	case v1.JobState_JOB_STATE_PAUSED:
		return paused
	case v1.JobState_JOB_STATE_DONE, v1.JobState_JOB_STATE_FAILED:
		return over
	case v1.JobState_JOB_STATE_CANCELLED:
		return cancelled
	}
	return absent
}

// step follows one operation. A job that is live or paused may end by itself at any time: what is told of it decides.
func step(now life, op Op) (bool, life) {
	if op.Answer == Absent {
		return now == absent, now
	}
	if now == absent && op.Verb != Submit {
		// Nobody knows a job's id before it is there; an unknown answer may come of a request that never arrived.
		return op.Answer == Unknown, now
	}
	if op.Answer == Unknown {
		return true, after(now, op.Verb)
	}
	running := now == live || now == paused
	if op.Answer == Refused {
		// Only an end refuses: one that was, or one that came by itself.
		if running {
			return true, over
		}
		return now == over || op.Verb != Cancel, now
	}
	told, next := lifeOf(op.State), after(now, op.Verb)
	if told == next {
		return true, next
	}
	// The only other way: the job had ended by itself before. A submit reads that; a resume may have been all that was
	// missing to the end.
	return told == over && (running && op.Verb == Submit || now == paused && op.Verb == Resume), told
}

// after is the state that an operation leads to.
func after(now life, verb Verb) life {
	switch {
	case verb == Submit && now == absent:
		return live
	case verb == Pause && now == live:
		return paused
	case verb == Resume && now == paused:
		return live
	case verb == Cancel && (now == live || now == paused):
		return cancelled
	}
	return now
}

// model is porcupine's view of one job.
var model = porcupine.Model{
	Init: func() any { return absent },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := step(state.(life), input.(Op))
		return ok, next
	},
	DescribeOperation: func(input, _ any) string {
		o := input.(Op)
		return fmt.Sprintf("%s -> %d %s", o.Verb, o.Answer, o.State)
	},
}

// Linearizable holds that the operations on each job can be put in an order that fits what each client was told and the
// times at which it was told. Two checkers say so: porcupine, which tries subsets of the operations without an answer and may
// not end in the time there is, and a search of its own kind, which must agree. late counts the jobs that porcupine did not decide.
func Linearizable(ops []Op, within time.Duration) (late int, bad []string) {
	byJob := map[string][]Op{}
	for _, o := range ops {
		byJob[o.Request] = append(byJob[o.Request], o)
	}
	deadline := time.Now().Add(within)
	for request, history := range byJob {
		is, decided := ordered(history)
		verdict := porcupine.CheckOperationsTimeout(model, operations(history), max(time.Until(deadline), time.Second))
		switch {
		case verdict == porcupine.Unknown && !decided:
			bad = append(bad, fmt.Sprintf("undecided: job of request %s, %d operations", request, len(history)))
		case verdict == porcupine.Illegal || decided && !is:
			bad = append(bad, fmt.Sprintf("not linearizable (porcupine: %s; search in time: %t): job of request %s:%s", verdict, is, request, describe(history)))
		case verdict == porcupine.Unknown:
			late++
		}
	}
	return late, bad
}

// operations are a job's as porcupine takes them: what had no answer may still happen at any time.
func operations(history []Op) (out []porcupine.Operation) {
	for _, o := range history {
		end := int64(math.MaxInt64)
		if o.Answer != Unknown {
			end = o.Ended.UnixNano()
		}
		out = append(out, porcupine.Operation{ClientId: o.Client, Input: o, Call: o.Begun.UnixNano(), Return: end})
	}
	return out
}

func describe(history []Op) (out string) {
	for _, o := range history {
		out += fmt.Sprintf("\n    client %d %s to %s: %s", o.Client, o.Begun.Format("15:04:05.000"), o.Ended.Format("15:04:05.000"), model.DescribeOperation(o, nil))
	}
	return out
}

package api

import (
	"fmt"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// note says what is to be known of a trial's files; "" if nothing is. Trial 0 is the baseline.
func note(v *store.View, job *v1.Job, trial int32) string {
	kind := v1.TaskKind_TASK_KIND_TRIAL
	if trial == 0 {
		kind = v1.TaskKind_TASK_KIND_BASELINE
	}
	r := v.Task(store.TaskID(job.GetId(), kind, trial, "")).GetRemake()
	what := files(len(r.GetLost()))
	switch {
	case r == nil:
		return ""
	case r.GetOpen() && r.GetVariant() != "":
		return fmt.Sprintf("%s lost on all replicas at %s, to be made again by a worker with kernel variant %s", what, clockTime(r.GetLostMs()), r.GetVariant())
	case r.GetOpen():
		return fmt.Sprintf("%s lost on all replicas at %s, to be made again", what, clockTime(r.GetLostMs()))
	case r.GetSame():
		return fmt.Sprintf("%s lost, and made again at %s with the same checksum", what, clockTime(r.GetEndedMs()))
	case len(r.GetMade()) > 0:
		return fmt.Sprintf("%s lost; made again at %s with other checksums (%s): the figures are of the lost file", what,
			clockTime(r.GetEndedMs()), hashes(r.GetMade()))
	}
	return fmt.Sprintf("%s lost and not made again: %s", what, r.GetReason())
}

func files(n int) string {
	if n == 1 {
		return "a file was"
	}
	return fmt.Sprintf("%d files were", n)
}

func clockTime(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func hashes(files []*v1.FileRef) string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f.GetFormat() + " " + f.GetHash()
	}
	return strings.Join(out, ", ")
}

// notes are those of all of a job's trials that have one.
func notes(v *store.View, job *v1.Job) []string {
	var out []string
	for _, n := range job.GetRemakes() {
		who := fmt.Sprintf("trial %d", n)
		if n == 0 {
			who = "baseline"
		}
		out = append(out, who+": "+note(v, job, n))
	}
	return out
}

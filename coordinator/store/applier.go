package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Result is what one command did.
type Result struct {
	// Err is set when the command was refused: nothing changed.
	Err error
	// Job, Task and Trial are the records the command made or changed, as they are
	// after it.
	Job   *v1.Job
	Task  *v1.Task
	Trial *v1.Trial
	// Status tells what became of a report.
	Status v1.ReportReply_Status
	// Created are tasks that became pending and did not exist before.
	Created []*v1.Task
	// Freed are tasks that lost their lease other than by their own report: their
	// worker has a new session, or their job was cancelled or failed.
	Freed []*v1.Task
}

// Limits and delays of a task's life.
const (
	// MaxFailures is how many failed attempts make a task FAILED.
	MaxFailures = 3
	// MaxLosses is how many lost leases make a task FAILED.
	MaxLosses = 10
	// firstDelayMS is the delay after the first failure; each further one is four
	// times the one before.
	firstDelayMS = 1000
	// maxReasonBytes cuts reasons, which come from workers.
	maxReasonBytes = 1024
)

// DelayMS is how many milliseconds a task waits after so many failures.
func DelayMS(failures int32) int64 {
	delay := int64(firstDelayMS)
	for i := int32(1); i < failures; i++ {
		delay *= 4
	}
	return delay
}

// applier applies commands to one write transaction. It has no state of its own, no
// clock and no randomness: what it does follows from the transaction and the command.
type applier struct {
	*txn
	nowMS int64
}

// apply runs one command. A refused command comes back in Result.Err and changed
// nothing. A panic with a fault means that the state file failed.
func apply(tx *txn, cmd *v1.Command) Result {
	a := &applier{txn: tx, nowMS: cmd.TimeMs}
	var r Result
	var err error
	switch op := cmd.Op.(type) {
	case *v1.Command_SubmitJob:
		r, err = a.submitJob(op.SubmitJob)
	case *v1.Command_SetJobState:
		r, err = a.setJobState(op.SetJobState)
	case *v1.Command_StopJob:
		r, err = a.stopJob(op.StopJob)
	case *v1.Command_LeaseTask:
		r, err = a.leaseTask(op.LeaseTask)
	case *v1.Command_EndLease:
		r, err = a.endLease(op.EndLease)
	case *v1.Command_Report:
		r, err = a.report(op.Report)
	case *v1.Command_PutWorker:
		r, err = a.putWorker(op.PutWorker)
	case *v1.Command_PutDevice:
		err = a.putDevice(op.PutDevice)
	case *v1.Command_PutData:
		err = a.putData(op.PutData)
	case *v1.Command_AddFiles:
		r, err = a.addFiles(op.AddFiles)
	case *v1.Command_DropFiles:
		err = a.dropFiles(op.DropFiles)
	case *v1.Command_LoseFiles:
		r, err = a.loseFiles(op.LoseFiles)
	case *v1.Command_PutReplica:
		err = a.putReplica(op.PutReplica)
	case *v1.Command_DropReplica:
		err = a.dropReplica(op.DropReplica)
	case *v1.Command_Batch:
		err = fmt.Errorf("%w: a batch inside a batch", ErrInvalid)
	default:
		if len(cmd.ProtoReflect().GetUnknown()) > 0 {
			// Replicas of the newer build apply it; passing over it would make the
			// states differ. So this replica stops until it is upgraded.
			panic(fault{fmt.Errorf("%w: upgrade this replica", ErrNewer)})
		}
		err = fmt.Errorf("%w: the command is empty", ErrInvalid)
	}
	if r.Job != nil {
		r.Job = copyJob(r.Job) // later commands of the transaction change the record
	}
	r.Err = err
	return r
}

// copyJob copies the record, but not the messages in it, which are exchanged and never changed.
func copyJob(j *v1.Job) *v1.Job {
	return &v1.Job{
		Id: j.Id, Spec: j.Spec, State: j.State, Reason: j.Reason, CreatedMs: j.CreatedMs, StartedMs: j.StartedMs, FinishedMs: j.FinishedMs,
		Baseline: j.Baseline, LastTrial: j.LastTrial, Completed: j.Completed, Failed: j.Failed, PausedMs: j.PausedMs,
		PausedAtMs: j.PausedAtMs, Stopping: j.Stopping, Devices: j.Devices, ResumeTo: j.ResumeTo,
		RequestId: j.RequestId,
		Remakes:   j.Remakes, Remaking: j.Remaking, BaselineLost: j.BaselineLost,
	}
}

// applyEntry applies one committed entry: a command, or a batch of them.
func applyEntry(tx *txn, cmd *v1.Command) []Result {
	batch, ok := cmd.Op.(*v1.Command_Batch)
	if !ok {
		return []Result{apply(tx, cmd)}
	}
	out := make([]Result, len(batch.Batch.GetCommands()))
	for i, c := range batch.Batch.GetCommands() {
		out[i] = apply(tx, c)
	}
	return out
}

// initState makes the buckets of an empty state file.
func initState(tx *bolt.Tx) error {
	for _, name := range allBuckets {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	meta := tx.Bucket(bucketMeta)
	if meta.Get(keyVersion) == nil {
		return meta.Put(keyVersion, []byte{stateVersion})
	}
	return nil
}

func cut(reason string) string {
	if len(reason) <= maxReasonBytes {
		return reason
	}
	end := maxReasonBytes
	for end > 0 && reason[end]&0xc0 == 0x80 {
		end--
	}
	return reason[:end]
}

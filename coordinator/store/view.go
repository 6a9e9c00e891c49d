package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// View is one consistent state, inside Store.View. A record that does not exist is
// nil. Lists are in the order of their keys.
type View struct{ t *txn }

// AppliedIndex is the last log index the state includes.
func (v *View) AppliedIndex() uint64 { return v.t.applied() }

// Job is a job by id.
func (v *View) Job(id string) *v1.Job { return v.t.job(id) }

// JobByRequest is the job that a submit request made.
func (v *View) JobByRequest(requestID string) *v1.Job {
	return v.t.job(string(v.t.bucket(bucketJobRequests).Get([]byte(requestID))))
}

// Jobs lists all jobs by id.
func (v *View) Jobs() []*v1.Job {
	return list(v.t, bucketJobs, nil, 0, func() *v1.Job { return new(v1.Job) })
}

// Counts is how many tasks a job has, by kind and state.
func (v *View) Counts(job string) Counts { return v.t.counts(job) }

// Task is a task by id.
func (v *View) Task(id string) *v1.Task { return v.t.taskByID(id) }

// Tasks lists all tasks of a job: baseline, profile, trials, measures, each by number.
func (v *View) Tasks(job string) []*v1.Task {
	return list(v.t, bucketTasks, jobPrefix(job), 0, func() *v1.Task { return new(v1.Task) })
}

// LeaseByRequest is the leased task that a claim's request holds.
func (v *View) LeaseByRequest(requestID string) *v1.Task {
	key := v.t.bucket(bucketLeaseReqs).Get([]byte(requestID))
	if key == nil {
		return nil
	}
	return v.t.indexedTask(bucketLeaseReqs, key)
}

// EachActive gives f the pending and leased tasks of all jobs: pending ones by kind,
// device, job and number, then leased ones by worker. It does not read other tasks.
func (v *View) EachActive(f func(*v1.Task)) {
	c := v.t.bucket(bucketPending).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		f(v.t.pendingTask(k))
	}
	for _, t := range v.Leased() {
		f(t)
	}
}

// Pending lists up to limit pending tasks of a kind, by job and number; for measures,
// those of one device. 0 is no limit.
func (v *View) Pending(kind v1.TaskKind, device string, limit int) []*v1.Task {
	return v.collectPending(pendingPrefix(kind, device, ""), limit)
}

// PendingOf is Pending of one job.
func (v *View) PendingOf(job string, kind v1.TaskKind, device string, limit int) []*v1.Task {
	return v.collectPending(pendingPrefix(kind, device, job), limit)
}

func (v *View) collectPending(prefix []byte, limit int) []*v1.Task {
	var out []*v1.Task
	c := v.t.bucket(bucketPending).Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		if limit > 0 && len(out) == limit {
			break
		}
		out = append(out, v.t.pendingTask(k))
	}
	return out
}

// PendingCount counts the pending tasks of a kind, for measures of one device, without
// reading them.
func (v *View) PendingCount(kind v1.TaskKind, device string) int {
	n := 0
	prefix := pendingPrefix(kind, device, "")
	c := v.t.bucket(bucketPending).Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		n++
	}
	return n
}

// Leased lists the leased tasks of all jobs, by worker and session.
func (v *View) Leased() []*v1.Task {
	var out []*v1.Task
	c := v.t.bucket(bucketLeased).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		out = append(out, v.t.leasedTask(k))
	}
	return out
}

// Trial is a trial by number, from 1.
func (v *View) Trial(job string, number int32) *v1.Trial { return v.t.trial(job, number) }

// Trials lists up to limit trials with numbers above after; 0 is no limit.
func (v *View) Trials(job string, after int32, limit int) []*v1.Trial {
	return from(v.t, bucketTrials, jobPrefix(job), numberKey(job, after+1), limit, func() *v1.Trial { return new(v1.Trial) })
}

// TrialsByOrder lists up to limit finished trials (done or failed) with places above
// after, in the order their results came: what a sampler sees. 0 is no limit.
func (v *View) TrialsByOrder(job string, after int32, limit int) []*v1.Trial {
	var out []*v1.Trial
	c, prefix := v.t.bucket(bucketOrder).Cursor(), jobPrefix(job)
	for k, n := c.Seek(numberKey(job, after+1)); k != nil && bytes.HasPrefix(k, prefix); k, n = c.Next() {
		if limit > 0 && len(out) == limit {
			break
		}
		trial := v.t.trial(job, int32(binary.BigEndian.Uint32(n)))
		if trial == nil {
			panic(fault{fmt.Errorf("%w: order of job %s names a trial that is not there", ErrCorrupt, job)})
		}
		out = append(out, trial)
	}
	return out
}

// Front lists the numbers of the trials on a device's front, ascending.
func (v *View) Front(job, device string) []int32 {
	points := v.t.front(job, device)
	out := make([]int32, len(points))
	for i, p := range points {
		out[i] = p.trial
	}
	return out
}

// Worker is a worker by name.
func (v *View) Worker(name string) *v1.WorkerRecord {
	return one(v.t, bucketWorkers, name, new(v1.WorkerRecord))
}

// Workers lists all workers by name.
func (v *View) Workers() []*v1.WorkerRecord {
	return list(v.t, bucketWorkers, nil, 0, func() *v1.WorkerRecord { return new(v1.WorkerRecord) })
}

// Device is a device by name.
func (v *View) Device(name string) *v1.Device { return one(v.t, bucketDevices, name, new(v1.Device)) }

// Devices lists all devices by name.
func (v *View) Devices() []*v1.Device {
	return list(v.t, bucketDevices, nil, 0, func() *v1.Device { return new(v1.Device) })
}

// Data is a data set by name.
func (v *View) Data(name string) *v1.DataSet { return one(v.t, bucketData, name, new(v1.DataSet)) }

// DataSets lists all named data sets by name.
func (v *View) DataSets() []*v1.DataSet {
	return list(v.t, bucketData, nil, 0, func() *v1.DataSet { return new(v1.DataSet) })
}

// File is what the store knows of a file; dropped ones have DroppedMs set.
func (v *View) File(hash string) *v1.FileRecord {
	return one(v.t, bucketFiles, hash, new(v1.FileRecord))
}

// Files lists up to limit file records with hashes above after, dropped ones included.
// 0 is no limit.
func (v *View) Files(after string, limit int) []*v1.FileRecord {
	start := []byte(after)
	if after != "" {
		start = append(start, 0)
	}
	return from(v.t, bucketFiles, nil, start, limit, func() *v1.FileRecord { return new(v1.FileRecord) })
}

// Replica is where a replica is reached, by id.
func (v *View) Replica(id string) *v1.Replica { return one(v.t, bucketReplicas, id, new(v1.Replica)) }

// Replicas lists all replicas by id.
func (v *View) Replicas() []*v1.Replica {
	return list(v.t, bucketReplicas, nil, 0, func() *v1.Replica { return new(v1.Replica) })
}

// Digest is a SHA-256 over all records, in hexadecimal: equal on replicas that have
// applied the same entries. The applied index is no part of it, so that it stays the
// same over commands that change nothing.
func (v *View) Digest() string {
	sum := sha256.New()
	word := func(b []byte) {
		_, _ = sum.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		_, _ = sum.Write(b)
	}
	for _, name := range allBuckets {
		word(name)
		c := v.t.bucket(name).Cursor()
		for k, val := c.First(); k != nil; k, val = c.Next() {
			if bytes.Equal(name, bucketMeta) && bytes.Equal(k, keyApplied) {
				continue
			}
			word(k)
			word(val)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func one[M proto.Message](t *txn, bucket []byte, key string, m M) M {
	if key == "" || !t.get(bucket, []byte(key), m) {
		var none M
		return none
	}
	return m
}

func list[M proto.Message](t *txn, bucket, prefix []byte, limit int, fresh func() M) []M {
	return from(t, bucket, prefix, prefix, limit, fresh)
}

// from reads the records whose keys have the prefix and are not below start.
func from[M proto.Message](t *txn, bucket, prefix, start []byte, limit int, fresh func() M) []M {
	var out []M
	c := t.bucket(bucket).Cursor()
	for k, b := c.Seek(start); k != nil && bytes.HasPrefix(k, prefix); k, b = c.Next() {
		if limit > 0 && len(out) == limit {
			break
		}
		m := fresh()
		decode(bucket, k, b, m)
		out = append(out, m)
	}
	return out
}

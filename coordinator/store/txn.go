package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// encoding gives the same bytes for the same record on every replica.
var encoding = proto.MarshalOptions{Deterministic: true}

// txn is one bbolt transaction with typed access. Reads serve View and the applier;
// writes serve the applier alone. A record that cannot be read, or a write that bbolt
// refuses, panics with a fault: View and the applier turn it into an error.
type txn struct {
	tx *bolt.Tx
	// Jobs changed, and whether anything outside jobs changed.
	jobs  map[string]bool
	other bool
	// held keeps jobs and their counts decoded while a write transaction lasts: a run of entries is mostly about the same few
	// jobs, whose records are much larger than the change. Nil in a read transaction. flush writes what changed.
	held map[string]*heldJob
}

// heldJob is what held knows of a job.
type heldJob struct {
	job     *v1.Job // nil: there is none
	counts  Counts
	put     bool // the job changed
	counted bool // counts were read
	moved   bool // counts changed
}

// fault carries an error out of nested record access.
type fault struct{ err error }

// catch turns a fault into err. Use as: defer catch(&err).
func catch(err *error) {
	if r := recover(); r != nil {
		f, ok := r.(fault)
		if !ok {
			panic(r)
		}
		*err = f.err
	}
}

func (t *txn) bucket(name []byte) *bolt.Bucket {
	b := t.tx.Bucket(name)
	if b == nil {
		panic(fault{fmt.Errorf("%w: state has no bucket %q", ErrCorrupt, name)})
	}
	return b
}

// appended tells of buckets whose records come in the order of their keys, within a job: their pages are filled before the
// next is begun.
func appended(name []byte) bool {
	return bytes.Equal(name, bucketTasks) || bytes.Equal(name, bucketTrials) || bytes.Equal(name, bucketOrder) || bytes.Equal(name, bucketPending)
}

// get reads a record; false if there is none.
func (t *txn) get(bucket, key []byte, m proto.Message) bool {
	b := t.bucket(bucket).Get(key)
	if b == nil {
		return false
	}
	decode(bucket, key, b, m)
	return true
}

func decode(bucket, key, value []byte, m proto.Message) {
	if err := proto.Unmarshal(value, m); err != nil {
		panic(fault{fmt.Errorf("%w: decode %s %x: %w", ErrCorrupt, bucket, key, err)})
	}
}

func (t *txn) put(bucket, key []byte, m proto.Message) {
	b, err := encoding.Marshal(m)
	if err != nil {
		panic(fault{fmt.Errorf("encode %s %x: %w", bucket, key, err)})
	}
	t.putBytes(bucket, key, b)
}

func (t *txn) putBytes(bucket, key, value []byte) {
	b := t.bucket(bucket)
	if appended(bucket) {
		b.FillPercent = 0.9
	}
	if err := b.Put(key, value); err != nil {
		panic(fault{fmt.Errorf("put %s %x: %w", bucket, key, err)})
	}
}

func (t *txn) delete(bucket, key []byte) {
	if err := t.bucket(bucket).Delete(key); err != nil {
		panic(fault{fmt.Errorf("delete %s %x: %w", bucket, key, err)})
	}
}

// keys lists the keys with a prefix, in order. The slices are copies.
func (t *txn) keys(bucket, prefix []byte) [][]byte {
	var out [][]byte
	c := t.bucket(bucket).Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		out = append(out, bytes.Clone(k))
	}
	return out
}

func (t *txn) applied() uint64 { return beUint64(t.bucket(bucketMeta).Get(keyApplied)) }

func (t *txn) setApplied(index uint64) {
	t.putBytes(bucketMeta, keyApplied, binary.BigEndian.AppendUint64(nil, index))
}

// job reads a job; nil if there is none. In a write transaction all get the same record: change it only to put it.
func (t *txn) job(id string) *v1.Job {
	if t.held != nil {
		return t.hold(id).job
	}
	return t.readJob(id)
}

func (t *txn) readJob(id string) *v1.Job {
	j := new(v1.Job)
	if id == "" || !t.get(bucketJobs, []byte(id), j) {
		return nil
	}
	return j
}

func (t *txn) hold(id string) *heldJob {
	h := t.held[id]
	if h == nil {
		h = &heldJob{job: t.readJob(id)}
		t.held[id] = h
	}
	return h
}

// putJob writes a job, at the end of the transaction.
func (t *txn) putJob(j *v1.Job) {
	h := t.hold(j.Id)
	h.job, h.put = j, true
	t.touch(j.Id)
}

// flush writes what is held and changed.
func (t *txn) flush() {
	for _, id := range t.touched() {
		h := t.hold(id)
		if h.put {
			t.put(bucketJobs, []byte(id), h.job)
			h.put = false
		}
		if h.moved {
			t.putBytes(bucketCounts, []byte(id), h.counts.encode())
			h.moved = false
		}
	}
}

func (t *txn) touch(job string) {
	if t.jobs == nil {
		t.jobs = map[string]bool{}
	}
	t.jobs[job] = true
}

func (t *txn) touched() []string {
	out := make([]string, 0, len(t.jobs))
	for j := range t.jobs {
		out = append(out, j)
	}
	sort.Strings(out)
	return out
}

func (t *txn) trial(job string, number int32) *v1.Trial {
	tr := new(v1.Trial)
	if !t.get(bucketTrials, numberKey(job, number), tr) {
		return nil
	}
	return tr
}

func (t *txn) putTrial(tr *v1.Trial) {
	t.put(bucketTrials, numberKey(tr.Job, tr.Number), tr)
	t.touch(tr.Job)
}

// taskAt reads a task by its key in bucketTasks; nil if there is none.
func (t *txn) taskAt(key []byte) *v1.Task {
	task := new(v1.Task)
	if !t.get(bucketTasks, key, task) {
		return nil
	}
	return task
}

// taskByID reads a task by id; nil if there is none or the id is malformed.
func (t *txn) taskByID(id string) *v1.Task {
	job, kind, trial, device, err := ParseTaskID(id)
	if err != nil {
		return nil
	}
	return t.taskAt(taskKey(job, kind, trial, device))
}

// taskChange is a task with what its indexes held before it changes.
type taskChange struct {
	*v1.Task
	was        v1.TaskState
	wasLeased  []byte
	wasRequest string
}

func change(task *v1.Task) *taskChange {
	c := &taskChange{Task: task, was: task.State}
	if task.State == v1.TaskState_TASK_STATE_LEASED {
		c.wasLeased, c.wasRequest = leasedKey(task), task.RequestId
	}
	return c
}

// putTask writes a task, moves it between the indexes and keeps the job's counts.
func (t *txn) putTask(c *taskChange) {
	key := taskKeyOf(c.Task)
	t.put(bucketTasks, key, c.Task)
	t.touch(c.Job)
	if c.was == v1.TaskState_TASK_STATE_PENDING && c.State != c.was {
		t.delete(bucketPending, pendingKey(c.Task))
	}
	if c.was == v1.TaskState_TASK_STATE_LEASED && c.State != c.was {
		t.delete(bucketLeased, c.wasLeased)
		if c.wasRequest != "" {
			t.delete(bucketLeaseReqs, []byte(c.wasRequest))
		}
	}
	if c.State == c.was {
		return
	}
	switch c.State {
	case v1.TaskState_TASK_STATE_PENDING:
		t.putBytes(bucketPending, pendingKey(c.Task), []byte{})
	case v1.TaskState_TASK_STATE_LEASED:
		t.putBytes(bucketLeased, leasedKey(c.Task), []byte{})
		if c.RequestId != "" {
			t.putBytes(bucketLeaseReqs, []byte(c.RequestId), key)
		}
	}
	t.count(c.Job, c.Kind, c.was, c.State)
	c.was = c.State
	if c.State == v1.TaskState_TASK_STATE_LEASED {
		c.wasLeased, c.wasRequest = leasedKey(c.Task), c.RequestId
	}
}

// Counts is how many tasks a job has, by kind and state.
type Counts [numKinds][numStates]int32

const (
	numKinds  = int(v1.TaskKind_TASK_KIND_MEASURE) + 1
	numStates = int(v1.TaskState_TASK_STATE_CANCELLED) + 1
)

// Of counts the tasks of a kind in a state.
func (c *Counts) Of(kind v1.TaskKind, state v1.TaskState) int {
	return int(c[kind][state])
}

// Active counts the tasks other than measures that are pending or leased: a stopping
// job is done when there are none, but for those that are done again.
func (c *Counts) Active() int {
	n := 0
	for kind := range c {
		if v1.TaskKind(kind) != v1.TaskKind_TASK_KIND_MEASURE {
			n += c.Of(v1.TaskKind(kind), v1.TaskState_TASK_STATE_PENDING) + c.Of(v1.TaskKind(kind), v1.TaskState_TASK_STATE_LEASED)
		}
	}
	return n
}

// Leased counts the job's leases.
func (c *Counts) Leased() int {
	n := 0
	for kind := range c {
		n += c.Of(v1.TaskKind(kind), v1.TaskState_TASK_STATE_LEASED)
	}
	return n
}

// OpenMeasures counts the measures that wait or run: results are complete when there are none.
func (c *Counts) OpenMeasures() int {
	const measure = v1.TaskKind_TASK_KIND_MEASURE
	return c.Of(measure, v1.TaskState_TASK_STATE_PENDING) + c.Of(measure, v1.TaskState_TASK_STATE_LEASED)
}

// counts reads a job's counts.
func (t *txn) counts(job string) Counts {
	if t.held == nil {
		return t.readCounts(job)
	}
	h := t.hold(job)
	if !h.counted {
		h.counts, h.counted = t.readCounts(job), true
	}
	return h.counts
}

func (t *txn) readCounts(job string) Counts {
	var c Counts
	b := t.bucket(bucketCounts).Get([]byte(job))
	for i := 0; i+4 <= len(b) && i/4 < numKinds*numStates; i += 4 {
		c[i/4/numStates][i/4%numStates] = int32(binary.BigEndian.Uint32(b[i:]))
	}
	return c
}

func (t *txn) count(job string, kind v1.TaskKind, from, to v1.TaskState) {
	c := t.counts(job)
	if from != v1.TaskState_TASK_STATE_UNSPECIFIED {
		c[kind][from]--
	}
	c[kind][to]++
	h := t.hold(job)
	h.counts, h.moved = c, true
}

func (c *Counts) encode() []byte {
	b := make([]byte, 0, 4*numKinds*numStates)
	for _, states := range c {
		for _, n := range states {
			b = binary.BigEndian.AppendUint32(b, uint32(n))
		}
	}
	return b
}

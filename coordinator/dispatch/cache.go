package dispatch

import (
	"cmp"
	"slices"
	"time"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// recentRequests is how many answered claims are remembered, so that a late copy of one does not take a second task.
const recentRequests = 8192

// cache is what the leader keeps of the store, and the leases' timers.
type cache struct {
	// stale: read everything again.
	stale bool
	// staleTasks are jobs whose tasks somebody else changed, staleJobs those whose record alone changed. Results of
	// commands that ran side by side come in any order, so records of jobs are always read again, tasks by attempt.
	staleTasks, staleJobs map[string]bool

	jobs   map[string]*jobEntry
	leases map[string]*lease
	// requests finds the lease that a claim took.
	requests map[string]string
	recent   recent
	sessions map[string]string
	// replaced holds sessions that a newer one of the same worker ended.
	replaced map[string]bool
	devices  map[string]*v1.Device
	seen     map[string]time.Time
}

// jobEntry is a job with its pending tasks.
type jobEntry struct {
	job     *v1.Job
	leased  int
	pending map[queueKey]queue
}

// queueKey tells apart tasks that different workers can do. Only measures have a device.
type queueKey struct {
	kind   v1.TaskKind
	device string
	// variant is set for files that are made again: only workers with the kernel variant that made them can make the same.
	variant string
}

// queue is pending tasks of one kind and device by trial number.
type queue []waiting

// waiting is a pending task of a queue, without what its key says: there may be very many for a device that is away.
type waiting struct {
	trial       int32
	failures    int32
	notBeforeMs int64
}

// lease is a worker's right to a task.
type lease struct {
	task     *v1.Task
	deadline time.Time
	progress *v1.Progress
}

func newCache() cache {
	return cache{
		staleTasks: map[string]bool{}, staleJobs: map[string]bool{},
		jobs: map[string]*jobEntry{}, leases: map[string]*lease{}, requests: map[string]string{},
		sessions: map[string]string{}, replaced: map[string]bool{}, devices: map[string]*v1.Device{},
		seen: map[string]time.Time{},
	}
}

func keyOf(t *v1.Task) queueKey {
	return queueKey{t.GetKind(), t.GetDevice(), t.GetRemake().GetVariant()}
}

func byTrial(w waiting, trial int32) int { return cmp.Compare(w.trial, trial) }

func (q queue) put(w waiting) queue {
	i, found := slices.BinarySearchFunc(q, w.trial, byTrial)
	if found {
		q[i] = w
		return q
	}
	return slices.Insert(q, i, w)
}

func (q queue) remove(trial int32) queue {
	if i, found := slices.BinarySearchFunc(q, trial, byTrial); found {
		return slices.Delete(q, i, i+1)
	}
	return q
}

// note brings the cache up to date with what a command did. New leases stand until deadline.
func (c *cache) note(r *store.Result, deadline time.Time) {
	if r.Err != nil {
		return
	}
	if j := r.Job; j != nil {
		c.staleJobs[j.GetId()] = true
		if ended(j) && j.GetState() != v1.JobState_JOB_STATE_DONE {
			c.staleTasks[j.GetId()] = true // its unfinished tasks ended with it
		}
	}
	if r.Task != nil {
		c.noteTask(r.Task, deadline)
	}
	for _, t := range r.Freed {
		c.noteTask(t, deadline)
		c.staleTasks[t.GetJob()] = true
	}
	for _, t := range r.Created {
		c.noteTask(t, deadline)
	}
}

// entry returns the job's entry, made if need be; its record is read before the next round.
func (c *cache) entry(job string) *jobEntry {
	e := c.jobs[job]
	if e == nil {
		e = &jobEntry{job: &v1.Job{Id: job}, pending: map[queueKey]queue{}}
		c.jobs[job] = e
		c.staleJobs[job] = true
	}
	return e
}

// forget drops a job that has ended and has neither tasks nor leases.
func (c *cache) forget(e *jobEntry) {
	if ended(e.job) && len(e.pending) == 0 && e.leased == 0 {
		delete(c.jobs, e.job.GetId())
	}
}

func ended(j *v1.Job) bool {
	switch j.GetState() {
	case v1.JobState_JOB_STATE_DONE, v1.JobState_JOB_STATE_FAILED, v1.JobState_JOB_STATE_CANCELLED:
		return true
	}
	return false
}

// noteTask moves a task between the queues and the leases.
func (c *cache) noteTask(t *v1.Task, deadline time.Time) {
	l := c.leases[t.GetId()]
	if l != nil && l.task.GetAttempt() > t.GetAttempt() {
		return // older news than what is known
	}
	leased := t.GetState() == v1.TaskState_TASK_STATE_LEASED
	if l != nil && leased && l.task.GetAttempt() == t.GetAttempt() {
		return
	}
	e := c.entry(t.GetJob())
	if l != nil {
		c.drop(l, e)
	}
	key := keyOf(t)
	if t.GetState() == v1.TaskState_TASK_STATE_PENDING {
		e.pending[key] = e.pending[key].put(waiting{t.GetTrial(), t.GetFailures(), t.GetNotBeforeMs()})
	} else if q := e.pending[key].remove(t.GetTrial()); len(q) > 0 {
		e.pending[key] = q
	} else {
		delete(e.pending, key)
	}
	if leased {
		c.leases[t.GetId()] = &lease{task: t, deadline: deadline}
		c.requests[t.GetRequestId()] = t.GetId()
		e.leased++
	}
	c.forget(e)
}

// drop removes a lease.
func (c *cache) drop(l *lease, e *jobEntry) {
	delete(c.leases, l.task.GetId())
	if c.requests[l.task.GetRequestId()] == l.task.GetId() {
		delete(c.requests, l.task.GetRequestId())
	}
	e.leased--
}

// recent is a bounded memory of request ids.
type recent struct {
	known map[string]bool
	ring  []string
	next  int
}

func (r *recent) has(id string) bool { return r.known[id] }

func (r *recent) add(id string) {
	if id == "" || r.known[id] {
		return
	}
	if r.known == nil {
		r.known = map[string]bool{}
	}
	if len(r.ring) < recentRequests {
		r.ring = append(r.ring, id)
	} else {
		delete(r.known, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % recentRequests
	}
	r.known[id] = true
}

func sortRunning(tasks []*v1.RunningTask) {
	slices.SortFunc(tasks, func(a, b *v1.RunningTask) int { return cmp.Compare(a.GetTask().GetId(), b.GetTask().GetId()) })
}

// load reads everything. Leases that are known keep their timers and progress, others stand until deadline.
func (c *cache) load(v *store.View, deadline time.Time) {
	old := c.leases
	c.jobs, c.leases, c.requests = map[string]*jobEntry{}, map[string]*lease{}, map[string]string{}
	c.staleTasks, c.staleJobs = map[string]bool{}, map[string]bool{}
	for _, j := range v.Jobs() {
		c.jobs[j.GetId()] = &jobEntry{job: j, pending: map[queueKey]queue{}}
	}
	v.EachActive(func(t *v1.Task) { c.noteTask(t, deadline) })
	c.keepTimers(old)
	for _, w := range v.Workers() {
		c.sessions[w.GetInfo().GetName()] = w.GetInfo().GetSession()
	}
	for _, d := range v.Devices() {
		c.devices[d.GetName()] = d
	}
	for _, e := range c.jobs {
		c.forget(e)
	}
	c.stale = false
}

func (c *cache) keepTimers(old map[string]*lease) {
	for id, l := range c.leases {
		if o := old[id]; o != nil && o.task.GetAttempt() == l.task.GetAttempt() {
			l.deadline, l.progress = o.deadline, o.progress
		}
	}
}

// loadJob reads one job, and its tasks if they may have changed too.
func (c *cache) loadJob(v *store.View, id string, tasks bool, deadline time.Time) {
	j := v.Job(id)
	if j == nil {
		return
	}
	e := c.entry(id)
	e.job = j
	if tasks {
		old := map[string]*lease{}
		for _, l := range c.leases {
			if l.task.GetJob() == id {
				old[l.task.GetId()] = l
				c.drop(l, e)
			}
		}
		e.pending = map[queueKey]queue{}
		for _, t := range active(v, j) {
			c.noteTask(t, deadline)
		}
		c.keepTimers(old)
	}
	c.forget(e)
}

// active lists a job's pending and leased tasks without reading the others.
func active(v *store.View, j *v1.Job) []*v1.Task {
	var out []*v1.Task
	for _, kind := range order {
		devices := []string{""}
		if kind == v1.TaskKind_TASK_KIND_MEASURE {
			devices = j.GetDevices()
		}
		for _, d := range devices {
			out = append(out, v.PendingOf(j.GetId(), kind, d, 0)...)
		}
	}
	for _, t := range v.Leased() {
		if t.GetJob() == j.GetId() {
			out = append(out, t)
		}
	}
	return out
}

// refresh reads what is known to have changed.
func (c *cache) refresh(v *store.View, deadline time.Time) {
	if c.stale {
		c.load(v, deadline)
		return
	}
	for id := range c.staleTasks {
		c.loadJob(v, id, true, deadline)
		delete(c.staleJobs, id)
	}
	for id := range c.staleJobs {
		c.loadJob(v, id, false, deadline)
	}
	clear(c.staleTasks)
	clear(c.staleJobs)
}

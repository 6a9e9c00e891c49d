package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Buckets of the state file. DESIGN.md lists their keys and values.
var (
	bucketMeta        = []byte("meta")
	bucketJobs        = []byte("jobs")
	bucketJobRequests = []byte("job_requests")
	bucketCounts      = []byte("counts")
	bucketTasks       = []byte("tasks")
	bucketPending     = []byte("pending")
	bucketLeased      = []byte("leased")
	bucketLeaseReqs   = []byte("lease_requests")
	bucketTrials      = []byte("trials")
	bucketOrder       = []byte("trial_order")
	bucketFronts      = []byte("fronts")
	bucketWorkers     = []byte("workers")
	bucketDevices     = []byte("devices")
	bucketData        = []byte("data")
	bucketFiles       = []byte("files")
	bucketReplicas    = []byte("replicas")

	allBuckets = [][]byte{
		bucketMeta, bucketJobs, bucketJobRequests, bucketCounts, bucketTasks, bucketPending,
		bucketLeased, bucketLeaseReqs, bucketTrials, bucketOrder, bucketFronts, bucketWorkers,
		bucketDevices, bucketData, bucketFiles, bucketReplicas,
	}
)

// Keys of bucketMeta.
var (
	keyApplied = []byte("applied")
	keyVersion = []byte("version")
)

// stateVersion is the layout of the state file. A file of another version is
// rebuilt from the snapshot and the log.
const stateVersion = 1

// maxNameBytes bounds ids and names, well under bbolt's limit for keys.
const maxNameBytes = 200

// checkName refuses what cannot be part of a key or of a task's id.
func checkName(field, value string) error {
	switch {
	case value == "":
		return fmt.Errorf("%w: %s is empty", ErrInvalid, field)
	case len(value) > maxNameBytes:
		return fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrInvalid, field, len(value), maxNameBytes)
	}
	for i := 0; i < len(value); i++ {
		if value[i] < 0x20 || value[i] == 0x7f {
			return fmt.Errorf("%w: %s %q has a control character", ErrInvalid, field, value)
		}
	}
	return nil
}

// checkID is checkName for what stands between slashes in a task's id.
func checkID(field, value string) error {
	if err := checkName(field, value); err != nil {
		return err
	}
	if strings.Contains(value, "/") {
		return fmt.Errorf("%w: %s %q has a slash", ErrInvalid, field, value)
	}
	return nil
}

// TaskID is the id of a job's task: "JOB/baseline", "JOB/profile", "JOB/trial/7",
// "JOB/measure/7/DEVICE".
func TaskID(job string, kind v1.TaskKind, trial int32, device string) string {
	switch kind {
	case v1.TaskKind_TASK_KIND_BASELINE:
		return job + "/baseline"
	case v1.TaskKind_TASK_KIND_PROFILE:
		return job + "/profile"
	case v1.TaskKind_TASK_KIND_TRIAL:
		return job + "/trial/" + strconv.Itoa(int(trial))
	default:
		return job + "/measure/" + strconv.Itoa(int(trial)) + "/" + device
	}
}

// ParseTaskID is the inverse of TaskID. The error wraps ErrInvalid.
func ParseTaskID(id string) (job string, kind v1.TaskKind, trial int32, device string, err error) {
	bad := fmt.Errorf("%w: task %q is no task id", ErrInvalid, id)
	parts := strings.Split(id, "/")
	if len(parts) < 2 || checkID("job", parts[0]) != nil {
		return "", 0, 0, "", bad
	}
	job = parts[0]
	number := func() bool {
		n, err := strconv.ParseInt(parts[2], 10, 32)
		trial = int32(n)
		return err == nil && n >= 0 && strconv.Itoa(int(n)) == parts[2]
	}
	switch {
	case parts[1] == "baseline" && len(parts) == 2:
		return job, v1.TaskKind_TASK_KIND_BASELINE, 0, "", nil
	case parts[1] == "profile" && len(parts) == 2:
		return job, v1.TaskKind_TASK_KIND_PROFILE, 0, "", nil
	case parts[1] == "trial" && len(parts) == 3 && number() && trial > 0:
		return job, v1.TaskKind_TASK_KIND_TRIAL, trial, "", nil
	case parts[1] == "measure" && len(parts) == 4 && number() && checkID("device", parts[3]) == nil:
		return job, v1.TaskKind_TASK_KIND_MEASURE, trial, parts[3], nil
	}
	return "", 0, 0, "", bad
}

// jobPrefix begins all keys of a job in buckets keyed by job first.
func jobPrefix(job string) []byte {
	return append([]byte(job), 0)
}

// taskKey sorts a job's tasks by kind, trial number and device.
func taskKey(job string, kind v1.TaskKind, trial int32, device string) []byte {
	k := append(jobPrefix(job), byte(kind))
	k = binary.BigEndian.AppendUint32(k, uint32(trial))
	return append(k, device...)
}

func taskKeyOf(t *v1.Task) []byte { return taskKey(t.Job, t.Kind, t.Trial, t.Device) }

// pendingPrefix begins the pending tasks of a kind, of one device, of one job.
func pendingPrefix(kind v1.TaskKind, device, job string) []byte {
	k := append([]byte{byte(kind)}, device...)
	k = append(k, 0)
	if job != "" {
		k = append(append(k, job...), 0)
	}
	return k
}

func pendingKey(t *v1.Task) []byte {
	return binary.BigEndian.AppendUint32(pendingPrefix(t.Kind, t.Device, t.Job), uint32(t.Trial))
}

// taskKeyOfPending turns a key of bucketPending into one of bucketTasks.
func taskKeyOfPending(k []byte) ([]byte, error) {
	if len(k) < 7 {
		return nil, fmt.Errorf("%w: pending key %x is too short", ErrCorrupt, k)
	}
	device, rest, ok := bytes.Cut(k[1:], []byte{0})
	if !ok || len(rest) < 6 {
		return nil, fmt.Errorf("%w: pending key %x", ErrCorrupt, k)
	}
	job := rest[:len(rest)-5]
	trial := int32(binary.BigEndian.Uint32(rest[len(rest)-4:]))
	return taskKey(string(job), v1.TaskKind(k[0]), trial, string(device)), nil
}

// sessionPrefix begins the leases of one session of a worker.
func sessionPrefix(worker, session string) []byte {
	k := append([]byte(worker), 0)
	return append(append(k, session...), 0)
}

func leasedKey(t *v1.Task) []byte {
	return append(sessionPrefix(t.Worker, t.Session), taskKeyOf(t)...)
}

// numberKey is job, then a number: trials by number, order by place.
func numberKey(job string, n int32) []byte {
	return binary.BigEndian.AppendUint32(jobPrefix(job), uint32(n))
}

func frontKey(job, device string) []byte {
	return append(jobPrefix(job), device...)
}

func beUint64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

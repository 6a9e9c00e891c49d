package store

import (
	"fmt"
	"net"

	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/filehash"
)

// putWorker records a worker. A new session frees what the old one had leased: a lost
// lease like any other, since a task that brings its worker down must not come back
// for ever.
func (a *applier) putWorker(c *v1.PutWorker) (Result, error) {
	w := c.GetWorker()
	if err := checkName("put worker: name", w.GetName()); err != nil {
		return Result{}, err
	}
	if err := checkName("put worker: session", w.GetSession()); err != nil {
		return Result{}, err
	}
	rec := new(v1.WorkerRecord)
	var r Result
	known := a.get(bucketWorkers, []byte(w.Name), rec)
	if !known {
		rec.FirstMs = a.nowMS
	}
	if rec.Info.GetSession() != w.Session {
		rec.SessionMs = a.nowMS
		if known {
			r.Freed = a.freeSession(w.Name, rec.Info.GetSession())
		}
	}
	rec.Info = w
	a.put(bucketWorkers, []byte(w.Name), rec)
	a.other = true
	return r, nil
}

func (a *applier) freeSession(worker, session string) (freed []*v1.Task) {
	for _, k := range a.keys(bucketLeased, sessionPrefix(worker, session)) {
		// Losing one lease can end others, when it fails its job.
		if a.bucket(bucketLeased).Get(k) == nil {
			continue
		}
		r := a.lose(a.leasedTask(k), "its worker started again")
		freed = append(append(freed, r.Task), r.Freed...)
	}
	return freed
}

// putDevice creates a device. Its fingerprint never changes; its budget may.
func (a *applier) putDevice(c *v1.PutDevice) error {
	d := c.GetDevice()
	if err := checkID("put device: name", d.GetName()); err != nil {
		return err
	}
	next := proto.Clone(d).(*v1.Device)
	next.CreatedMs = a.nowMS
	old := new(v1.Device)
	if a.get(bucketDevices, []byte(d.Name), old) {
		if !proto.Equal(old.Fingerprint, d.Fingerprint) {
			return fmt.Errorf("put device %s: %w: it is %v, not %v", d.Name, ErrDeviceMismatch, old.Fingerprint, d.Fingerprint)
		}
		if old.Runtime != d.Runtime || old.Format != d.Format {
			return fmt.Errorf("put device %s: %w: it runs %s files on %s, not %s on %s", d.Name, ErrExists, old.Format, old.Runtime, d.Format, d.Runtime)
		}
		next.CreatedMs = old.CreatedMs
		if next.Budget == nil {
			next.Budget = old.Budget
		}
	}
	a.put(bucketDevices, []byte(d.Name), next)
	a.other = true
	return nil
}

// putData names a data set. The same name may be given to another file later: jobs
// hold hashes, not names.
func (a *applier) putData(c *v1.PutData) error {
	d := c.GetData()
	if err := checkName("put data: name", d.GetName()); err != nil {
		return err
	}
	if err := checkFile("put data", d.GetFile()); err != nil {
		return err
	}
	next := proto.Clone(d).(*v1.DataSet)
	if next.CreatedMs == 0 {
		next.CreatedMs = a.nowMS
	}
	a.put(bucketData, []byte(d.Name), next)
	a.other = true
	return nil
}

func checkFile(what string, f *v1.FileRef) error {
	if err := checkHash(what, f.GetHash()); err != nil {
		return err
	}
	if f.SizeBytes < 0 {
		return fmt.Errorf("%w: %s: file %s has size %d", ErrInvalid, what, f.Hash, f.SizeBytes)
	}
	return nil
}

func checkHash(what, name string) error {
	if !filehash.Valid(name) {
		return fmt.Errorf("%w: %s: hash %q, want %d lower-case hexadecimal digits", ErrInvalid, what, name, filehash.Digits)
	}
	return nil
}

// addFiles records files. One that was dropped or lost before is there again.
func (a *applier) addFiles(c *v1.AddFiles) (r Result, err error) {
	for _, f := range c.GetFiles() {
		if err := checkFile("add files", f); err != nil {
			return Result{}, err
		}
		old := new(v1.FileRecord)
		if a.get(bucketFiles, []byte(f.Hash), old) && old.File.GetSizeBytes() != f.SizeBytes {
			return Result{}, fmt.Errorf("add files: %w: %s has %d bytes, not %d", ErrExists, f.Hash, old.File.GetSizeBytes(), f.SizeBytes)
		}
	}
	for _, f := range c.GetFiles() {
		rec := new(v1.FileRecord)
		if a.get(bucketFiles, []byte(f.Hash), rec) && rec.DroppedMs == 0 && rec.LostMs == 0 {
			continue
		}
		a.put(bucketFiles, []byte(f.Hash), &v1.FileRecord{File: f, CreatedMs: a.nowMS})
		a.other = true
		if rec.LostMs > 0 {
			r.Job = a.fileFound(f.Hash)
		}
	}
	return r, nil
}

// dropFiles marks files as dropped; replicas then remove them. Unknown ones are
// passed over.
func (a *applier) dropFiles(c *v1.DropFiles) error {
	for _, h := range c.GetHashes() {
		if err := checkHash("drop files", h); err != nil {
			return err
		}
	}
	for _, h := range c.GetHashes() {
		rec := new(v1.FileRecord)
		if a.get(bucketFiles, []byte(h), rec) && rec.DroppedMs == 0 {
			rec.DroppedMs = max(1, a.nowMS)
			a.put(bucketFiles, []byte(h), rec)
			a.other = true
		}
	}
	return nil
}

// putReplica records where a replica is reached; the last word counts.
func (a *applier) putReplica(c *v1.PutReplica) error {
	r := c.GetReplica()
	if err := checkID("put replica: id", r.GetId()); err != nil {
		return err
	}
	for field, v := range map[string]string{"raft_address": r.RaftAddress, "api_address": r.ApiAddress, "broker_address": r.BrokerAddress} {
		if v == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(v); err != nil {
			return fmt.Errorf("%w: put replica %s: %s is %q, want host:port", ErrInvalid, r.Id, field, v)
		}
	}
	a.put(bucketReplicas, []byte(r.Id), r)
	a.other = true
	return nil
}

// dropReplica forgets a replica; an unknown one is no error.
func (a *applier) dropReplica(c *v1.DropReplica) error {
	if err := checkID("drop replica: id", c.GetId()); err != nil {
		return err
	}
	a.delete(bucketReplicas, []byte(c.Id))
	a.other = true
	return nil
}

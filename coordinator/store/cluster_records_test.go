package store

import (
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// TestClusterRecords goes through the commands on workers, devices, data sets, files and
// replicas: what they record, and what they refuse without changing anything.
func TestClusterRecords(t *testing.T) {
	hash := artifactHash(7)
	device := func(cpu, runtime string, budget *v1.Budget) *v1.Command {
		return &v1.Command{TimeMs: 5, Op: &v1.Command_PutDevice{PutDevice: &v1.PutDevice{Device: &v1.Device{
			Name: "pi4", Fingerprint: &v1.Fingerprint{Cpu: cpu}, Runtime: runtime, Format: "esp", Budget: budget,
		}}}}
	}
	data := func(name, hash string) *v1.Command {
		return &v1.Command{TimeMs: 6, Op: &v1.Command_PutData{PutData: &v1.PutData{Data: &v1.DataSet{Name: name, File: &v1.FileRef{Hash: hash, SizeBytes: 3}}}}}
	}
	add := func(hash string, size int64) *v1.Command {
		return &v1.Command{TimeMs: 7, Op: &v1.Command_AddFiles{AddFiles: &v1.AddFiles{Files: []*v1.FileRef{{Hash: hash, SizeBytes: size}}}}}
	}
	drop := func(hash string) *v1.Command {
		return &v1.Command{TimeMs: 8, Op: &v1.Command_DropFiles{DropFiles: &v1.DropFiles{Hashes: []string{hash}}}}
	}
	replica := func(id, api string) *v1.Command {
		return &v1.Command{Op: &v1.Command_PutReplica{PutReplica: &v1.PutReplica{Replica: &v1.Replica{Id: id, ApiAddress: api}}}}
	}
	forget := func(id string) *v1.Command {
		return &v1.Command{Op: &v1.Command_DropReplica{DropReplica: &v1.DropReplica{Id: id}}}
	}
	steps := []struct {
		name  string
		cmd   *v1.Command
		want  error
		check func(v *View) bool
	}{
		{"worker", worker(1, "w", "s"), nil, func(v *View) bool { return v.Worker("w").FirstMs == 1 }},
		{"its new session", worker(2, "w", "s2"), nil, func(v *View) bool { w := v.Worker("w"); return w.FirstMs == 1 && w.SessionMs == 2 }},
		{"worker without a session", worker(3, "w", ""), ErrInvalid, nil},
		{"device", device("a72", "native", nil), nil, func(v *View) bool { return v.Device("pi4").CreatedMs == 5 }},
		{"its budget", device("a72", "native", &v1.Budget{SizeBytes: 9}), nil, func(v *View) bool { return v.Device("pi4").Budget.SizeBytes == 9 }},
		{"another fingerprint", device("a76", "native", nil), ErrDeviceMismatch, nil},
		{"another runtime", device("a72", "onnxruntime", nil), ErrExists, nil},
		{"its budget stays", device("a72", "native", nil), nil, func(v *View) bool { return len(v.Devices()) == 1 && v.Device("pi4").Budget.SizeBytes == 9 }},
		{"data", data("set", hash), nil, func(v *View) bool { return v.Data("set").File.Hash == hash && len(v.DataSets()) == 1 }},
		{"data with a wrong hash", data("set", "abc"), ErrInvalid, nil},
		{"file", add(hash, 10), nil, func(v *View) bool { return v.File(hash).CreatedMs == 7 }},
		{"its other size", add(hash, 11), ErrExists, nil},
		{"negative size", add(artifactHash(8), -1), ErrInvalid, nil},
		{"drop", drop(hash), nil, func(v *View) bool { return v.File(hash).DroppedMs == 8 }},
		{"drop what is unknown", drop(artifactHash(9)), nil, func(v *View) bool { return v.File(artifactHash(9)) == nil }},
		{"drop nonsense", drop("x"), ErrInvalid, nil},
		{"there again", add(hash, 10), nil, func(v *View) bool { return v.File(hash).DroppedMs == 0 && len(v.Files("", 0)) == 1 }},
		{"replica", replica("r1", "h:1"), nil, func(v *View) bool { return v.Replica("r1").ApiAddress == "h:1" }},
		{"it moved", replica("r1", "h:2"), nil, func(v *View) bool { return v.Replica("r1").ApiAddress == "h:2" && len(v.Replicas()) == 1 }},
		{"without a port", replica("r1", "h"), ErrInvalid, nil},
		{"without an id", replica("", "h:1"), ErrInvalid, nil},
		{"forgotten", forget("r1"), nil, func(v *View) bool { return v.Replica("r1") == nil }},
		{"forgotten again", forget("r1"), nil, nil},
		{"nothing", &v1.Command{}, ErrInvalid, nil},
	}
	l := openLocal(t)
	for _, s := range steps {
		before := digest(t, l)
		r := do(t, l, proto.Clone(s.cmd).(*v1.Command))
		if !errors.Is(r.Err, s.want) {
			t.Fatalf("%s: %v, want %v", s.name, r.Err, s.want)
		}
		if s.want != nil && digest(t, l) != before {
			t.Errorf("%s: refused, and changed something", s.name)
		}
		err := l.View(func(v *View) error {
			if s.check != nil && !s.check(v) {
				t.Errorf("%s: not recorded as it should be", s.name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestTaskIDs(t *testing.T) {
	for _, id := range []string{"j/baseline", "j/profile", "j/trial/1", "j/trial/2147483647", "j/measure/0/pi4", "j/measure/7/a b"} {
		job, kind, trial, device, err := ParseTaskID(id)
		if err != nil || TaskID(job, kind, trial, device) != id {
			t.Errorf("%s: %q %s %d %q, %v", id, job, kind, trial, device, err)
		}
	}
	for _, id := range []string{"", "j", "/baseline", "j/baseline/", "j/trial/0", "j/trial/01", "j/trial/-1", "j/trial/2147483648", "j/trial/1/x", "j/measure/1", "j/measure/1/", "j/measure/x/d", "j\x00/baseline", "j/other"} {
		if _, _, _, _, err := ParseTaskID(id); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", id, err)
		}
	}
}

// TestPages: lists by number, by place, and of what is active, over jobs whose names
// begin alike.
func TestPages(t *testing.T) {
	l := openLocal(t)
	fill(t, l, "a", 12)
	fill(t, l, "ab", 3)
	err := l.View(func(v *View) error {
		var got []int32
		for after := int32(0); ; {
			page := v.Trials("a", after, 5)
			if len(page) == 0 {
				break
			}
			for _, tr := range page {
				got = append(got, tr.Number)
			}
			after = got[len(got)-1]
		}
		if want := []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; !slices.Equal(got, want) {
			t.Errorf("trials %v", got)
		}
		var places []int32
		for _, tr := range v.TrialsByOrder("a", 2, 3) {
			places = append(places, tr.Order)
		}
		if !slices.Equal(places, []int32{3, 4, 5}) {
			t.Errorf("places %v", places)
		}
		if n := len(v.Pending(kindMeasure, "pi4", 4)); n != 4 {
			t.Errorf("%d pending, want the first 4", n)
		}
		if n := v.PendingCount(kindMeasure, "pi4"); n != len(v.PendingOf("a", kindMeasure, "pi4", 0))+len(v.PendingOf("ab", kindMeasure, "pi4", 0)) {
			t.Errorf("%d pending in all", n)
		}
		for _, task := range v.PendingOf("a", kindMeasure, "pi4", 0) {
			if task.Job != "a" {
				t.Errorf("%s is listed under a", task.Id)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzTaskID(f *testing.F) {
	f.Add("j/measure/7/pi4")
	f.Fuzz(func(t *testing.T, id string) {
		if job, kind, trial, device, err := ParseTaskID(id); err == nil && TaskID(job, kind, trial, device) != id {
			t.Errorf("%q comes back as %q", id, TaskID(job, kind, trial, device))
		}
	})
}

// FuzzSnapshot: what a replica receives as a snapshot is refused, or a state.
func FuzzSnapshot(f *testing.F) {
	f.Add([]byte("ESPSTATE\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x01x1234"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := receiveState(bytesReader(b), t.TempDir()+"/state.db"); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
}

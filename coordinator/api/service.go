package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
	"github.com/espalier-ml/espalier/proto/trace"
)

// service implements all Connect services.
type service struct {
	cfg Config
	// stop ends streams when the server shuts down.
	stop context.Context
}

var (
	_ espalierv1connect.JobServiceHandler     = (*service)(nil)
	_ espalierv1connect.FileServiceHandler    = (*service)(nil)
	_ espalierv1connect.DataServiceHandler    = (*service)(nil)
	_ espalierv1connect.ClusterServiceHandler = (*service)(nil)
)

func (s *service) now() time.Time { return time.Now() }

// log writes on behalf of a request.
func (s *service) log(ctx context.Context) *zerolog.Logger {
	l := s.cfg.Log.With().Fields(trace.From(ctx).Fields()).Logger()
	return &l
}

// newID returns a random id of ten hexadecimal digits.
func newID() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// resolve finds a job by id, by the name of the newest job so named, or by a unique prefix of its id, in this order.
func resolve(v *store.View, ref string) (*v1.Job, error) {
	if ref == "" {
		return nil, invalid("job", ref, "an id, a unique prefix of one, or a name")
	}
	if j := v.Job(ref); j != nil {
		return j, nil
	}
	var named *v1.Job
	var begun []*v1.Job
	for _, j := range v.Jobs() {
		if j.GetSpec().GetName() == ref && (named == nil || j.GetCreatedMs() >= named.GetCreatedMs()) {
			named = j
		}
		if strings.HasPrefix(j.GetId(), ref) {
			begun = append(begun, j)
		}
	}
	switch {
	case named != nil:
		return named, nil
	case len(begun) == 1:
		return begun[0], nil
	case len(begun) > 1:
		return nil, invalid("job", ref, fmt.Sprintf("longer: %d ids begin so", len(begun)))
	}
	return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("no job has the id or the name %q", ref))
}

// Submit implements JobService.
func (s *service) Submit(ctx context.Context, req *v1.SubmitRequest) (*v1.SubmitResponse, error) {
	request := req.GetRequestId()
	if request == "" {
		request = trace.From(ctx).Request + "-" + newID() // a proxy may give several requests one id
	}
	if len(request) > 200 {
		return nil, invalid("request_id", request, "at most 200 bytes")
	}
	if err := s.cfg.Store.Linearizable(ctx); err != nil {
		return nil, wrap(err)
	}
	var known *v1.Job
	var devices []string
	err := s.cfg.Store.View(func(v *store.View) (err error) {
		if known = v.JobByRequest(request); known != nil {
			return nil
		}
		if err := checkSpec(req.GetSpec(), s.cfg.Known); err != nil {
			return err
		}
		devices, err = s.resolveDevices(v, req)
		return err
	})
	if err != nil {
		return nil, wrap(err)
	}
	if known != nil {
		return &v1.SubmitResponse{Job: known}, nil
	}
	inputs, err := s.checkFiles(ctx, req.GetSpec())
	if err != nil {
		return nil, err
	}
	if err := s.addFiles(ctx, inputs...); err != nil {
		return nil, err
	}
	r, err := s.apply(ctx, &v1.Command{Op: &v1.Command_SubmitJob{SubmitJob: &v1.SubmitJob{
		Id: newID(), RequestId: request, Spec: req.GetSpec(), Devices: devices,
	}}})
	if err != nil {
		return nil, err
	}
	s.log(ctx).Info().Str("job", r.Job.GetId()).Str("name", r.Job.GetSpec().GetName()).Msg("job submitted")
	return &v1.SubmitResponse{Job: r.Job}, nil
}

// local is the device name that stands for the submitting machine.
const local = "local"

// resolveDevices replaces `local` by the device that has the submitting machine's fingerprint, in budgets too.
func (s *service) resolveDevices(v *store.View, req *v1.SubmitRequest) ([]string, error) {
	devices := slices.Clone(req.GetSpec().GetDevices())
	i := slices.Index(devices, local)
	if i < 0 {
		return devices, nil
	}
	if req.GetLocal() == nil {
		return nil, invalid("local", "", "the submitting machine's fingerprint, since the job names the device local")
	}
	name := ""
	for _, d := range v.Devices() {
		if sameFingerprint(d.GetFingerprint(), req.GetLocal()) && (name == "" || d.GetName() == local) {
			name = d.GetName()
		}
	}
	if name == "" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf(
			"device local: no worker on this machine (%s, %s) measures: start `espalier worker --server ADDR --device NAME` here, or name a device that has one",
			req.GetLocal().GetCpu(), req.GetLocal().GetVariant()))
	}
	if name != local && slices.Contains(devices, name) {
		return nil, invalid("devices", strings.Join(devices, ", "), fmt.Sprintf("without local, which is %s", name))
	}
	devices[i] = name
	if b := req.GetSpec().GetBudgets()[local]; b != nil && name != local {
		req.GetSpec().Budgets[name] = b
		delete(req.GetSpec().Budgets, local)
	}
	return devices, nil
}

func sameFingerprint(a, b *v1.Fingerprint) bool {
	return a.GetCpu() == b.GetCpu() && a.GetVariant() == b.GetVariant() && a.GetOs() == b.GetOs() && a.GetRuntimeVersion() == b.GetRuntimeVersion()
}

// checkFiles returns the files that the specification names by hash, and makes sure that they are on a majority of
// replicas.
func (s *service) checkFiles(ctx context.Context, spec *v1.JobSpec) (inputs []*v1.FileRef, err error) {
	for _, in := range []struct{ field, hash, format string }{
		{"data.hash", spec.GetData().GetHash(), "data"}, {"model.onnx", spec.GetModel().GetOnnx(), "onnx"},
	} {
		if in.hash == "" {
			continue
		}
		ref := &v1.FileRef{Hash: in.hash, Format: in.format}
		missing, err := s.cfg.Files.Missing(ctx, []*v1.FileRef{ref})
		if err != nil {
			return nil, wrap(err)
		}
		if len(missing) > 0 {
			return nil, withDetail(connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s: file %s is not here: upload it first", in.field, in.hash)),
				&v1.ErrorDetail{Field: in.field, Value: in.hash, Want: "a file that was uploaded"})
		}
		inputs = append(inputs, ref)
	}
	return inputs, nil
}

// addFiles records files that a majority of replicas holds, so that replicas keep and fetch them.
func (s *service) addFiles(ctx context.Context, refs ...*v1.FileRef) error {
	for _, f := range refs {
		st, err := s.cfg.Files.Stat(f.GetHash())
		if err != nil {
			return s.fileError(err)
		}
		f.SizeBytes = st.GetSizeBytes() // it is here: Missing fetched it if need be
	}
	if len(refs) == 0 {
		return nil
	}
	_, err := s.apply(ctx, &v1.Command{Op: &v1.Command_AddFiles{AddFiles: &v1.AddFiles{Files: refs}}})
	return err
}

// Cancel implements JobService.
func (s *service) Cancel(ctx context.Context, req *v1.CancelRequest) (*v1.CancelResponse, error) {
	job, err := s.setState(ctx, req.GetJob(), v1.JobState_JOB_STATE_CANCELLED)
	return &v1.CancelResponse{Job: job}, err
}

// Pause implements JobService. What runs goes on and counts; nothing new begins.
func (s *service) Pause(ctx context.Context, req *v1.PauseRequest) (*v1.PauseResponse, error) {
	job, err := s.setState(ctx, req.GetJob(), v1.JobState_JOB_STATE_PAUSED)
	return &v1.PauseResponse{Job: job}, err
}

// Resume implements JobService.
func (s *service) Resume(ctx context.Context, req *v1.ResumeRequest) (*v1.ResumeResponse, error) {
	job, err := s.setState(ctx, req.GetJob(), v1.JobState_JOB_STATE_SEARCHING)
	return &v1.ResumeResponse{Job: job}, err
}

func (s *service) setState(ctx context.Context, ref string, state v1.JobState) (*v1.Job, error) {
	if err := s.cfg.Store.Linearizable(ctx); err != nil {
		return nil, wrap(err)
	}
	job, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	r, err := s.apply(ctx, &v1.Command{Op: &v1.Command_SetJobState{SetJobState: &v1.SetJobState{
		Job: job.GetId(), State: state, Reason: "asked by a client, request " + trace.From(ctx).Request,
	}}})
	if err != nil {
		return nil, err
	}
	s.log(ctx).Info().Str("job", job.GetId()).Stringer("state", r.Job.GetState()).Msg("job changed by a client")
	return r.Job, nil
}

func (s *service) find(ref string) (job *v1.Job, err error) {
	err = s.cfg.Store.View(func(v *store.View) (err error) {
		job, err = resolve(v, ref)
		return err
	})
	return job, wrap(err)
}

// defaultPage and maxPage bound a page of trials.
const (
	defaultPage = 100
	maxPage     = 1000
)

// Trials implements JobService. It may be stale.
func (s *service) Trials(_ context.Context, req *v1.TrialsRequest) (*v1.TrialsResponse, error) {
	limit := int(req.GetLimit())
	if limit <= 0 {
		limit = defaultPage
	}
	out := &v1.TrialsResponse{}
	err := s.cfg.Store.View(func(v *store.View) error {
		job, err := resolve(v, req.GetJob())
		if err != nil {
			return err
		}
		out.Trials = v.Trials(job.GetId(), req.GetAfter(), min(limit, maxPage))
		return nil
	})
	return out, wrap(err)
}

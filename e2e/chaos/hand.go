//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/client"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
)

const (
	// handRole starts this program as simulated workers: hand NAME COUNT SERVERS.
	handRole = "hand"
	// handDevice is what they measure on.
	handDevice = "simulated"
)

// Messages of workers' logs that tell what became of a report; the keys are worker, task, attempt and outcome.
const (
	msgReported = "task reported"
	msgStale    = "report came too late: the lease was another's"
)

// playHand runs simulated workers: quick trials and measurements with made-up numbers, and everything else as real
// workers do it. A baseline they leave to those.
func playHand(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("hand: want NAME COUNT SERVERS")
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	servers := strings.Split(args[2], ",")
	api, err := client.New(client.Config{Addresses: servers, Insecure: true, DialTimeout: 2 * time.Second, Patience: -1})
	if err != nil {
		return err
	}
	defer api.Close()
	log := zerolog.New(os.Stdout).With().Timestamp().Logger()
	nc, err := connectBroker(ctx, api, log)
	if err != nil {
		return err
	}
	defer nc.Close()
	var work sync.WaitGroup
	session := client.NewRequestID()
	for i := range count {
		name := fmt.Sprintf("%s-%d", args[0], i)
		h := &hand{api: api, nc: nc, log: log.With().Str("worker", name).Logger(), info: &v1.WorkerInfo{
			Name: name, Session: fmt.Sprint(session, i), Slots: 1, Device: handDevice, Version: "chaos",
			Fingerprint: &v1.Fingerprint{Cpu: "none", Variant: "none"},
			Kinds:       []v1.TaskKind{v1.TaskKind_TASK_KIND_MEASURE, v1.TaskKind_TASK_KIND_TRIAL},
		}}
		work.Go(func() { h.run(ctx) })
	}
	work.Wait()
	return nil
}

// connectBroker connects to the brokers, whenever there are some.
func connectBroker(ctx context.Context, api *client.Client, log zerolog.Logger) (*nats.Conn, error) {
	for {
		info, err := api.Info(ctx)
		if err == nil && len(info.GetBrokerUrls()) > 0 {
			var nc *nats.Conn
			nc, err = nats.Connect(strings.Join(info.GetBrokerUrls(), ","), nats.Name("simulated worker"), nats.MaxReconnects(-1),
				nats.ReconnectWait(250*time.Millisecond), nats.ReconnectBufSize(-1), nats.PingInterval(2*time.Second), nats.MaxPingsOutstanding(2),
				nats.Timeout(2*time.Second))
			if err == nil {
				return nc, nil
			}
		}
		log.Warn().Err(err).Msg("no connection to the cluster yet")
		if !sleep(ctx, 500*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
}

// hand is one simulated worker.
type hand struct {
	api  *client.Client
	nc   *nats.Conn
	log  zerolog.Logger
	info *v1.WorkerInfo
	// notLeader counts such answers in a row.
	notLeader int
}

func (h *hand) run(ctx context.Context) {
	for ctx.Err() == nil {
		if lease := h.claim(ctx); lease != nil {
			h.do(ctx, lease)
		}
	}
}

// ask sends one request; false if there was no answer. After many that say "not leader" it tries another broker.
func (h *hand) ask(ctx context.Context, name string, req, reply proto.Message, within time.Duration) bool {
	data, err := proto.Marshal(req)
	if err != nil {
		panic(err) // our own message
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	m, err := h.nc.RequestWithContext(ctx, name, data)
	return err == nil && proto.Unmarshal(m.Data, reply) == nil
}

func (h *hand) heard(e *v1.DispatchError) {
	if e.GetCode() != v1.DispatchError_CODE_NOT_LEADER {
		h.notLeader = 0
		return
	}
	if h.notLeader++; h.notLeader >= 6 {
		h.notLeader = 0
		_ = h.nc.ForceReconnect() // it is connecting already
	}
}

// claim asks under one request id until there is an answer; nil if there is nothing to do.
func (h *hand) claim(ctx context.Context) *v1.Lease {
	req := &v1.ClaimRequest{RequestId: client.NewRequestID(), Worker: h.info, WaitMs: 2000, Kinds: h.info.GetKinds()}
	for ctx.Err() == nil {
		reply := new(v1.ClaimReply)
		if h.ask(ctx, subject.Claim, req, reply, 5*time.Second) {
			h.heard(reply.GetError())
			if reply.GetError() == nil {
				return reply.GetLease()
			}
		}
		sleep(ctx, 100*time.Millisecond+mrand.N(200*time.Millisecond))
	}
	return nil
}

func (h *hand) do(ctx context.Context, lease *v1.Lease) {
	t := lease.GetTask()
	log := h.log.With().Str("task", t.GetId()).Int32("attempt", t.GetAttempt()).Logger()
	req := &v1.ReportRequest{Worker: h.info.GetName(), Session: h.info.GetSession(), Task: t.GetId(), Attempt: t.GetAttempt()}
	length := mrand.N(300 * time.Millisecond)
	if mrand.IntN(8) == 0 {
		length += mrand.N(6 * time.Second)
	}
	if !h.busy(ctx, lease, length) {
		return
	}
	var file []byte
	switch t.GetKind() {
	case v1.TaskKind_TASK_KIND_TRIAL:
		// A file of its own beside the dense model, which real workers can measure.
		file = make([]byte, 1000+mrand.IntN(20000))
		_, _ = rand.Read(file)
		req.Outcome = &v1.ReportRequest_Trial{Trial: &v1.TrialResult{
			Accuracy: float64(mrand.IntN(1000)) / 1000, Macs: 1, Checkpoint: lease.GetBaseline().GetCheckpoint(),
			Artifacts: append(lease.GetBaseline().GetArtifacts(), client.HashBytes(file, "onnx")),
		}}
	case v1.TaskKind_TASK_KIND_MEASURE:
		p50 := int64(1000 + mrand.IntN(100000))
		req.Outcome = &v1.ReportRequest_Measurement{Measurement: &v1.Measurement{
			Device: t.GetDevice(), Format: lease.GetArtifact().GetFormat(), Artifact: lease.GetArtifact().GetHash(),
			SizeBytes: lease.GetArtifact().GetSizeBytes(), P50Ns: p50, P95Ns: p50 * 2, Runs: 1, Worker: h.info.GetName(),
		}}
	default:
		req.Outcome = &v1.ReportRequest_HandBack{HandBack: &v1.HandBack{Reason: "simulated workers do no such tasks"}}
	}
	h.report(ctx, log, req, file)
}

// busy takes the task's time, with heartbeats; false if the lease is lost.
func (h *hand) busy(ctx context.Context, lease *v1.Lease, length time.Duration) bool {
	t := lease.GetTask()
	for length > 0 {
		step := min(length, time.Duration(lease.GetHeartbeatMs())*time.Millisecond)
		length -= step
		if !sleep(ctx, step) {
			return false
		}
		if length <= 0 {
			break
		}
		reply := new(v1.HeartbeatReply)
		beat := &v1.HeartbeatRequest{Worker: h.info.GetName(), Session: h.info.GetSession(), Beats: []*v1.Beat{{Task: t.GetId(), Attempt: t.GetAttempt()}}}
		if h.ask(ctx, subject.Heartbeat, beat, reply, time.Second) {
			h.heard(reply.GetError())
			for _, b := range reply.GetBeats() {
				if b.GetVerdict() == v1.BeatReply_VERDICT_LOST {
					h.log.Info().Str("task", t.GetId()).Int32("attempt", t.GetAttempt()).Msg("lease lost; work dropped")
					return false
				}
			}
		}
	}
	return true
}

// report uploads and reports until the leader has said what became of it.
func (h *hand) report(ctx context.Context, log zerolog.Logger, req *v1.ReportRequest, file []byte) {
	upload := file != nil
	for ctx.Err() == nil {
		if upload {
			sending, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := h.api.Upload(sending, client.HashBytes(file, "onnx"), bytes.NewReader(file))
			cancel()
			if upload = err != nil; upload {
				sleep(ctx, 200*time.Millisecond+mrand.N(300*time.Millisecond))
				continue
			}
		}
		reply := new(v1.ReportReply)
		if h.ask(ctx, subject.Report, req, reply, 5*time.Second) {
			h.heard(reply.GetError())
			outcome := log.With().Str("outcome", outcomeOf(req)).Logger()
			switch e := reply.GetError(); {
			case e == nil && reply.GetStatus() == v1.ReportReply_STATUS_STALE:
				outcome.Warn().Msg(msgStale)
				return
			case e == nil:
				outcome.Info().Msg(msgReported)
				return
			case e.GetCode() == v1.DispatchError_CODE_FILES_MISSING:
				upload = file != nil
			case e.GetCode() == v1.DispatchError_CODE_INVALID:
				log.Error().Str("reason", e.GetMessage()).Msg("report refused")
				return
			}
		}
		sleep(ctx, 100*time.Millisecond+mrand.N(200*time.Millisecond))
	}
}

// outcomeOf names a report's outcome as real workers do.
func outcomeOf(req *v1.ReportRequest) string {
	switch {
	case req.GetTrial() != nil:
		return "trial"
	case req.GetMeasurement() != nil:
		return "measurement"
	default:
		return "hand-back"
	}
}

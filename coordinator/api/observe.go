package api

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
	"github.com/espalier-ml/espalier/proto/trace"
)

// reads are the requests that change nothing; those of answeredHere and staleReads are too, but for Upload.
var reads = map[string]bool{
	espalierv1connect.JobServiceFitProcedure:   true,
	espalierv1connect.JobServiceWatchProcedure: true,
}

// changes tells whether a request may change something.
func changes(procedure string) bool {
	if procedure == espalierv1connect.FileServiceUploadProcedure {
		return true
	}
	return !answeredHere[procedure] && !staleReads[procedure] && !reads[procedure]
}

// procedures are all requests of the API by their path, with the names that metrics give them. Nothing else becomes a label.
var procedures = func() map[string]string {
	out := map[string]string{}
	services := v1.File_espalier_v1_api_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for k := range methods.Len() {
			name := string(services.Get(i).Name()) + "/" + string(methods.Get(k).Name())
			out["/"+string(services.Get(i).ParentFile().Package())+"."+name] = name
		}
	}
	return out
}()

// observer counts, times and logs the requests that this replica answers.
type observer struct {
	log      zerolog.Logger
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	handed   prometheus.Counter
}

var _ connect.Interceptor = (*observer)(nil)

func newObserver(log zerolog.Logger) *observer {
	o := &observer{
		log: log,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "espalier_api_requests_total", Help: "Requests that this replica answered itself, by method and outcome.",
		}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "espalier_api_request_seconds", Help: "Time to answer a request that is not a stream.",
			Buckets: []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2, 10},
		}, []string{"method"}),
		handed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "espalier_api_forwarded_total", Help: "Requests handed on to the leader.",
		}),
	}
	for _, name := range procedures {
		o.requests.WithLabelValues(name, "ok")
	}
	return o
}

func (o *observer) collectors() []prometheus.Collector {
	return []prometheus.Collector{o.requests, o.seconds, o.handed}
}

// method names a path for a label.
func method(path string) string {
	if name, ok := procedures[path]; ok {
		return name
	}
	return "other"
}

// WrapUnary implements connect.Interceptor.
func (o *observer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		begin := time.Now()
		resp, err := next(ctx, req)
		took := time.Since(begin)
		o.seconds.WithLabelValues(method(req.Spec().Procedure)).Observe(took.Seconds())
		o.answered(ctx, req.Spec().Procedure, took, err)
		return resp, err
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (o *observer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		begin := time.Now()
		err := next(ctx, conn)
		o.answered(ctx, conn.Spec().Procedure, time.Since(begin), err)
		return err
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (o *observer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// answered counts and logs one request. What succeeded says so in lines of its own, if it matters.
func (o *observer) answered(ctx context.Context, procedure string, took time.Duration, err error) {
	code := "ok"
	if err != nil {
		code = connect.CodeOf(err).String()
	}
	o.requests.WithLabelValues(method(procedure), code).Inc()
	e := o.log.WithLevel(level(err))
	if err != nil {
		e = e.Err(err)
	}
	e.Fields(trace.From(ctx).Fields()).Str("method", method(procedure)).Str("code", code).Dur("took", took).Msg("request answered")
}

// level is how much an error is this side's fault.
func level(err error) zerolog.Level {
	if err == nil {
		return zerolog.DebugLevel
	}
	switch connect.CodeOf(err) {
	case connect.CodeCanceled:
		return zerolog.DebugLevel
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
		return zerolog.ErrorLevel
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted:
		return zerolog.WarnLevel
	default:
		return zerolog.InfoLevel
	}
}

// traced takes the ids of a request from its headers, or gives it one where it enters the cluster, and tells who asked.
func (o *observer) traced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ids := trace.Read(r.Header)
		if ids.Request == "" {
			ids.Request = trace.NewID()
			r.Header.Set(trace.RequestHeader, ids.Request) // for the leader, if it is handed on
		}
		w.Header().Set(trace.RequestHeader, ids.Request)
		next.ServeHTTP(w, r.WithContext(trace.With(r.Context(), ids)))
	})
}

// refused notes a request without the right token.
func (o *observer) refused(r *http.Request) {
	code := connect.CodeUnauthenticated.String()
	o.requests.WithLabelValues(method(r.URL.Path), code).Inc()
	o.log.Warn().Fields(trace.From(r.Context()).Fields()).Str("method", method(r.URL.Path)).Str("from", r.RemoteAddr).
		Msg("request without the right token")
}

// handedOn notes a request that goes to the leader.
func (o *observer) handedOn(r *http.Request, leader string) {
	o.handed.Inc()
	l := zerolog.DebugLevel
	if changes(r.URL.Path) {
		l = zerolog.InfoLevel
	}
	o.log.WithLevel(l).Fields(trace.From(r.Context()).Fields()).Str("method", method(r.URL.Path)).
		Str("leader", leader).Msg("request handed on")
}

// forgetID leaves the header of an answer to the replica that hands it back.
func forgetID(resp *http.Response) error {
	resp.Header.Del(trace.RequestHeader)
	return nil
}

package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
)

// Server serves the API on one listener.
type Server struct {
	cfg     Config
	svc     *service
	forward *forwarder
	observe *observer
	handler http.Handler
	http    *http.Server
	cancel  context.CancelFunc
	work    sync.WaitGroup
}

// New returns a Server that does not listen yet. The error is an ErrConfig.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Interval == 0 {
		cfg.Interval = 200 * time.Millisecond
	}
	stop, cancel := context.WithCancel(context.Background())
	observe := newObserver(cfg.Log)
	s := &Server{cfg: cfg, svc: &service{cfg: cfg, stop: stop}, forward: newForwarder(cfg, observe), observe: observe, cancel: cancel}
	mux, err := s.mux()
	if err != nil {
		cancel()
		return nil, err
	}
	s.handler = mux
	s.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		Protocols: new(http.Protocols), TLSConfig: cfg.TLS,
		ErrorLog: log.New(httpLog{cfg.Log}, "", 0),
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: 1000, SendPingTimeout: 20 * time.Second, PingTimeout: 20 * time.Second},
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s, nil
}

// Handler returns the handler of everything that the Server serves.
func (s *Server) Handler() http.Handler { return s.handler }

func (s *Server) mux() (http.Handler, error) {
	opts := []connect.HandlerOption{connect.WithReadMaxBytes(maxMessageBytes), connect.WithInterceptors(s.observe)}
	mux := http.NewServeMux()
	add := func(path string, h http.Handler) { mux.Handle(path, s.observe.traced(s.authorised(s.forward.wrap(h)))) }
	add(espalierv1connect.NewJobServiceHandler(s.svc, opts...))
	add(espalierv1connect.NewFileServiceHandler(s.svc, opts...))
	add(espalierv1connect.NewDataServiceHandler(s.svc, opts...))
	add(espalierv1connect.NewClusterServiceHandler(s.svc, opts...))
	if p := s.cfg.Peer; p.Handler != nil {
		mux.Handle(p.Path, s.observe.traced(s.authorised(p.Handler)))
	}

	registry := prometheus.NewRegistry()
	own := append(s.observe.collectors(), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &metrics{s.svc})
	for _, c := range append(own, s.cfg.Metrics...) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("%w: metrics: %w", ErrConfig, err)
		}
	}
	mux.Handle("GET /metrics", s.authorised(promhttp.HandlerFor(registry, promhttp.HandlerOpts{})))
	mux.HandleFunc("GET /healthz", alive)
	mux.HandleFunc("GET /readyz", s.svc.ready)
	return mux, nil
}

// authorised asks for a token, if the cluster has one.
func (s *Server) authorised(next http.Handler) http.Handler {
	if len(s.cfg.Tokens) == 0 {
		return next
	}
	refuse := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if ok && s.cfg.Tokens.Has(token) {
			next.ServeHTTP(w, r)
			return
		}
		s.observe.refused(r)
		err := connect.NewError(connect.CodeUnauthenticated, errors.New("this cluster asks for its token, as `Authorization: Bearer TOKEN`"))
		if !refuse.IsSupported(r) {
			http.Error(w, err.Message(), http.StatusUnauthorized)
			return
		}
		_ = refuse.Write(w, r, err) // the client has gone
	})
}

// Serve answers on ln, over TLS if it is configured, until Close. It returns at once.
func (s *Server) Serve(ln net.Listener) {
	if s.cfg.TLS != nil {
		conf := s.cfg.TLS.Clone()
		conf.NextProtos = []string{"h2", "http/1.1"}
		ln = tls.NewListener(ln, conf)
	}
	s.work.Go(func() {
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Log.Error().Err(err).Msg("API stopped")
		}
	})
}

// Close ends watches, lets other requests finish until ctx ends, and closes the listener.
func (s *Server) Close(ctx context.Context) error {
	s.cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.work.Wait()
	s.forward.close()
	return err
}

// httpLog takes what the HTTP server has to say of broken connections.
type httpLog struct{ log zerolog.Logger }

func (h httpLog) Write(b []byte) (int, error) {
	h.log.Debug().Str("text", strings.TrimSpace(string(b))).Msg("connection failed")
	return len(b), nil
}

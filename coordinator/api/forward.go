package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
)

// forwardedHeader marks a request that a replica handed on, so that none goes round in circles.
const forwardedHeader = "Espalier-Forwarded"

// answeredHere is what every replica answers itself. Everything else goes to the leader, who knows what runs.
var answeredHere = map[string]bool{
	espalierv1connect.ClusterServiceInfoProcedure:     true,
	espalierv1connect.ClusterServiceReplicasProcedure: true,
	espalierv1connect.FileServiceStatProcedure:        true,
	espalierv1connect.FileServiceUploadProcedure:      true,
	espalierv1connect.FileServiceDownloadProcedure:    true,
	espalierv1connect.DataServiceListDataProcedure:    true,
}

// staleReads may be answered here, without progress, while there is no leader.
var staleReads = map[string]bool{
	espalierv1connect.JobServiceGetProcedure:         true,
	espalierv1connect.JobServiceListProcedure:        true,
	espalierv1connect.JobServiceTrialsProcedure:      true,
	espalierv1connect.JobServiceFrontProcedure:       true,
	espalierv1connect.ClusterServiceWorkersProcedure: true,
	espalierv1connect.ClusterServiceDevicesProcedure: true,
}

// forwarder hands requests on to the leader.
type forwarder struct {
	cfg       Config
	observe   *observer
	transport *http.Transport
	refuse    *connect.ErrorWriter
}

func newForwarder(cfg Config, observe *observer) *forwarder {
	t := &http.Transport{
		Protocols: new(http.Protocols), IdleConnTimeout: time.Minute,
		DisableCompression: true,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},
	}
	if cfg.TLS == nil {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP2(true)
		t.DialTLSContext = cfg.Authorities.Dial
	}
	return &forwarder{cfg: cfg, observe: observe, transport: t, refuse: connect.NewErrorWriter()}
}

func (f *forwarder) close() { f.transport.CloseIdleConnections() }

// wrap answers here what this replica may answer, and hands on the rest.
func (f *forwarder) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.cfg.Store.IsLeader() || answeredHere[r.URL.Path] {
			next.ServeHTTP(w, r)
			return
		}
		leader := f.cfg.Cluster.Leader()
		switch {
		case leader == "" && staleReads[r.URL.Path]:
			next.ServeHTTP(w, r)
		case leader == "":
			f.fail(w, r, errors.New("the cluster has no leader now: ask again"))
		case r.Header.Get(forwardedHeader) != "":
			f.fail(w, r, errors.New("the lead changed: ask again"))
		default:
			f.hand(leader, w, r)
		}
	})
}

func (f *forwarder) hand(leader string, w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(leader, "://") {
		scheme := "http"
		if f.cfg.TLS != nil {
			scheme = "https"
		}
		leader = scheme + "://" + leader
	}
	target, err := url.Parse(leader)
	if err != nil {
		f.fail(w, r, err)
		return
	}
	f.observe.handedOn(r, target.Host)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Header.Set(forwardedHeader, "1")
		},
		Transport:      f.transport,
		FlushInterval:  -1,
		ModifyResponse: forgetID,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			f.fail(w, r, fmt.Errorf("the leader at %s does not answer: %w", target.Host, err))
		},
	}
	proxy.ServeHTTP(w, r)
}

// fail answers that the request may be sent again.
func (f *forwarder) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := connect.NewError(connect.CodeUnavailable, err)
	if !f.refuse.IsSupported(r) {
		http.Error(w, e.Message(), http.StatusServiceUnavailable)
		return
	}
	_ = f.refuse.Write(w, r, e) // the client has gone
}

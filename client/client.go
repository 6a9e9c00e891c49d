package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/rs/zerolog"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
	"github.com/espalier-ml/espalier/tlsfile"
)

// Errors of this package. Errors of the API itself are *connect.Error and keep
// their code: use connect.CodeOf.
var (
	// ErrAddress says that an address cannot be dialled as written.
	ErrAddress = errors.New("bad address")
	// ErrInsecure says that an address beyond loopback would be dialled without TLS.
	ErrInsecure = errors.New("not secure")
	// ErrHash says that a file's bytes are not those that its hash names.
	ErrHash = errors.New("wrong hash")
	// ErrRefused says that the server takes an upload back again and again.
	ErrRefused = errors.New("upload not accepted")
)

// Config says where the cluster is and how to speak to it.
type Config struct {
	// Addresses of replicas' APIs: "host:port", "http://host:port" or
	// "https://host:port". Any one that answers will do; the others are tried
	// when it does not. Without a scheme, loopback means http and all else https.
	Addresses []string
	// Token is sent as a bearer token; empty sends none.
	Token string
	// TLS overrides the system's defaults for https; nil uses those.
	TLS *tls.Config
	// Authorities, if set, are what servers' certificates are checked against, as they are at each connection.
	Authorities *tlsfile.Authorities
	// Insecure allows http beyond loopback.
	Insecure bool
	// DialTimeout bounds one attempt to connect to one address; 0 means 5 s.
	DialTimeout time.Duration
	// Patience is how long a request that finds no server or no leader is
	// repeated before its error is returned; 0 means 15 s, negative not at all.
	Patience time.Duration
	// Logger takes a line for each request, at level debug. The zero value logs nothing.
	Logger zerolog.Logger
}

const (
	defaultDialTimeout = 5 * time.Second
	defaultPatience    = 15 * time.Second
)

// Client speaks to one cluster. It is safe for concurrent use; Close it when done.
// The embedded service clients are the whole API.
type Client struct {
	Jobs    espalierv1connect.JobServiceClient
	Files   espalierv1connect.FileServiceClient
	Data    espalierv1connect.DataServiceClient
	Cluster espalierv1connect.ClusterServiceClient

	transport *turning
	base      string
	patience  time.Duration
}

// New returns a client for the cluster that cfg names. It connects when first
// used. Its errors wrap ErrAddress or ErrInsecure.
func New(cfg Config) (*Client, error) {
	targets, secure, err := parseAddresses(cfg.Addresses, cfg.Insecure)
	if err != nil {
		return nil, err
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = defaultDialTimeout
	}
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	transport := newTurning(targets, secure, cfg)
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	base := scheme + targets[0]
	hc := &http.Client{Transport: transport}
	opts := []connect.ClientOption{connect.WithInterceptors(bearer(cfg.Token), tracing{cfg.Logger})}
	return &Client{
		Jobs:      espalierv1connect.NewJobServiceClient(hc, base, opts...),
		Files:     espalierv1connect.NewFileServiceClient(hc, base, opts...),
		Data:      espalierv1connect.NewDataServiceClient(hc, base, opts...),
		Cluster:   espalierv1connect.NewClusterServiceClient(hc, base, opts...),
		transport: transport,
		base:      base,
		patience:  cfg.Patience,
	}, nil
}

// Elsewhere makes the requests from now on begin with the next address. A request whose replica says that it is
// unavailable, since it knows no leader, does the same.
func (c *Client) Elsewhere() { c.transport.turn() }

// Close drops idle connections. Requests under way are ended by their contexts.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// BaseURL is the address that requests name; the connection may be to another
// replica.
func (c *Client) BaseURL() string { return c.base }

// Info asks how to reach the broker and who leads. It is repeated while no
// server answers, as long as Config.Patience.
func (c *Client) Info(ctx context.Context) (*espalierv1.InfoResponse, error) {
	return again(ctx, c.patience, func() (*espalierv1.InfoResponse, error) {
		return c.Cluster.Info(ctx, &espalierv1.InfoRequest{})
	})
}

// newTransport speaks HTTP/2, with or without TLS, over a connection to the first of
// targets that answers.
func newTransport(targets []string, secure bool, cfg Config) *http.Transport {
	dial := &failover{targets: targets, dialer: net.Dialer{Timeout: cfg.DialTimeout}}
	t := &http.Transport{
		Protocols:          new(http.Protocols),
		IdleConnTimeout:    90 * time.Second,
		DisableCompression: true,
		// A peer that was stopped or cut off is noticed by its silence.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 10 * time.Second},
	}
	if !secure {
		t.Protocols.SetUnencryptedHTTP2(true)
		t.DialContext = dial.plain
		return t
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLS != nil {
		conf = cfg.TLS.Clone()
	}
	conf.NextProtos = []string{"h2"}
	dial.tls, dial.authorities = conf, cfg.Authorities
	t.Protocols.SetHTTP2(true)
	t.DialTLSContext = dial.secure
	return t
}

// bearer adds the token to every request.
type bearer string

func (b bearer) set(h http.Header) {
	if b != "" {
		h.Set("Authorization", "Bearer "+string(b))
	}
}

// WrapUnary implements connect.Interceptor.
func (b bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		b.set(req.Header())
		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (b bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		b.set(conn.RequestHeader())
		return conn
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (b bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

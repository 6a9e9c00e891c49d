package coordinator

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/espalier-ml/espalier/tlsfile"
)

// certificateInterval is how often the files of certificates are looked at for the broker; API and Raft look at each
// connection.
const certificateInterval = 2 * time.Second

// startConnections reads the certificate and the authorities, if there are any, and makes what connects to the other replicas. The
// files are read again when they change.
func (s *Server) startConnections(context.Context) (func(context.Context) error, error) {
	if s.cfg.CertFile != "" {
		var err error
		if s.pair, err = tlsfile.OpenPair(s.cfg.CertFile, s.cfg.KeyFile, s.log); err != nil {
			return nil, err
		}
	}
	if s.cfg.CertFile != "" && s.cfg.CAFile != "" {
		var err error
		if s.authorities, err = tlsfile.OpenAuthorities(s.cfg.CAFile, s.log); err != nil {
			return nil, err
		}
	}
	s.peerHTTP = s.newPeerHTTP()
	return func(context.Context) error {
		s.peerHTTP.CloseIdleConnections()
		return nil
	}, nil
}

// serverTLS is what the API serves with; nil without a certificate.
func (s *Server) serverTLS() *tls.Config {
	if s.pair == nil {
		return nil
	}
	return s.pair.Server()
}

// watchCertificates tells the broker of changed files.
func (s *Server) watchCertificates() (stop func()) {
	if s.pair == nil {
		return func() {}
	}
	paths := []string{s.cfg.CertFile, s.cfg.KeyFile}
	if s.cfg.CAFile != "" {
		paths = append(paths, s.cfg.CAFile)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tlsfile.Watch(ctx, certificateInterval, func() {
			if err := s.broker.Reload(); err != nil {
				s.log.Warn().Err(err).Msg("broker keeps its certificate")
			}
		}, paths...)
	}()
	return func() {
		cancel()
		<-done
	}
}

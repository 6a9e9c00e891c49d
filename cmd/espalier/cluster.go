package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/coordinator/certs"
	"github.com/espalier-ml/espalier/proto/trace"
	"github.com/espalier-ml/espalier/tlsfile"
)

// Environment variables that stand in for flags.
const (
	envServer    = "ESPALIER_SERVER"
	envToken     = "ESPALIER_TOKEN"
	envTokenFile = "ESPALIER_TOKEN_FILE"
	envCA        = "ESPALIER_CA"
)

// defaultServer is where a server listens unless told otherwise.
const defaultServer = "127.0.0.1:8470"

// clusterFlags say which cluster a command speaks to.
type clusterFlags struct {
	servers  []string
	token    string
	ca       string
	insecure bool
	log      logFlags
}

// add adds the flags of a command that sends requests of its own.
func (f *clusterFlags) add(cmd *cobra.Command) {
	f.addAddress(cmd)
	f.log.add(cmd, "warn")
}

// addAddress adds those that say where the cluster is.
func (f *clusterFlags) addAddress(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.servers, "server", nil, "address of one or more servers (default $"+envServer+" or "+defaultServer+")")
	cmd.Flags().StringVar(&f.token, "token-file", "", "file with the cluster's token, on its first line (default $"+envTokenFile+", or $"+envToken+" itself)")
	cmd.Flags().StringVar(&f.ca, "ca", "", "PEM file with the certificate to trust (default $"+envCA+" or the system's)")
	cmd.Flags().BoolVar(&f.insecure, "insecure", false, "allow a connection beyond this machine without TLS")
}

// config is the client's configuration from flags and environment.
func (f *clusterFlags) config() (client.Config, error) {
	cfg := client.Config{Addresses: f.servers, Insecure: f.insecure}
	if len(cfg.Addresses) == 0 {
		cfg.Addresses = strings.FieldsFunc(os.Getenv(envServer), func(r rune) bool { return r == ',' || r == ' ' })
	}
	if len(cfg.Addresses) == 0 {
		cfg.Addresses = []string{defaultServer}
	}
	tokens, err := findTokens(f.token)
	if err != nil {
		return cfg, err
	}
	cfg.Token = tokens.Shown()
	ca := f.ca
	if ca == "" {
		ca = os.Getenv(envCA)
	}
	if ca != "" {
		trusted, err := tlsfile.OpenAuthorities(ca, zerolog.Nop())
		if err != nil {
			return cfg, err
		}
		cfg.Authorities = trusted
	}
	return cfg, nil
}

// findTokens reads the tokens from a file, or takes them from the environment; none if there is neither.
func findTokens(path string) (certs.Tokens, error) {
	if path = cmp.Or(path, os.Getenv(envTokenFile)); path == "" {
		return certs.ParseTokens(os.Getenv(envToken)), nil
	}
	tokens, err := certs.ReadTokens(path)
	if errors.Is(err, certs.ErrNoToken) {
		return nil, usagef("%v", err)
	}
	return tokens, err
}

// with runs fn with a client, and explains errors of the connection.
func (f *clusterFlags) with(cmd *cobra.Command, fn func(context.Context, *client.Client) error) error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	if cfg.Logger, err = f.log.logger(cmd.ErrOrStderr()); err != nil {
		return err
	}
	c, err := client.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	// One id for all that the command asks: logs of servers and workers name it.
	ids := trace.IDs{Request: trace.NewID()}
	return explain(fn(trace.With(cmd.Context(), ids), c), cfg.Addresses, ids.Request)
}

// explain turns an error of the API into words for people, with the next step, and the request's id, by which
// the servers' logs say more.
func explain(err error, servers []string, request string) error {
	var api *connect.Error
	if !errors.As(err, &api) {
		return err
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("the certificate of %s is not trusted: name its authority with --ca: %w", strings.Join(servers, ", "), untrusted)
	}
	out := &friendly{err: err, code: api.Code().String(), request: request, text: api.Message()}
	switch api.Code() {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		if connect.IsWireError(err) {
			break // a server answers, and says what it lacks
		}
		out.text = fmt.Sprintf("no server answers at %s: start one with `espalier server`, or name it with --server: %v",
			strings.Join(servers, ", "), err)
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		out.text = fmt.Sprintf("%s: set $%s or --token-file", api.Message(), envToken)
	}
	return out
}

// friendly shows the message of an API error without its code, and keeps all.
type friendly struct {
	err                 error
	text, code, request string
}

func (f *friendly) Error() string { return f.text + " (request " + f.request + ")" }
func (f *friendly) Unwrap() error { return f.err }

// parseLabels turns k=v pairs into a map.
func parseLabels(pairs []string) (map[string]string, error) {
	out := map[string]string{}
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usagef("--label %q: want key=value", p)
		}
		out[k] = v
	}
	return out, nil
}

func joined(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	return strings.Join(names, ", ")
}

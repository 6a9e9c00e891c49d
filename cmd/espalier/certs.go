package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/coordinator/certs"
)

func newClusterCerts() *cobra.Command {
	var hosts []string
	var name string
	var days int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "certs DIR --hosts NAME,…",
		Short: "Make the certificates and the token with which servers listen beyond their machine",
		Long: `Writes to DIR an authority of the cluster's own (ca.pem, ca-key.pem), a certificate for the servers
(server.pem, server-key.pem) and the token (token). An authority and a token that are there stay: run it
again to renew the certificate, or with --name for one more server.

Servers need ca.pem, the certificate with its key, and the token; workers and clients ca.pem and the
token. Keep ca-key.pem elsewhere: whoever has it can join.`,
		Example: `  espalier cluster certs tls --hosts server-1,server-2,server-3
  espalier cluster certs tls --hosts 10.0.0.7 --name fourth`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := certs.Make(certs.Config{Dir: args[0], Hosts: hosts, Name: name, Life: time.Duration(days) * 24 * time.Hour})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{
					"authority": m.Authority, "authority_key": m.AuthorityKey, "certificate": m.Certificate, "key": m.Key,
					"token": m.Token, "hosts": m.Hosts, "until": m.Until.UTC().Truncate(time.Second),
				})
			}
			return showCerts(cmd.OutOrStdout(), m)
		},
	}
	cmd.Flags().StringSliceVar(&hosts, "hosts", nil, "names and addresses under which the servers are reached (required)")
	cmd.Flags().StringVar(&name, "name", "", "name of the certificate's files (default server)")
	cmd.Flags().IntVar(&days, "days", int(certs.DefaultLife/(24*time.Hour)), "how long the certificate is good for")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func showCerts(w io.Writer, m certs.Made) error {
	kept := func(yes bool) string {
		if yes {
			return " (as it was)"
		}
		return ""
	}
	_, err := fmt.Fprintf(w, `authority    %s%s
certificate  %s for %s, until %s
token        %s%s
servers:     --tls-cert %s --tls-key %s --ca %s --token-file %s
workers and clients: --ca %s --token-file %s
`, m.Authority, kept(m.KeptAuthority), m.Certificate, strings.Join(m.Hosts, ", "), m.Until.Format(time.DateOnly),
		m.Token, kept(m.KeptToken), m.Certificate, m.Key, m.Authority, m.Token, m.Authority, m.Token)
	return err
}

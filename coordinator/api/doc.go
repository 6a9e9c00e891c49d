// Package api answers clients: the Connect services of proto/espalier/v1, the metrics and the health checks, all on one
// port, over HTTP/1.1 and HTTP/2 with and without TLS. A replica that does not lead hands on to the leader what only the
// leader can answer.
//
// The handlers are thin: they check and translate requests, read snapshots of the store and commit commands.
package api

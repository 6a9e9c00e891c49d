// Package client is the way into a cluster for the command line, for workers
// and for other programs: it dials the API of any replica, moves files by hash
// with resumption, submits jobs once however often the request is repeated, and
// follows them through reconnections.
package client

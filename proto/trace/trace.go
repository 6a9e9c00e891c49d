// Package trace carries the ids by which the logs of all processes tell one story: through contexts within a process, in
// headers between processes.
//
// A request's id is made where the request comes from, or where it enters the cluster, and stays over repetitions and over the
// replicas that hand it on. A job keeps the id of the request that made it, and its tasks' leases tell workers of it. A task's
// id begins with its job's.
package trace

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strconv"
)

// Headers between processes.
const (
	RequestHeader = "X-Request-Id"
	TaskHeader    = "Espalier-Task"
	AttemptHeader = "Espalier-Attempt"
)

const (
	maxRequest = 128
	maxTask    = 700
)

// IDs say on whose behalf something is done. Each may be empty.
type IDs struct {
	// Request is the id of a client's request.
	Request string
	// Task and Attempt name one lease.
	Task    string
	Attempt int32
}

// NewID returns a random request id of 16 hexadecimal digits.
func NewID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

type key struct{}

// With returns a context that carries ids.
func With(ctx context.Context, ids IDs) context.Context { return context.WithValue(ctx, key{}, ids) }

// From returns the ids that ctx carries.
func From(ctx context.Context) IDs {
	ids, _ := ctx.Value(key{}).(IDs)
	return ids
}

// Set writes the headers.
func (i IDs) Set(h http.Header) {
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	set(RequestHeader, i.Request)
	set(TaskHeader, i.Task)
	if i.Task != "" && i.Attempt > 0 {
		set(AttemptHeader, strconv.Itoa(int(i.Attempt)))
	}
}

// Read reads the headers. What is too long or not printable is left out: it goes into logs.
func Read(h http.Header) IDs {
	var i IDs
	if v := h.Get(RequestHeader); len(v) <= maxRequest && printable(v) {
		i.Request = v
	}
	if v := h.Get(TaskHeader); len(v) <= maxTask && printable(v) {
		i.Task = v
	}
	if n, err := strconv.ParseInt(h.Get(AttemptHeader), 10, 32); err == nil && n > 0 && i.Task != "" {
		i.Attempt = int32(n)
	}
	return i
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return true
}

// Fields are the keys and values for a log line; nothing for what is empty.
func (i IDs) Fields() map[string]any {
	out := map[string]any{}
	if i.Request != "" {
		out["request"] = i.Request
	}
	if i.Task != "" {
		out["task"] = i.Task
	}
	if i.Attempt > 0 {
		out["attempt"] = i.Attempt
	}
	return out
}

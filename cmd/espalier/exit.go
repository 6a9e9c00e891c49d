package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/coordinator"
	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/backup"
	"github.com/espalier-ml/espalier/coordinator/certs"
	"github.com/espalier-ml/espalier/coordinator/store"
	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/local"
	"github.com/espalier-ml/espalier/search/pareto"
	"github.com/espalier-ml/espalier/worker"
)

// Exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2   // wrong use: flags, arguments, job file
	exitNoFit   = 3   // nothing satisfies the budget
	exitStopped = 130 // by Ctrl-C or SIGTERM, cleanly
)

var (
	// errUsage marks wrong use of the command line.
	errUsage = errors.New("wrong use")
	// errQuiet marks an error that was shown already.
	errQuiet = errors.New("shown")
)

func exitCode(ctx context.Context, err error) int {
	switch {
	case errors.Is(err, pareto.ErrNoFit):
		return exitNoFit
	case isUsage(err):
		return exitUsage
	case ctx.Err() != nil:
		return exitStopped
	}
	return exitFailed
}

func isUsage(err error) bool {
	for _, e := range []error{
		errUsage, job.ErrField, job.ErrSyntax, client.ErrAddress, client.ErrInsecure,
		local.ErrOtherJob, local.ErrNotResults, coordinator.ErrConfig, api.ErrInsecure, worker.ErrConfig, certs.ErrConfig,
		store.ErrConfig, backup.ErrNotEmpty,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return connect.CodeOf(err) == connect.CodeInvalidArgument
}

// showError says why a command failed, to people or, with --json, to programs.
func showError(w io.Writer, err error, code int, asJSON bool) {
	if !asJSON {
		fmt.Fprintf(w, "espalier: %v\n", err)
		return
	}
	out := struct {
		Error   string `json:"error"`
		Exit    int    `json:"exit"`
		Code    string `json:"code,omitempty"`
		Request string `json:"request,omitempty"`
	}{Error: err.Error(), Exit: code}
	if f, ok := errors.AsType[*friendly](err); ok {
		out.Error, out.Code, out.Request = f.text, f.code, f.request
	}
	_ = printJSON(w, out) // there is nowhere else to say it
}

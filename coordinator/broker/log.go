package broker

import (
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/rs/zerolog"
)

// serverLog hands the server's messages to zerolog.
type serverLog struct {
	z zerolog.Logger

	mu    sync.Mutex
	cause error
}

var _ server.Logger = (*serverLog)(nil)

func (l *serverLog) write(e *zerolog.Event, format string, args ...any) {
	e.Str("from", "nats").Str("text", strings.TrimSpace(fmt.Sprintf(format, args...))).Msg("broker")
}

// Noticef is of interest to those who debug: every start tells its life.
func (l *serverLog) Noticef(format string, args ...any) { l.write(l.z.Debug(), format, args...) }
func (l *serverLog) Warnf(format string, args ...any)   { l.write(l.z.Warn(), format, args...) }
func (l *serverLog) Errorf(format string, args ...any)  { l.write(l.z.Error(), format, args...) }
func (l *serverLog) Debugf(format string, args ...any)  { l.write(l.z.Debug(), format, args...) }
func (l *serverLog) Tracef(format string, args ...any)  { l.write(l.z.Trace(), format, args...) }

// Fatalf is what the server says when it cannot go on, such as when it cannot listen.
// It ends nothing: Start finds that the server is not ready, and gives this as cause.
func (l *serverLog) Fatalf(format string, args ...any) {
	l.mu.Lock()
	l.cause = fmt.Errorf("%s", strings.TrimSpace(fmt.Sprintf(format, args...)))
	l.mu.Unlock()
	l.write(l.z.Error(), format, args...)
}

func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

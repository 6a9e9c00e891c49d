package store

import (
	"fmt"
	"io"
	"log"

	"github.com/hashicorp/go-hclog"
	"github.com/rs/zerolog"
)

// raftLog hands Raft's messages to zerolog: constant messages, the rest as fields.
type raftLog struct {
	z    zerolog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*raftLog)(nil)

func newRaftLog(z zerolog.Logger) *raftLog { return &raftLog{z: z, name: "raft"} }

var zerologLevels = map[hclog.Level]zerolog.Level{
	hclog.Trace: zerolog.TraceLevel, hclog.Debug: zerolog.DebugLevel, hclog.Info: zerolog.DebugLevel,
	hclog.Warn: zerolog.WarnLevel, hclog.Error: zerolog.ErrorLevel,
}

// firstElection is what every replica says when it starts, and nothing to warn of.
const firstElection = "heartbeat timeout reached, starting election"

func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	zl, ok := zerologLevels[level]
	if !ok {
		return
	}
	if msg == firstElection {
		zl = zerolog.DebugLevel
	}
	e := l.z.WithLevel(zl)
	if zl < l.z.GetLevel() {
		return
	}
	e = e.Str("from", l.name)
	all := append(append([]any{}, l.args...), args...)
	for i := 0; i+1 < len(all); i += 2 {
		key := fmt.Sprint(all[i])
		switch v := all[i+1].(type) {
		case error:
			e = e.AnErr(key, v)
		case hclog.Format:
			e = e.Str(key, fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...))
		default:
			e = e.Str(key, fmt.Sprint(v))
		}
	}
	e.Msg(msg)
}

func (l *raftLog) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLog) enabled(level hclog.Level) bool { return zerologLevels[level] >= l.z.GetLevel() }

func (l *raftLog) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *raftLog) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *raftLog) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *raftLog) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *raftLog) IsError() bool { return l.enabled(hclog.Error) }

func (l *raftLog) ImpliedArgs() []any { return l.args }
func (l *raftLog) Name() string       { return l.name }

func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{z: l.z, name: l.name, args: append(append([]any{}, l.args...), args...)}
}

func (l *raftLog) Named(name string) hclog.Logger {
	return &raftLog{z: l.z, name: l.name + "." + name, args: l.args}
}

func (l *raftLog) ResetNamed(name string) hclog.Logger {
	return &raftLog{z: l.z, name: name, args: l.args}
}

// SetLevel does nothing: the level is zerolog's.
func (l *raftLog) SetLevel(hclog.Level) {}

func (l *raftLog) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Error
}

func (l *raftLog) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(o), "", 0)
}

func (l *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return l.z
}

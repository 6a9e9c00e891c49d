package main

import (
	"encoding/json"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// printJSON writes a value for programs.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command, v *bool) {
	cmd.Flags().BoolVar(v, "json", false, "print JSON with stable field names")
}

// isTerminal tells whether w is a terminal, and how wide it is.
func isTerminal(w io.Writer) (width int, ok bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 80, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 40 {
		width = 80
	}
	return width, true
}

// logFlags say what of the log is written to stderr, and how.
type logFlags struct{ level, format string }

// add adds --log-level and --log-format.
func (f *logFlags) add(cmd *cobra.Command, standard string) {
	cmd.Flags().StringVar(&f.level, "log-level", standard, "least level of log lines on stderr: debug, info, warn, error or disabled")
	cmd.Flags().StringVar(&f.format, "log-format", "auto", "json, text, or auto: text on a terminal, else json")
}

// logger writes as the flags say.
func (f *logFlags) logger(w io.Writer) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(f.level)
	if err != nil || f.level == "" {
		return zerolog.Nop(), usagef("--log-level %q: want debug, info, warn, error or disabled", f.level)
	}
	_, terminal := isTerminal(w)
	switch f.format {
	case "text":
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.RFC3339, NoColor: !terminal}
	case "auto":
		if terminal {
			w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05"}
		}
	case "json":
	default:
		return zerolog.Nop(), usagef("--log-format %q: want json, text or auto", f.format)
	}
	return zerolog.New(w).Level(l).With().Timestamp().Logger(), nil
}

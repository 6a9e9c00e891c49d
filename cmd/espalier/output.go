package main

import (
	"encoding/json"
	"io"
	"os"

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

// logFlag adds --log-level.
func logFlag(cmd *cobra.Command, level *string, standard string) {
	cmd.Flags().StringVar(level, "log-level", standard, "least level of log lines on stderr: debug, info, warn, error or disabled")
}

// newLogger writes JSON lines, or coloured ones on a terminal.
func newLogger(w io.Writer, level string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Nop(), usagef("--log-level %q: want debug, info, warn, error or disabled", level)
	}
	if _, ok := isTerminal(w); ok {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05"}
	}
	return zerolog.New(w).Level(l).With().Timestamp().Logger(), nil
}

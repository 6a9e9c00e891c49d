// Command espalier searches for the best pruned version of a neural network for
// every device that must run it: in one process (`demo`, `run`), or on a cluster
// (`server`, `worker`, `submit`).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "0.1.0-dev"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process: it returns the exit code. The first signal
// ends the context; a second one ends the process at once.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop()
	}()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	code := exitCode(ctx, err)
	if !errors.Is(err, errQuiet) {
		showError(errOut, err, code, cmd.Flags().Changed("json"))
	}
	return code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "espalier",
		Short: "Search for the best pruned version of a neural network for every device",
		Long: `Espalier trains and prunes a neural network against the devices that must run it,
and keeps for each the Pareto front of accuracy, size and measured latency.

Start with:  espalier demo`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w; see `%s --help`", errUsage, err, cmd.CommandPath())
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	cobra.EnableCommandSorting = false
	for _, g := range commands {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, add := range g.add {
			cmd := add()
			cmd.GroupID = g.title
			root.AddCommand(cmd)
		}
	}
	usageErrors(root)
	return root
}

// usageErrors makes wrong arguments of every command wrong use, not failure.
func usageErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return fmt.Errorf("%w: %w; see `%s --help`", errUsage, err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		usageErrors(sub)
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// root makes the tree of commands.
func (sh *shell) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyhole",
		Short: "Look inside a running process for a few minutes",
		Long: "Keyhole attaches a reviewed eBPF program to a function of a running process that nobody prepared for it, and shows the\n" +
			"function's arguments. Secrets are redacted in the kernel, every probe ends at its deadline, and each is on record first.",
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("keyhole {{.Version}}\n")
	root.SetOut(sh.stdout)
	root.SetErr(sh.stderr)
	root.PersistentFlags().StringVar(&sh.config, "config", "", "configuration `FILE` (KEYHOLE_CONFIG; default ~/.config/keyhole/client.yaml)")
	root.PersistentFlags().StringVar(&sh.controlPlane, "control-plane", "", "`ADDRESS` of the control plane (KEYHOLE_CONTROL_PLANE; default: that of the current context)")
	root.AddCommand(
		sh.devCommand(), sh.traceCommand(), sh.explainCommand(), sh.functionsCommand(), sh.sessionsCommand(), sh.stopCommand(), sh.nodesCommand(), sh.doctorCommand(),
		sh.auditCommand(), sh.policyCommand(), sh.contextCommand(),
	)
	return root
}

// version is that of the module, or the commit that the command was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return strings.Trim(info.Main.Version, "()")
}

// An output is the form that a command's answer is written in.
type output string

const (
	outputTable output = "table"
	outputJSON  output = "json"
)

// Set implements pflag.Value.
func (o *output) Set(text string) error {
	switch output(text) {
	case outputTable, outputJSON:
		*o = output(text)
		return nil
	}
	return errors.New("want table or json")
}

func (o *output) String() string { return string(*o) }

// Type implements pflag.Value.
func (o *output) Type() string { return "table|json" }

func outputFlag(cmd *cobra.Command) *output {
	o := outputTable
	cmd.Flags().VarP(&o, "output", "o", "form of the answer; json: one object a line")
	return &o
}

// arguments checks how many there are, and says what they should be.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if n := len(args); n < least || n > most {
			return invalid("%d arguments; usage: %s", n, cmd.UseLine())
		}
		return nil
	}
}

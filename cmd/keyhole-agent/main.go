// SPDX-License-Identifier: Apache-2.0

// Command keyhole-agent runs the agent of one node. The process that is started becomes keyhole-monitor, which holds the
// privileges and has no network; it starts keyhole-agent, which has the network and no privilege.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/keyhole-dev/keyhole/agent"
	"github.com/keyhole-dev/keyhole/agent/privsep"
)

func main() {
	privsep.Main(privsep.Roles{Agent: agent.Role})
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "keyhole-agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var c agent.Config
	cmd := &cobra.Command{
		Use:   "keyhole-agent --control-plane HOST:PORT --node NAME --dir DIR --ca FILE --cert FILE --key FILE --grant-key FILE --log-key FILE",
		Short: "Carry out probes on this node",
		Long: `keyhole-agent carries out on this node what the control plane grants, within the node's own ceiling. It listens nowhere.

It needs root, and of root's capabilities BPF, PERFMON, SYS_PTRACE and DAC_READ_SEARCH, which only its parent process
keeps. Telemetry is exported as the standard OTEL_* variables say, and nowhere without them.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			options, err := resolve(&c)
			if err != nil {
				return err
			}
			return privsep.BecomeMonitor(options)
		},
	}
	cmd.AddCommand(doctorCommand())
	f := cmd.Flags()
	f.StringVar(&c.ControlPlane, "control-plane", "", "address of the control plane, HOST:PORT")
	f.StringVar(&c.Node, "node", "", "this node's name, as its certificate says it")
	f.StringVar(&c.StateDir, "dir", "", "directory for the spool of audit records; only the agent writes there")
	f.StringVar(&c.CA, "ca", "", "file with the authorities that the control plane's certificate comes from (PEM)")
	f.StringVar(&c.Cert, "cert", "", "file with this node's certificate (PEM)")
	f.StringVar(&c.Key, "key", "", "file with its key (PEM)")
	f.StringVar(&c.GrantKeys, "grant-key", "", "file with the public keys whose grants are carried out (PEM)")
	f.StringVar(&c.LogKey, "log-key", "", "file with the public key of the audit log")
	f.StringVar(&c.Ceiling, "ceiling", "", "file with this node's own limits (YAML); without it the built-in ceiling holds")
	f.IntVar(&c.RingBytes, "ring-bytes", 0, "size of each session's ring buffer, a power of two; 0 is the default")
	perfEventsFlag(cmd, &c.PerfEvents)
	return cmd
}

func perfEventsFlag(cmd *cobra.Command, value *bool) {
	cmd.Flags().BoolVar(value, "perf-events", false, "take kernels without uprobe_multi links too (Linux 6.1 to 6.5): probes are perf events there")
}

// resolve makes the paths absolute: the processes that use them have a working directory of their own.
func resolve(c *agent.Config) (privsep.Options, error) {
	for _, path := range []*string{&c.StateDir, &c.CA, &c.Cert, &c.Key, &c.GrantKeys, &c.LogKey, &c.Ceiling} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return privsep.Options{}, err
		}
		*path = absolute
	}
	return c.Options()
}

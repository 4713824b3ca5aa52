// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/dev"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
)

// defaultListen is where `keyhole dev` listens if nothing else is said.
const defaultListen = "127.0.0.1:7423"

func (sh *shell) devCommand() *cobra.Command {
	c := dev.Config{Progress: sh.stderr}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a control plane and an agent on this machine",
		Long: "Dev runs all of Keyhole on one machine, with a development certificate authority and one user: a control plane, and an agent\n" +
			"that can probe every process. It needs root and Linux 6.6 or later. It prints `ready ADDRESS` when it takes sessions.\n" +
			"Ctrl-C detaches every session and ends it; its state stays in the directory for the next time.",
		Example: "  sudo keyhole dev\n  sudo keyhole dev --dir /tmp/keyhole --listen 127.0.0.1:0 --redaction rules.yaml",
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&c.Dir, "dir", "", "`DIRECTORY` for its state and DIRECTORY/client.yaml (default ~/.local/state/keyhole, and the context goes to the default configuration file too)")
	f.StringVar(&c.Listen, "listen", defaultListen, "`ADDRESS` of the control plane; port 0 takes any")
	f.StringVar(&c.Redaction, "redaction", "", "`FILE` with the owner's redaction rules")
	f.StringVar(&c.Ceiling, "ceiling", "", "`FILE` with this node's own limits; without it the built-in ceiling holds")
	f.StringVar(&c.Node, "node", "dev", "`NAME` of this machine as a node")
	f.BoolVar(&c.PerfEvents, "perf-events", false, "take kernels without uprobe_multi links too (Linux 6.1 to 6.5): probes are perf events there")
	f.IntVar(&c.RingBytes, "ring-bytes", 0, "`SIZE` of each session's ring buffer, a power of two (default: the agent's)")
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		environment := ""
		if c.Dir == "" {
			if err := sh.ownPlace(&c); err != nil {
				return err
			}
		} else {
			absolute, err := filepath.Abs(c.Dir)
			if err != nil {
				return err
			}
			environment = "export KEYHOLE_CONFIG=" + filepath.Join(absolute, dev.ConfigFile)
		}
		c.Logger = slog.New(slog.NewTextHandler(sh.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		c.Ready = func(address string) {
			// A program that waits for this line may be gone; a person reads the others.
			_ = sh.err.Print(welcome(address, environment)...)
			fmt.Fprintln(sh.stdout, "ready", address)
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		return dev.Run(ctx, c)
	})
	return cmd
}

// ownPlace chooses the directory, and the configuration file that every command reads.
func (sh *shell) ownPlace(c *dev.Config) error {
	state := sh.variable("XDG_STATE_HOME")
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return invalid("%v: say --dir DIRECTORY", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	c.Dir = filepath.Join(state, "keyhole")
	config, _, err := sh.configPath()
	if err != nil {
		return invalid("%v: say --dir DIRECTORY", err)
	}
	c.Configs = []string{config}
	return nil
}

func welcome(address, environment string) []table.Line {
	lines := []table.Line{
		{{Text: "Keyhole runs on this machine.", Style: table.Bold}, table.Text(" The control plane listens on " + address + "; Ctrl-C detaches everything and ends it.")},
		{table.Text("In another terminal, as root:")},
	}
	if environment != "" {
		lines = append(lines, table.Line{table.Text("  " + environment)})
	}
	return append(lines,
		table.Line{table.Text("  keyhole functions pid/N            "), {Text: "what can be probed in a process", Style: table.Dim}},
		table.Line{table.Text("  keyhole explain pid/N FUNCTION     "), {Text: "what would be read and what withheld; attaches nothing", Style: table.Dim}},
		table.Line{table.Text("  keyhole trace pid/N FUNCTION       "), {Text: "see its calls", Style: table.Dim}},
	)
}

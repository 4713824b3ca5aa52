// SPDX-License-Identifier: Apache-2.0

// Command keyhole-controlplane is what requesters and agents talk to: it authorizes, puts on record, signs grants, and
// passes live copies of events on. It needs no privilege.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/keyhole-dev/keyhole/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "keyhole-controlplane:", err)
		stop()
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var c controlplane.Config
	cmd := &cobra.Command{
		Use:   "keyhole-controlplane --dir DIR --ca FILE --cert FILE --key FILE",
		Short: "Authorize probes, keep them on record, and grant them to nodes",
		Long: `keyhole-controlplane listens on one port for requesters and agents, over mutual TLS 1.3 alone. Its state (embedded etcd, the
audit log, the keys that grants and the log are signed with) is in its directory, which only it may read.

Agents pin DIR/keys/grant-keys.pem and DIR/keys/log.key.pub. Copies of audit records are exported as the standard OTEL_*
variables say, and nowhere without them.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			c.Ready = func(address string) { c.Logger.Info("ready", "address", address) }
			return controlplane.Run(cmd.Context(), c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Listen, "listen", "127.0.0.1:7423", "address to listen on, HOST:PORT")
	f.StringVar(&c.StateDir, "dir", "", "directory for its state")
	f.StringVar(&c.CA, "ca", "", "file with the authorities that certificates come from (PEM)")
	f.StringVar(&c.Cert, "cert", "", "file with the control plane's certificate (PEM)")
	f.StringVar(&c.Key, "key", "", "file with its key (PEM)")
	f.StringVar(&c.Redaction, "redaction", "", "file with redaction rules (YAML); the shipped ones hold in any case")
	for _, name := range []string{"dir", "ca", "cert", "key"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a flag that is not defined above
		}
	}
	return cmd
}

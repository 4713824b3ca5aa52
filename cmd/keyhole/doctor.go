// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/view"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func (sh *shell) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor [NODE...]",
		Short: "Say what each node can do, what it cannot, and what would change it",
		Long: `Say in plain words what each node can do, what it cannot and why, and what would change it, as its agent found out when it
started, by attaching to processes of its own. On the node itself, keyhole-agent doctor says it without a control plane.`,
	}
	form := outputFlag(cmd)
	cmd.RunE = sh.call(func(ctx context.Context, c *client.Client, names []string) error {
		r, err := c.Probe.ListNodes(ctx, &keyholev1.ListNodesRequest{})
		if err != nil {
			return err
		}
		nodes := r.GetNodes()
		for _, name := range names {
			if !slices.ContainsFunc(nodes, func(n *keyholev1.Node) bool { return n.GetName() == name }) {
				return problem.New(problem.NotFound, "no node %q is connected: keyhole nodes lists those that are", name)
			}
		}
		if len(names) > 0 {
			nodes = slices.DeleteFunc(nodes, func(n *keyholev1.Node) bool { return !slices.Contains(names, n.GetName()) })
		}
		return answer(sh, *form, nodes, func() []table.Line { return view.Doctor(nodes) }, "no node has connected yet")
	})
	return cmd
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/view"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// call makes a command's function one that has a connection and the time of an ordinary call.
func (sh *shell) call(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return run(func(cmd *cobra.Command, args []string) error {
		c, err := sh.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), callTime)
		defer cancel()
		return f(ctx, c, args)
	})
}

// answer writes a list: one object a line, or a table; of an empty list the table says so on standard error.
func answer[M proto.Message](sh *shell, form output, list []M, lines func() []table.Line, none string) error {
	if form == outputJSON {
		for _, m := range list {
			if err := sh.writeJSON(m); err != nil {
				return err
			}
		}
		return nil
	}
	if len(list) == 0 {
		return sh.err.Print(table.Line{table.Text(none)})
	}
	return sh.out.Print(lines()...)
}

func (sh *shell) sessionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List, show and watch sessions",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sh.sessionsListCommand(), sh.sessionsShowCommand(), sh.sessionsWatchCommand())
	return cmd
}

func (sh *shell) sessionsListCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the sessions that go on",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&all, "all", false, "those that have ended too, as long as they are kept")
	form := outputFlag(cmd)
	cmd.RunE = sh.call(func(ctx context.Context, c *client.Client, _ []string) error {
		r, err := c.Probe.ListSessions(ctx, &keyholev1.ListSessionsRequest{All: all})
		if err != nil {
			return err
		}
		return answer(sh, *form, r.GetSessions(), func() []table.Line { return view.Sessions(r.GetSessions(), time.Now()) }, "no sessions")
	})
	return cmd
}

func (sh *shell) sessionsShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show all that is known of a session",
		Args:  arguments(1, 1),
	}
	form := outputFlag(cmd)
	cmd.RunE = sh.call(func(ctx context.Context, c *client.Client, args []string) error {
		r, err := c.Probe.GetSession(ctx, &keyholev1.GetSessionRequest{SessionId: args[0]})
		if err != nil {
			return err
		}
		if *form == outputJSON {
			return sh.writeJSON(r.GetSession())
		}
		return sh.out.Print(view.Session(r.GetSession(), time.Now())...)
	})
	return cmd
}

func (sh *shell) sessionsWatchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch ID",
		Short: "Show a session's events until it ends",
		Long:  "Watch shows the events of a session that somebody started. Ctrl-C stops watching; the session goes on.",
		Args:  arguments(1, 1),
	}
	form := outputFlag(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		c, err := sh.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		interrupts, stop := interruptions()
		defer stop()
		return sh.newFollower(c, &keyholev1.Session{Id: args[0]}, *form).follow(cmd.Context(), interrupts)
	})
	return cmd
}

func (sh *shell) stopCommand() *cobra.Command {
	var all bool
	var node string
	cmd := &cobra.Command{
		Use:     "stop ID | --all | --node NAME",
		Short:   "End sessions before their deadlines",
		Example: "  keyhole stop s-7f3k\n  keyhole stop --node web-3",
		Args:    arguments(0, 1),
	}
	cmd.Flags().BoolVar(&all, "all", false, "every session")
	cmd.Flags().StringVar(&node, "node", "", "every session on the node with this `NAME`")
	form := outputFlag(cmd)
	stop := sh.call(func(ctx context.Context, c *client.Client, args []string) error {
		request := &keyholev1.StopSessionRequest{}
		switch {
		case all:
			request.Which = &keyholev1.StopSessionRequest_All{All: true}
		case node != "":
			request.Which = &keyholev1.StopSessionRequest_Node{Node: node}
		default:
			request.Which = &keyholev1.StopSessionRequest_SessionId{SessionId: args[0]}
		}
		r, err := c.Probe.StopSession(ctx, request)
		if err != nil {
			return err
		}
		return answer(sh, *form, r.GetSessions(), func() []table.Line { return view.Stopped(r.GetSessions()) }, "no session went on: nothing was stopped")
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		said := len(args)
		for _, flag := range []bool{all, node != ""} {
			if flag {
				said++
			}
		}
		if said != 1 {
			return invalid("stop: want one of ID, --all and --node NAME; keyhole sessions ls lists what goes on")
		}
		return stop(cmd, args)
	}
	return cmd
}

func (sh *shell) nodesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes and what they can do",
		Args:  cobra.NoArgs,
	}
	form := outputFlag(cmd)
	cmd.RunE = sh.call(func(ctx context.Context, c *client.Client, _ []string) error {
		r, err := c.Probe.ListNodes(ctx, &keyholev1.ListNodesRequest{})
		if err != nil {
			return err
		}
		return answer(sh, *form, r.GetNodes(), func() []table.Line { return view.Nodes(r.GetNodes(), time.Now()) }, "no node has connected yet")
	})
	return cmd
}

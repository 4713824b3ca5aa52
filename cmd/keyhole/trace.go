// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/view"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func (sh *shell) traceCommand() *cobra.Command {
	var r request
	cmd := &cobra.Command{
		Use:   "trace TARGET FUNCTION",
		Short: "Show a function's calls as they happen",
		Long: "Trace puts a request on record, attaches a probe to the function and shows its calls until the deadline, the\n" +
			"limit, or Ctrl-C, which detaches; a second Ctrl-C leaves the session to its deadline.\n\n" +
			"TARGET is pid/N, exe/PATH or kernel. FUNCTION is found by suffix: Cart.Checkout finds main.(*Cart).Checkout; one of the\n" +
			"kernel's has its exact name, and has to be on the node's list.\n" +
			"With --count and --hist the kernel counts and no event leaves; a line a second says how much.",
		Example: "  keyhole trace pid/4711 Cart.Checkout --arg user.email --arg qty --where 'qty > 10' --for 30s --reason INC-4211",
		Args:    arguments(2, 4),
	}
	r.add(cmd)
	form := outputFlag(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		spec, err := r.spec(args)
		if err != nil {
			return err
		}
		if spec.Reason, err = sh.askReason(spec.Reason); err != nil {
			return err
		}
		if err := spec.Validate(); err != nil && spec.Limits.TTL <= probe.MaxTTL {
			return invalid("%v", err)
		}
		c, err := sh.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return sh.trace(cmd.Context(), c, &spec, *form)
	})
	return cmd
}

// trace runs one session to its end. Where the function is one of several, a person is asked which, once.
func (sh *shell) trace(ctx context.Context, c *client.Client, spec *probe.Spec, form output) error {
	interrupts, stop := interruptions()
	defer stop()
	err := sh.session(ctx, c, spec, form, interrupts)
	chosen, chooseErr := sh.chooseFunction(err)
	if chooseErr != nil || chosen == "" {
		return chooseErr
	}
	spec.Function = chosen
	return sh.session(ctx, c, spec, form, interrupts)
}

// session creates one and follows it.
func (sh *shell) session(ctx context.Context, c *client.Client, spec *probe.Spec, form output, interrupts <-chan struct{}) error {
	created, err := sh.create(ctx, c, spec)
	if err != nil {
		return err
	}
	f := sh.newFollower(c, created.GetSession(), form)
	f.owner = true
	err = f.follow(ctx, interrupts)
	if candidates := f.session.GetCandidates(); len(candidates) > 0 {
		if p := problem.Of(err); p != nil {
			return &problem.Error{Code: p.Code, Message: p.Message, Candidates: candidates}
		}
	}
	return err
}

func (sh *shell) create(ctx context.Context, c *client.Client, spec *probe.Spec) (*keyholev1.CreateSessionResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return c.Probe.CreateSession(ctx, &keyholev1.CreateSessionRequest{Spec: wire.ToSpec(spec), RequestId: rand.Text()})
}

// chooseFunction asks a person which of several functions is meant, if that is what err is about. Empty: there is nothing to
// choose, and err stands.
func (sh *shell) chooseFunction(err error) (string, error) {
	p := problem.Of(err)
	if p == nil || p.Code != problem.InvalidArgument || len(p.Candidates) < 2 || !sh.isTerminal(sh.stdin) || !sh.isTerminal(sh.stderr) {
		return "", err
	}
	chosen, askErr := sh.choose(p.Message, p.Candidates)
	if askErr != nil || chosen == "" {
		return "", err
	}
	return chosen, nil
}

func (sh *shell) explainCommand() *cobra.Command {
	var r request
	cmd := &cobra.Command{
		Use:   "explain TARGET FUNCTION",
		Short: "Show what a trace would attach, read and withhold",
		Long: "Explain shows the plan of a trace with the same flags: where it would attach, what it would read from where, what would\n" +
			"leave the kernel as what and by which rule, and what cannot be read. It attaches nothing.",
		Example: "  keyhole explain pid/4711 Cart.Checkout --arg user.email --arg user.password",
		Args:    arguments(2, 4),
	}
	r.add(cmd)
	form := outputFlag(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		spec, err := r.spec(args)
		if err != nil {
			return err
		}
		if spec.Reason == "" {
			spec.Reason = sh.variable("KEYHOLE_REASON")
		}
		if spec.Reason == "" {
			spec.Reason = "explain" // nothing is attached, so nobody is asked why
		}
		c, err := sh.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		answer, err := sh.explain(cmd.Context(), c, &spec)
		if err != nil {
			return err
		}
		if *form == outputJSON {
			return sh.writeJSON(answer)
		}
		return sh.out.Print(view.Explain(answer)...)
	})
	return cmd
}

func (sh *shell) explain(ctx context.Context, c *client.Client, spec *probe.Spec) (*keyholev1.ExplainResponse, error) {
	ask := func() (*keyholev1.ExplainResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, questionTime)
		defer cancel()
		return c.Probe.Explain(ctx, &keyholev1.ExplainRequest{Spec: wire.ToSpec(spec)})
	}
	answer, err := ask()
	chosen, err := sh.chooseFunction(err)
	if err != nil || chosen == "" {
		return answer, err
	}
	spec.Function = chosen
	return ask()
}

func (sh *shell) functionsCommand() *cobra.Command {
	var node string
	var limit uint32
	cmd := &cobra.Command{
		Use:   "functions TARGET [PATTERN]",
		Short: "List the functions that can be probed",
		Long: "Functions lists what can be probed in a process, with parameters and types. PATTERN is a part of the name. The names\n" +
			"can be pasted behind trace and explain.",
		Example: "  keyhole functions exe/usr/bin/caddy ServeHTTP",
		Args:    arguments(1, 2),
	}
	cmd.Flags().StringVar(&node, "node", "", "`NAME` of the node; needed where there are several")
	cmd.Flags().Uint32Var(&limit, "limit", 100, "list at most `N`")
	form := outputFlag(cmd)
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		target, err := selector(args[0], node)
		if err != nil {
			return err
		}
		var pattern string
		if len(args) > 1 {
			pattern = args[1]
		}
		c, err := sh.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), questionTime)
		defer cancel()
		found, err := c.Probe.ListFunctions(ctx, &keyholev1.ListFunctionsRequest{Target: wire.ToSelector(target), Pattern: pattern, Limit: limit})
		if err != nil {
			return err
		}
		return sh.functions(found, pattern, *form)
	})
	return cmd
}

func (sh *shell) functions(found *keyholev1.ListFunctionsResponse, pattern string, form output) error {
	if len(found.GetFunctions()) == 0 {
		text := fmt.Sprintf("no function of %s has %q in its name", found.GetExecutable(), pattern)
		if found.GetStripped() {
			text += ": it is stripped of symbols and debug information; a build without -s and -w has them"
		}
		return problem.New(problem.NotFound, "%s", text)
	}
	if form == outputJSON {
		for _, f := range found.GetFunctions() {
			if err := sh.writeJSON(f); err != nil {
				return err
			}
		}
		return nil
	}
	if err := sh.out.Print(view.Functions(found)...); err != nil {
		return err
	}
	if more := int(found.GetMatched()) - len(found.GetFunctions()); more > 0 {
		return sh.err.Print(table.Line{table.Text(fmt.Sprintf("%d more: a longer PATTERN, or --limit, shows them", more))})
	}
	return nil
}

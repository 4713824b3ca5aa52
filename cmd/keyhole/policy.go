// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/view"
	"github.com/keyhole-dev/keyhole/internal/policy"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
)

func (sh *shell) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check and try redaction rules, without a control plane",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(sh.policyCheckCommand(), sh.policyTestCommand())
	return cmd
}

// policyFiles are the rules of the two sides, as files.
type policyFiles struct{ rules, ceiling, environment string }

func (p *policyFiles) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&p.rules, "file", "f", "", "`FILE` with the owner's rules (none: those that are shipped)")
	f.StringVar(&p.ceiling, "ceiling", "", "a node's ceiling `FILE`, whose rules only ever make stricter")
	f.StringVar(&p.environment, "environment", "", "the node's environment, in place of the one in its ceiling file: `NAME`, such as prod")
}

// ruleset reads the files.
func (p *policyFiles) ruleset() (*redact.Ruleset, *redact.Policy, error) {
	owner := new(redact.Policy)
	if p.rules != "" {
		data, err := os.ReadFile(p.rules)
		if err != nil {
			return nil, nil, invalid("--file: %v", err)
		}
		if owner, err = redact.ParsePolicy(data); err != nil {
			return nil, nil, invalid("%s: %v", p.rules, err)
		}
	}
	set, err := redact.Shipped().WithOwnerPolicy(owner)
	if err != nil {
		return nil, nil, invalid("%s: %v", p.rules, err)
	}
	ceiling, err := policy.Load(p.ceiling)
	if err != nil {
		return nil, nil, invalid("--ceiling: %v", err)
	}
	if p.environment != "" {
		if err := redact.ValidEnvironment(p.environment); err != nil {
			return nil, nil, invalid("--environment: %v", err)
		}
		ceiling.Environment = p.environment
	}
	if set, err = ceiling.Ruleset(set); err != nil {
		return nil, nil, invalid("--ceiling %s: %v", p.ceiling, err)
	}
	return set, owner, nil
}

func (sh *shell) policyCheckCommand() *cobra.Command {
	var files policyFiles
	cmd := &cobra.Command{
		Use:   "check -f FILE",
		Short: "Say whether a file of redaction rules is right",
		Long: `Say whether a file of redaction rules is right: its form, its patterns, and whether it goes together with a node's ceiling. What is wrong is
said with its line, and the status is 2. Rules that cannot mean what they say are named on standard error.`,
		Example: "  keyhole policy check -f rules.yaml --ceiling ceiling.yaml",
		Args:    arguments(0, 0),
	}
	files.flags(cmd)
	cmd.RunE = run(func(*cobra.Command, []string) error {
		if files.rules == "" {
			return invalid("say which file: -f rules.yaml")
		}
		set, owner, err := files.ruleset()
		if err != nil {
			return err
		}
		for _, w := range owner.Warnings() {
			if err := sh.err.Print(table.Line{table.Text("keyhole: warning: " + w)}); err != nil {
				return err
			}
		}
		return sh.out.Print(table.Line{table.Text(fmt.Sprintf("%s: %d rules, %d sets, policy %s", files.rules, len(owner.Rules), len(owner.Patterns), set.Digest()))})
	})
	return cmd
}

func (sh *shell) policyTestCommand() *cobra.Command {
	var files policyFiles
	var tests string
	var sample redact.Sample
	cmd := &cobra.Command{
		Use:   "test [-f FILE] [--tests FILE] [PATH[:TYPE]=VALUE...]",
		Short: "Try redaction rules on values: what leaves, and which rule decides",
		Long: `Try redaction rules on values, as the kernel would redact them: for each the action, what leaves of the value, and the rule that decided.
Values are given as arguments, or in a file with what must become of them; if one of these is decided otherwise the status is 10.`,
		Example: "  keyhole policy test -f rules.yaml user.email=ana@example.org total:int64=4200000000\n" +
			"  keyhole policy test -f rules.yaml --environment prod --tests rules_test.yaml",
	}
	files.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&tests, "tests", "", "`FILE` with values and what must become of them")
	f.StringVar(&sample.Function, "function", "", "the `FUNCTION` that the values given as arguments belong to")
	f.StringVar(&sample.Executable, "executable", "", "the `PATH` of its program")
	f.StringVar(&sample.Workload, "workload", "", "what runs the program: `NAME`, such as unit/shop.service")
	form := outputFlag(cmd)
	cmd.RunE = run(func(_ *cobra.Command, args []string) error {
		set, _, err := files.ruleset()
		if err != nil {
			return err
		}
		var samples []redact.Sample
		if tests != "" {
			data, err := os.ReadFile(tests)
			if err != nil {
				return invalid("--tests: %v", err)
			}
			if samples, err = redact.ParseSamples(data); err != nil {
				return invalid("%s: %v", tests, err)
			}
		}
		for _, arg := range args {
			s, err := redact.ParseSample(arg)
			if err != nil {
				return invalid("%v", err)
			}
			s.Function, s.Executable, s.Workload = sample.Function, sample.Executable, sample.Workload
			samples = append(samples, s)
		}
		if len(samples) == 0 {
			return invalid("no values: give some as PATH=VALUE, or a file with --tests")
		}
		return sh.tryPolicy(set, samples, *form)
	})
	return cmd
}

func (sh *shell) tryPolicy(set *redact.Ruleset, samples []redact.Sample, form output) error {
	wrong := 0
	outcomes := make([]redact.Outcome, 0, len(samples))
	for _, s := range samples {
		o, err := set.Try(s)
		if err != nil {
			return invalid("%s: %v", s.Path, err)
		}
		if o.Wrong != "" {
			wrong++
		}
		outcomes = append(outcomes, o)
	}
	if form == outputJSON {
		e := json.NewEncoder(sh.stdout)
		for _, o := range outcomes {
			if err := e.Encode(o); err != nil {
				return err
			}
		}
	} else if err := sh.out.Print(view.Outcomes(outcomes)...); err != nil {
		return err
	}
	if wrong > 0 {
		return &assertion{problem.New(problem.FailedPrecondition, "%d of %d values are decided otherwise than wanted", wrong, len(samples))}
	}
	return nil
}

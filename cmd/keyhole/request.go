// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/probe"
)

// A request is the flags that trace and explain share.
type request struct {
	arguments  []string
	results    []string
	slowerThan time.Duration
	errors     string
	redact     []string
	where      string
	sample     string
	rate       string
	maxHits    uint64
	ttl        time.Duration
	reason     string
	node       string
	valueBytes uint32
	maxBytes   uint64
	budget     string
	duty       string
	count      bool
	hist       string
	stack      bool
}

// add defines the flags on a command.
func (r *request) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&r.arguments, "arg", nil, "`PATH` of a value to capture, such as qty or c.user.email; repeatable (default: every parameter)")
	f.StringArrayVar(&r.results, "ret", nil, "`PATH` of a result to capture, such as err or r0 (the first without a name), with the time that the call took; "+
		"duration for the time alone; repeatable")
	f.DurationVar(&r.slowerThan, "slower-than", 0, "show only calls that took this `TIME` or more")
	f.StringVar(&r.errors, "errors-only", "", "show only calls that failed, `WHICH` says how: errors, by an error that is not nil or, without one, a negative result; nonzero, by a result that is not 0")
	f.Lookup("errors-only").NoOptDefVal = string(probe.ErrorsOnly)
	f.BoolVar(&r.stack, "stack", false, "show the callers of each call, by name, with those that were inlined")
	f.StringArrayVar(&r.redact, "redact", nil, "`PATH=ACTION`: redact more strictly than policy does, by drop, length, digest, suffix:N, prefix:N, bucket, detect:SET or allow:SET; repeatable")
	f.BoolVar(&r.count, "count", false, "count calls in the kernel and show no event; `by PATH` behind it counts them by a value")
	f.StringVar(&r.hist, "hist", "", "show the histogram of the number at `PATH`, or of how long calls take (duration), counted in the kernel, and no event")
	f.StringVar(&r.where, "where", "", "`CONDITION` that a call must meet, such as 'qty > 10 && sku == \"A\"'")
	f.StringVar(&r.sample, "sample", "", "look at one call of so many, such as `1/10`")
	f.StringVar(&r.rate, "rate", "", fmt.Sprintf("show at most so many calls a second, such as `10/s` (default %d/s)", probe.DefaultRate))
	f.Uint64Var(&r.maxHits, "max-hits", 0, "end after `N` events")
	f.DurationVar(&r.ttl, "for", probe.DefaultTTL, "end after this `TIME`; policy sets the most")
	f.StringVar(&r.reason, "reason", "", "`TEXT` that goes on record (KEYHOLE_REASON)")
	f.StringVar(&r.node, "node", "", "`NAME` of the node; needed where there are several")
	f.Uint32Var(&r.valueBytes, "value-bytes", probe.DefaultValueBytes, fmt.Sprintf("`N` bytes of one string, at most %d", probe.MaxValueBytes))
	f.StringVar(&r.budget, "budget", "", fmt.Sprintf("take at most this `SHARE` of a core from the process, such as 0.5%% (default %v)", probe.Budget(probe.DefaultBudget)))
	f.StringVar(&r.duty, "duty", "", "attach for this `SHARE` of each second only, such as 20%")
	f.Uint64Var(&r.maxBytes, "max-bytes", probe.DefaultMaxBytes, "`N` bytes of events in all")
}

// spec reads the flags and arguments of a command. The reason may still be missing.
func (r *request) spec(args []string) (probe.Spec, error) {
	args, by, err := r.countedBy(args)
	if err != nil {
		return probe.Spec{}, err
	}
	s := probe.Spec{
		Function: args[1], Arguments: r.arguments, Where: r.where, Reason: r.reason,
		Results: r.results, SlowerThan: r.slowerThan, Errors: probe.Errors(r.errors), Stack: r.stack,
		Limits: probe.Limits{TTL: r.ttl, MaxHits: r.maxHits, ValueBytes: r.valueBytes, MaxBytes: r.maxBytes},
	}
	if err := r.aggregate(&s, by); err != nil {
		return s, err
	}
	if s.Target, err = selector(args[0], r.node); err != nil {
		return s, err
	}
	if r.ttl == 0 || r.valueBytes == 0 || r.maxBytes == 0 {
		return s, invalid("--for, --value-bytes and --max-bytes: 0 leaves nothing to show; leave the flag out for its default")
	}
	if r.rate != "" {
		if s.Limits.Rate, err = probe.ParseRate(r.rate); err != nil {
			return s, invalid("%v", err)
		}
	}
	if r.sample != "" {
		if s.Limits.Sample, err = probe.ParseSample(r.sample); err != nil {
			return s, invalid("%v", err)
		}
	}
	if r.budget != "" {
		if s.Limits.Budget, err = probe.ParseBudget(r.budget); err != nil {
			return s, invalid("%v", err)
		}
	}
	if r.duty != "" {
		if s.Limits.Duty, err = probe.ParseDuty(r.duty); err != nil {
			return s, invalid("%v", err)
		}
	}
	for _, text := range r.redact {
		path, action, found := strings.Cut(text, "=")
		if !found {
			return s, invalid("--redact %.64q: want PATH=ACTION, such as user.email=digest", text)
		}
		s.Redact = append(s.Redact, probe.Redaction{Path: path, Action: action})
	}
	// How long is long enough is for the control plane and the node to say, and for the record.
	checked := s
	checked.Limits.TTL = min(s.Limits.TTL, probe.MaxTTL)
	if checked.Reason == "" {
		checked.Reason = "to be asked"
	}
	if err := checked.Validate(); err != nil {
		return s, invalid("%v", err)
	}
	return s.WithDefaults(), nil
}

// countedBy takes `by PATH` out of the arguments, wherever a person put it.
func (r *request) countedBy(args []string) (rest []string, path string, err error) {
	if r.count && len(args) == 4 {
		if i := slices.Index(args[:3], "by"); i >= 0 {
			return slices.Concat(args[:i], args[i+2:]), args[i+1], nil
		}
	}
	if len(args) != 2 {
		return nil, "", invalid("want TARGET and FUNCTION, and behind --count perhaps `by PATH`, not %d arguments", len(args))
	}
	return args, "", nil
}

// aggregate fills in what is counted, if anything is.
func (r *request) aggregate(s *probe.Spec, by string) error {
	switch {
	case r.count && r.hist != "":
		return invalid("--count and --hist: give one of them")
	case (r.count || r.hist != "") && len(r.arguments) > 0:
		return invalid("--arg: no event leaves with --count or --hist; --count by PATH counts by a value")
	case (r.count || r.hist != "") && r.rate != "":
		return invalid("--rate: no event leaves with --count or --hist")
	case r.hist == probe.Duration:
		s.Aggregate = probe.AggregateDurations
	case r.hist != "":
		s.Aggregate, s.Arguments = probe.AggregateHistogram, []string{r.hist}
	case by != "":
		s.Aggregate, s.Arguments = probe.AggregateGroups, []string{by}
	case r.count:
		s.Aggregate = probe.AggregateCount
	}
	return nil
}

func selector(target, node string) (probe.Selector, error) {
	s, err := probe.ParseTarget(target)
	if err == nil {
		s.Node = node
		err = s.Validate()
	}
	if err != nil {
		return s, invalid("%v", err)
	}
	return s, nil
}

// askReason returns why: --reason, KEYHOLE_REASON, or what a person answers.
func (sh *shell) askReason(said string) (string, error) {
	if said == "" {
		said = sh.variable("KEYHOLE_REASON")
	}
	if said != "" {
		return said, nil
	}
	if !sh.isTerminal(sh.stdin) || !sh.isTerminal(sh.stderr) {
		return "", invalid("--reason: missing; say why, it goes on record (or set KEYHOLE_REASON)")
	}
	answer, err := sh.ask("Why? This goes on record: ")
	if err == nil && answer == "" {
		return "", invalid("--reason: missing; nothing was attached")
	}
	return answer, err
}

// ask asks a person for one line.
func (sh *shell) ask(question string) (string, error) {
	if _, err := io.WriteString(sh.stderr, question); err != nil {
		return "", err
	}
	text, err := bufio.NewReader(sh.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read answer: %w", err)
	}
	return strings.TrimSpace(text), nil
}

// choose asks a person which of several functions is meant; empty if none.
func (sh *shell) choose(question string, candidates []string) (string, error) {
	lines := []table.Line{{table.Text(question)}}
	for i, c := range candidates {
		lines = append(lines, table.Line{table.Text(fmt.Sprintf("  %2d  %s", i+1, c))})
	}
	if err := sh.err.Print(lines...); err != nil {
		return "", err
	}
	answer, err := sh.ask("Which? ")
	if err != nil {
		return "", err
	}
	if n, err := strconv.Atoi(answer); err == nil && n >= 1 && n <= len(candidates) {
		return candidates[n-1], nil
	}
	return "", nil
}

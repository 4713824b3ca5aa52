// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// aggregates refuses what cannot be counted by, or must not be: whoever sees in which group a call is sees its value.
func (c *compiler) aggregates() error {
	flag := "--count by"
	switch c.spec.Aggregate {
	case probe.AggregateNone, probe.AggregateCount, probe.AggregateDurations:
		return nil
	case probe.AggregateHistogram:
		flag = "--hist"
	}
	path := c.spec.Arguments[0]
	if len(c.plan.Fields) != 1 {
		return problem.New(problem.InvalidArgument, "%s %s: that is %d values; name one of them", flag, path, len(c.plan.Fields))
	}
	f := &c.plan.Fields[0]
	switch {
	case !countable(f):
		return problem.New(problem.InvalidArgument, "%s %s: %s is redacted (%s, rule %s), and the counts would tell what is withheld; "+
			"count by another value, or ask the rules' owner to keep the field", flag, path, f.Path, f.Action, f.Rule)
	case f.Missing != "":
		return problem.New(problem.FailedPrecondition, "%s %s: it cannot be read: %s", flag, path, strings.TrimRight(f.Missing+": "+f.Detail, ": "))
	case c.spec.Aggregate == probe.AggregateHistogram && !isInteger(f.Kind):
		return problem.New(problem.InvalidArgument, "%s %s: it is a %s; only integers and lengths have a histogram", flag, path, f.TypeName)
	}
	return nil
}

// countable says whether counts by a field tell no more than its values would: numbers are counted as they leave.
func countable(f *Field) bool {
	a, err := redact.ParseAction(f.Action)
	return err == nil && (a.Kind == redact.Keep || a.Kind == redact.Bucket)
}

func isInteger(k target.Kind) bool {
	return k == target.KindInt || k == target.KindUint || k == target.KindLength
}

// verifyAggregate proves that nothing is counted by a value that may not leave, and that a value fits a group's key.
func (p *Plan) verifyAggregate() error {
	fields := 1
	switch p.Aggregate {
	case probe.AggregateNone:
		return nil
	case probe.AggregateCount, probe.AggregateDurations:
		fields = 0
	case probe.AggregateGroups, probe.AggregateHistogram:
	default:
		return fmt.Errorf("unknown aggregate %q", p.Aggregate)
	}
	switch {
	case p.Returns != nil && p.Aggregate != probe.AggregateDurations:
		return errors.New("counts calls where they return")
	case p.Aggregate == probe.AggregateDurations && (p.Returns == nil || len(p.Returns.Results) > 0):
		return errors.New("counts how long calls take, and does not see their returns, or sees more")
	case len(p.Fields) != fields || p.Goroutine:
		return fmt.Errorf("counts by %d values, with the goroutine: %v", len(p.Fields), p.Goroutine)
	case fields == 0:
		if p.IfEnd != p.EntryEnd() || p.Returns != nil && p.Returns.IfEnd != len(p.Ops) {
			return errors.New("reads more than the conditions need")
		}
		return nil
	}
	f := &p.Fields[0]
	switch {
	case !countable(f) || !f.Emits:
		return fmt.Errorf("counts by %s, which does not leave as it is (%s)", f.Path, f.Action)
	case f.MaxBytes > maxGroup:
		return fmt.Errorf("counts by %d bytes of %s", f.MaxBytes, f.Path)
	case p.Aggregate == probe.AggregateHistogram && !isInteger(f.Kind):
		return fmt.Errorf("counts the %s %s as a number", f.Kind, f.Path)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// TestAggregates compiles requests to count, and refuses those whose counts would tell what is withheld.
func TestAggregates(t *testing.T) {
	gone := value("gone", target.KindInt, "int", 8, target.Location{})
	gone.Missing = event.OptimizedOut
	for _, c := range []struct {
		name   string
		kind   probe.Aggregate
		values []target.Value
		redact string
		code   string
		says   string
	}{
		{name: "count", kind: probe.AggregateCount, values: []target.Value{text("password", in(rcx), in(rdi)), value("qty", target.KindInt, "int", 8, in(rbx))}},
		{name: "by a number", kind: probe.AggregateGroups, values: []target.Value{value("qty", target.KindInt, "int", 8, in(rbx))}},
		{name: "by a string that is kept", kind: probe.AggregateGroups, values: []target.Value{text("kept", in(rcx), in(rdi))}},
		{name: "histogram of a length", kind: probe.AggregateHistogram, values: []target.Value{value("items", target.KindLength, "[]int", 8, in(rbx))}},
		{"by a digest", probe.AggregateGroups, []target.Value{text("sku", in(rcx), in(rdi))}, "", problem.InvalidArgument, "is redacted (detect:all, rule default/string)"},
		{"by a secret", probe.AggregateGroups, []target.Value{text("password", in(rcx), in(rdi))}, "", problem.InvalidArgument, "names/secret"},
		{"by what the requester redacts", probe.AggregateHistogram, []target.Value{value("qty", target.KindInt, "int", 8, in(rbx))}, "drop", problem.InvalidArgument, "--hist qty"},
		{"by what cannot be read", probe.AggregateGroups, []target.Value{gone}, "", problem.FailedPrecondition, event.OptimizedOut},
		{"histogram of a string", probe.AggregateHistogram, []target.Value{text("kept", in(rcx), in(rdi))}, "", problem.InvalidArgument, "only integers"},
		{"by two values", probe.AggregateGroups, []target.Value{value("p.x", target.KindInt, "int", 8, in(rbx)), value("p.y", target.KindInt, "int", 8, in(rcx))}, "",
			problem.InvalidArgument, "2 values"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := request("")
			if s.Aggregate = c.kind; c.kind != probe.AggregateCount {
				s.Arguments = []string{strings.TrimSuffix(c.values[0].Path, ".x")}
			}
			if c.redact != "" {
				s.Redact = []probe.Redaction{{Path: s.Arguments[0], Action: c.redact}}
			}
			p, err := plan.Compile(s, checkout(c.values...), rules(t, "  - {name: kept, action: keep}\n"))
			if c.says != "" {
				wrong, ok := errors.AsType[*problem.Error](err)
				if !ok || wrong.Code != c.code || !strings.Contains(wrong.Message, c.says) {
					t.Errorf("got %v, want %s that says %q", err, c.code, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if fields := min(len(s.Arguments), 1); len(p.Fields) != fields || p.Goroutine || fields == 0 && len(p.Ops) > 0 {
				t.Errorf("it reads\n%s", p.Listing())
			}
			for name, weaken := range map[string]func(*plan.Plan){
				"a kind that is none": func(p *plan.Plan) { p.Aggregate = "sum" },
				"the goroutine":       func(p *plan.Plan) { p.Goroutine = true },
				"a value more": func(p *plan.Plan) {
					p.Fields = append(p.Fields, plan.Field{Path: "x", Action: "drop", Rule: "r", Missing: event.Redacted})
				},
				"the value's redaction": func(p *plan.Plan) { p.Fields[0].Action = "digest" },
				"the value's length":    func(p *plan.Plan) { p.Fields[0].MaxBytes = 65 },
				"another op":            func(p *plan.Plan) { p.Ops = append(p.Ops, plan.Op{Code: plan.OpReg, Dst: 1}) },
			} {
				weak := clone(t, p)
				if len(weak.Fields) == 0 && strings.HasPrefix(name, "the value") {
					continue
				}
				weaken(weak)
				if weak.Verify() == nil {
					t.Errorf("%s: it verifies", name)
				}
			}
		})
	}
}

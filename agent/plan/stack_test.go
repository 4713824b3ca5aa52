// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// asking is a request for the callers of checkout.
func asking(t *testing.T) (*probe.Spec, *target.Target) {
	t.Helper()
	spec := request("", "qty")
	spec.Stack = true
	tgt := checkout(value("qty", target.KindInt, "int", 8, in(r8)))
	tgt.Stack = &target.Stack{Modules: []target.Module{{Name: "shop", Start: 0x400000, End: 0x600000, Own: true}}}
	return spec, tgt
}

func TestStack(t *testing.T) {
	spec, tgt := asking(t)
	p := compile(t, spec, tgt, redact.Shipped())
	without := request("", "qty")
	bare := checkout(tgt.Values...)
	q := compile(t, without, bare, redact.Shipped())
	if p.Digest() == q.Digest() || p.MaxRecordBytes() != q.MaxRecordBytes()+plan.ValueHeaderBytes+plan.MaxCallers*plan.AddressBytes ||
		p.MaxWaitingBytes() != q.MaxWaitingBytes() {
		t.Errorf("records of %d bytes with callers, %d without", p.MaxRecordBytes(), q.MaxRecordBytes())
	}
	if !strings.Contains(p.Listing(), "at most 64 callers") {
		t.Error(p.Listing())
	}
	if _, err := plan.Compile(without, tgt, redact.Shipped()); err == nil || !strings.Contains(err.Error(), "otherwise than asked") {
		t.Errorf("callers that nobody asked for: %v", err)
	}
	if _, err := plan.Compile(spec, bare, redact.Shipped()); err == nil || !strings.Contains(err.Error(), "otherwise than asked") {
		t.Errorf("no callers: %v", err)
	}
}

func TestVerifyRefusesStacks(t *testing.T) {
	spec, tgt := asking(t)
	good := compile(t, spec, tgt, redact.Shipped())
	for what, c := range map[string]struct {
		change func(*plan.Plan)
		says   string
	}{
		"none":            {func(p *plan.Plan) { p.Stack.Callers = 0 }, "out of bounds"},
		"too many":        {func(p *plan.Plan) { p.Stack.Callers = plan.MaxCallers + 1 }, "out of bounds"},
		"too many places": {func(p *plan.Plan) { p.Stack.Modules = make([]target.Module, target.MaxModules+1) }, "out of bounds"},
		"of a count": {func(p *plan.Plan) {
			p.Aggregate, p.Fields, p.Ops, p.Goroutine = probe.AggregateCount, nil, nil, false
		}, "not emitted"},
	} {
		p := clone(t, good)
		c.change(p)
		if err := p.Verify(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

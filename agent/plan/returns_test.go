// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// returning is a request for calls of checkout that failed, with three results, of which one is a secret.
func returning() (*probe.Spec, *target.Target) {
	spec := request("", "qty")
	spec.Results = []string{"order", "token", "err", probe.Duration}
	spec.Errors, spec.SlowerThan = probe.ErrorsOnly, 50*time.Millisecond
	tgt := checkout(value("qty", target.KindInt, "int", 8, in(r8)))
	tgt.Sites = append(tgt.Sites, target.Site{
		Address: 0x49f9a0, FileOffset: 0x9f9a0, RuntimeAddress: 0x49f9a0, Bytes: []byte{0xc3}, Where: "return +0x120", Return: true,
	})
	failed := value("err", target.KindError, "error", 8, in(rdi))
	tgt.Returns = &target.Returns{
		By: target.ByGoroutine, GoidOffset: 0x98, Failed: &failed,
		Values: []target.Value{
			value("order", target.KindInt, "int64", 8, in(rax)), text("token", in(rbx), in(rcx)), failed,
		},
	}
	return spec, tgt
}

func TestReturnsListing(t *testing.T) {
	spec, tgt := returning()
	p := compile(t, spec, tgt, redact.Shipped())
	golden(t, "returns.listing", p.Listing())
	if got := p.Reads(3); got != "rdi" {
		t.Errorf("err is read from %q", got)
	}
	if p.Returns.Results[1].Missing != event.Redacted {
		t.Errorf("a token leaves: %+v", p.Returns.Results[1])
	}
}

// TestVerifyRefusesReturns changes a good plan in one thing.
func TestVerifyRefusesReturns(t *testing.T) {
	spec, tgt := returning()
	good := compile(t, spec, tgt, redact.Shipped())
	start := good.Returns.Start
	for what, c := range map[string]struct {
		change func(*plan.Plan)
		says   string
	}{
		"no return":                  {func(p *plan.Plan) { p.Sites = p.Sites[:1] }, "no site is a return"},
		"returns alone":              {func(p *plan.Plan) { p.Sites = p.Sites[1:] }, "no site is an entry"},
		"a return, and no pairs":     {func(p *plan.Plan) { p.Returns = nil }, "nothing is paired"},
		"pairs of an unknown kind":   {func(p *plan.Plan) { p.Returns.By = "luck" }, "paired by"},
		"a number far away":          {func(p *plan.Plan) { p.Returns.GoidOffset = 1 << 20 }, "out of bounds"},
		"negative slowness":          {func(p *plan.Plan) { p.Returns.SlowerThan = -1 }, "out of bounds"},
		"a return before the entry":  {func(p *plan.Plan) { p.Returns.Start = -1 }, "out of bounds"},
		"a return behind the ops":    {func(p *plan.Plan) { p.Returns.Start, p.Returns.IfEnd = 99, 99 }, "out of bounds"},
		"an entry's op at the end":   {func(p *plan.Plan) { p.Returns.Start-- }, "filled for nothing"},
		"a slot of the entry's":      {func(p *plan.Plan) { p.Ops = append(p.Ops[:start:start], p.Ops[start+1:]...); p.Returns.IfEnd-- }, "before it is filled"},
		"a result that was dropped":  {func(p *plan.Plan) { p.Returns.Results[1].Missing, p.Returns.Results[1].Emits = "", true }, "the action is drop"},
		"a result too many":          {func(p *plan.Plan) { p.Returns.Results = p.Returns.Results[:1] }, "no field stands for"},
		"a result less":              {func(p *plan.Plan) { p.Ops = p.Ops[:len(p.Ops)-4] }, "no op emits"},
		"text compared at a return":  {func(p *plan.Plan) { p.Ops[start+1].Code = plan.OpIfCStr }, "no memory is for it"},
		"a condition on a redaction": {func(p *plan.Plan) { p.Returns.Conditions[0].Action = "digest" }, "redacted"},
		"an address as an error":     {func(p *plan.Plan) { p.Ops[len(p.Ops)-1].Arg = 8 }, "as something else"},
	} {
		p := clone(t, good)
		c.change(p)
		if err := p.Verify(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestReturnsRefused(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*probe.Spec, *target.Target)
		says   string
	}{
		"not asked for": {func(s *probe.Spec, _ *target.Target) { s.Results, s.SlowerThan, s.Errors = nil, 0, "" }, "otherwise than asked"},
		"not answered":  {func(s *probe.Spec, _ *target.Target) { s.Results = append(s.Results, "more") }, "no value for more"},
		"not failing":   {func(s *probe.Spec, _ *target.Target) { s.Errors = "" }, "otherwise than asked"},
		"a redacted error": {func(s *probe.Spec, _ *target.Target) {
			s.Redact = []probe.Redaction{{Path: "err", Action: "drop"}}
		}, "--errors-only: the result err is redacted"},
		"an unsigned error": {func(_ *probe.Spec, t *target.Target) {
			t.Returns.Failed.Kind, t.Returns.Failed.TypeName = target.KindUint, "uint64"
		}, "never negative"},
	} {
		spec, tgt := returning()
		failed := *tgt.Returns.Failed
		tgt.Returns.Failed = &failed
		c.change(spec, tgt)
		if _, err := plan.Compile(spec, tgt, redact.Shipped()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

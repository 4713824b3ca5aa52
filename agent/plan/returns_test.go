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

// byKernel is a request for calls of a C function with one result, which the kernel's return probe sees.
func byKernel() (*probe.Spec, *target.Target) {
	spec, tgt := returning()
	spec.Results, spec.Errors = []string{"order"}, ""
	tgt.Identity.Language, tgt.GoroutineID = "c: GNU C17 12.2.0", nil
	end := tgt.Sites[0]
	end.Where, end.Return = "by the kernel's return probe", true
	tgt.Sites = append(tgt.Sites[:1], end)
	tgt.Returns = &target.Returns{By: target.ByThread, ByKernel: true, Values: tgt.Returns.Values[:1]}
	return spec, tgt
}

// TestKernelReturn: the kernel's return probe is at the entry, and never in a Go program, whoever forged the plan or the target.
func TestKernelReturn(t *testing.T) {
	spec, tgt := byKernel()
	good := compile(t, spec, tgt, redact.Shipped())
	if !strings.Contains(good.Listing(), "which the kernel's return probe sees, by thread") {
		t.Errorf("listing:\n%s", good.Listing())
	}
	other := clone(t, good)
	other.Returns.ByKernel = false
	if other.Digest() == good.Digest() {
		t.Error("the digest does not say how returns are seen")
	}
	for what, c := range map[string]struct {
		change func(id *target.Identity, sites *[]target.Site, by *target.Pairing)
		says   string
	}{
		"a Go program":         {func(id *target.Identity, _ *[]target.Site, _ *target.Pairing) { id.Language = "go1.26.8" }, "Go program"},
		"goroutines":           {func(_ *target.Identity, _ *[]target.Site, by *target.Pairing) { *by = target.ByGoroutine }, "threads"},
		"another place":        {func(_ *target.Identity, s *[]target.Site, _ *target.Pairing) { (*s)[1].Address++ }, "not at the function's entry"},
		"another in the file":  {func(_ *target.Identity, s *[]target.Site, _ *target.Pairing) { (*s)[1].FileOffset++ }, "not at the function's entry"},
		"another in memory":    {func(_ *target.Identity, s *[]target.Site, _ *target.Pairing) { (*s)[1].RuntimeAddress++ }, "not at the function's entry"},
		"two returns":          {func(_ *target.Identity, s *[]target.Site, _ *target.Pairing) { *s = append(*s, (*s)[1]) }, "one entry and one return"},
		"a return, then entry": {func(_ *target.Identity, s *[]target.Site, _ *target.Pairing) { (*s)[0], (*s)[1] = (*s)[1], (*s)[0] }, ""},
	} {
		p := clone(t, good)
		c.change(&p.Identity, &p.Sites, &p.Returns.By)
		if err := p.Verify(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("a plan with %s: %v", what, err)
		}
		spec, tgt := byKernel()
		c.change(&tgt.Identity, &tgt.Sites, &tgt.Returns.By)
		if err := tgt.Validate(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("a target with %s: %v", what, err)
		}
		if _, err := plan.Compile(spec, tgt, redact.Shipped()); err == nil {
			t.Errorf("a target with %s was compiled", what)
		}
	}
	// Two sites at one address are for this alone.
	spec, tgt = byKernel()
	tgt.Returns.ByKernel = false
	if _, err := plan.Compile(spec, tgt, redact.Shipped()); err == nil || !strings.Contains(err.Error(), "there twice") {
		t.Errorf("two sites at one address: %v", err)
	}
	spec, tgt = byKernel()
	spec.Stack, tgt.Stack = true, new(target.Stack)
	if _, err := plan.Compile(spec, tgt, redact.Shipped()); err == nil || !strings.Contains(err.Error(), "hides the callers") {
		t.Errorf("with a stack: %v", err)
	}
	stacked := clone(t, good)
	stacked.Stack = &plan.Stack{Callers: 1}
	if err := stacked.Verify(); err == nil || !strings.Contains(err.Error(), "hides the callers") {
		t.Errorf("a plan with a stack: %v", err)
	}
	spec, tgt = byKernel()
	tgt.Returns.GoidOffset = 8
	if _, err := plan.Compile(spec, tgt, redact.Shipped()); err == nil || !strings.Contains(err.Error(), "goroutines") {
		t.Errorf("with a goroutine's number: %v", err)
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

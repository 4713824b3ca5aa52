// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/keyhole-dev/keyhole/agent/plan"
)

// TestMalformedPlans puts a thousand times one number of a good plan's ops, limits or bounds out of the range that the kernel has for it, or takes an op
// away or adds one. What is out of range is so by the constants of the kernel's side, and no such plan may be let through.
func TestMalformedPlans(t *testing.T) {
	spec, tgt, set := shop(t)
	good := compile(t, spec, tgt, set)
	if err := good.Verify(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	beyond := func(limit int) uint8 { return uint8(limit + r.IntN(256-limit)) }
	ways := []func(p *plan.Plan, op *plan.Op){
		func(_ *plan.Plan, op *plan.Op) { op.Code = plan.Code(17 + r.IntN(200)) },
		func(_ *plan.Plan, op *plan.Op) { op.Dst = beyond(plan.MaxSlots) },
		func(_ *plan.Plan, op *plan.Op) { op.Src = beyond(plan.MaxSlots) },
		func(_ *plan.Plan, op *plan.Op) { op.Arg = beyond(32) },
		func(_ *plan.Plan, op *plan.Op) { op.N = 1<<13 + r.Uint32N(1<<30) },
		func(_ *plan.Plan, op *plan.Op) { op.Action = uint8(8 + r.IntN(200)) },
		func(_ *plan.Plan, op *plan.Op) { op.Aux = uint16(2000 + r.IntN(60000)) },
		func(_ *plan.Plan, op *plan.Op) { op.User = true },
		func(p *plan.Plan, _ *plan.Op) { p.IfEnd = len(p.Ops) + 1 + r.IntN(100) },
		func(p *plan.Plan, _ *plan.Op) { p.IfEnd = -1 - r.IntN(100) },
		func(p *plan.Plan, _ *plan.Op) { p.Pool = make([]byte, 1025+r.IntN(1000)) },
		func(p *plan.Plan, _ *plan.Op) { p.Limits.ValueBytes = plan.MaxValue + 1 + r.Uint32N(1000) },
		func(p *plan.Plan, _ *plan.Op) { p.Ops = p.Ops[:r.IntN(len(p.Ops))] },
		func(p *plan.Plan, _ *plan.Op) { p.Fields[r.IntN(len(p.Fields))].MaxBytes = -1 - r.IntN(100) },
		func(p *plan.Plan, _ *plan.Op) { p.Fields[r.IntN(len(p.Fields))].MaxBytes = 1<<13 + r.IntN(1000) },
		func(p *plan.Plan, _ *plan.Op) { p.Sets = append(p.Sets, strings.Repeat("x", 1+r.IntN(40))) },
	}
	for n := range 1000 {
		p := clone(t, good)
		way := n % len(ways)
		ways[way](p, &p.Ops[r.IntN(len(p.Ops))])
		err := p.Verify()
		if err == nil {
			t.Fatalf("way %d is let through:\n%s", way, p.Listing())
		}
		if reason, _, _ := strings.Cut(err.Error(), "\n"); len(reason) < 20 || !strings.HasPrefix(reason, "verify plan: ") {
			t.Errorf("way %d: %q says nothing", way, reason)
		}
	}
}

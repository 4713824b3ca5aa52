// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"testing"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// TestCallers reads stacks of every depth, beside small values and beside as many bytes as a record can hold, and leaves nothing behind.
func TestCallers(t *testing.T) {
	p := startHot(t)
	large := []target.Value{
		hot.Scalar("a", target.KindInt, 8, hot.Argument(0)), hot.CString("text", hot.Argument(1)), hot.CString("o.text", hot.Argument(1)),
	}
	for what, r := range map[string]request{
		"no value":     {function: "hot_pair"},
		"two values":   {function: "hot_pair", values: hot.Pair()},
		"large values": {function: "hot_pair", values: large, limits: probe.Limits{ValueBytes: probe.MaxValueBytes}},
	} {
		t.Run(what, func(t *testing.T) {
			r.stack = true
			s := attach(t, p, r)
			for _, depth := range []int{1, 2, 30, plan.MaxCallers - 1, plan.MaxCallers, plan.MaxCallers + 1, 500} {
				p.Do(t, "under %d 1", depth)
				events := s.events(t)
				if len(events) != 1 {
					t.Fatalf("%d events", len(events))
				}
				e := events[0]
				// The site, then the function that called it, then that function's own calls of itself.
				same := 0
				for _, f := range e.Stack[min(2, len(e.Stack)):] {
					if f == e.Stack[min(2, len(e.Stack)-1)] && f.Module == "" {
						same++
					}
				}
				if want := min(depth-1, plan.MaxCallers-1); same < want || same > want+1 || len(e.Stack) > 1+plan.MaxCallers {
					t.Errorf("%d deep: %d calls are alike: %v", depth, same, e.Stack)
				}
				cut := e.StackCut == event.CutDepth
				if depth >= plan.MaxCallers && !cut || depth <= plan.MaxCallers/2 && cut {
					t.Errorf("%d deep: %d frames, cut: %v", depth, len(e.Stack), cut)
				}
			}
			s.requireScratchZero(t)
		})
	}
}

// TestCallersOfNobody follows frame pointers that lead nowhere.
func TestCallersOfNobody(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair(), stack: true})
	p.Do(t, "pair 3 7 word") // called by a function that keeps whatever it likes in the register
	events := s.events(t)
	if len(events) != 3 {
		t.Fatalf("%d events", len(events))
	}
	for _, e := range events {
		if len(e.Stack) < 2 || e.Stack[1].Module != "" || e.Stack[1].Offset == 0 || fmt.Sprint(e.Stack[1]) != fmt.Sprint(events[0].Stack[1]) {
			t.Errorf("%+v", e.Stack)
		}
	}
	s.requireScratchZero(t)
}

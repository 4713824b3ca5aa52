// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// TestTrapCostIsWhatATargetPays compares the measured trap with what calls of another program's function take longer.
func TestTrapCostIsWhatATargetPays(t *testing.T) {
	cost, err := TrapCost()
	if err != nil {
		t.Fatal(err)
	}
	p := startHot(t)
	const calls = 20_000
	took := func() time.Duration {
		start := time.Now()
		p.Do(t, "empty %d", calls)
		return time.Since(start)
	}
	bare := took()
	s := attach(t, p, request{function: "hot_empty", countFirst: true})
	s.TrapCost = cost
	extra := took() - bare
	n := s.counts(t, calls)
	if n.Throttled != calls {
		t.Errorf("%+v: the program did more than count", n)
	}
	charged := time.Duration(n.CostNs)
	t.Logf("a trap costs %v; %d hits took %v, and were charged %v", cost, calls, extra, charged)
	// The machine is shared, and an instruction that is emulated costs half of one that is stepped over.
	if charged < extra/3 || charged > 3*extra {
		t.Errorf("%d hits took %v and are charged %v", calls, extra, charged)
	}
}

// TestCountsFirst sees that nothing is read before the session is admitted, and everything after it.
func TestCountsFirst(t *testing.T) {
	p := startHot(t)
	s := attach(t, p, request{function: "hot_pair", values: hot.Pair(), countFirst: true})
	p.Do(t, "pair 100 7 text")
	if n := s.counts(t, 100); n.Throttled != 100 || n.CostNs == 0 {
		t.Errorf("before: %+v", n)
	}
	if err := s.Admit(); err != nil {
		t.Fatal(err)
	}
	p.Do(t, "pair 100 7 text")
	if n := s.counts(t, 200); n.Throttled != 100 || n.Emitted != 100 {
		t.Errorf("after: %+v", n)
	}
	if err := s.SetDeadline(0); err != nil {
		t.Fatal(err)
	}
	if err := s.Admit(); err != nil { // which crosses with the end
		t.Fatal(err)
	}
	p.Do(t, "pair 100 7 text")
	if n := s.counts(t, 200); n.Emitted != 100 {
		t.Errorf("stopped: %+v", n)
	}
}

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

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

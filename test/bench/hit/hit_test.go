// SPDX-License-Identifier: Apache-2.0

package hit_test

import (
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/test/bench/hit"
)

func TestMain(m *testing.M) { testkit.MainAlone(m) }

func TestMeasure(t *testing.T) {
	testkit.RequireRoot(t)
	const calls = 2000
	for _, c := range hit.Measure(t, calls) {
		t.Logf("%-36s %v (%d hits, %d emitted)", c.What, c.Hit, c.Hits, c.Emitted)
		if c.Hit <= 0 || c.Hits < calls {
			t.Errorf("%s: %v over %d hits", c.What, c.Hit, c.Hits)
		}
	}
}

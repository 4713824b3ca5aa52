// SPDX-License-Identifier: Apache-2.0

package hit_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/test/bench/hit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func TestMeasure(t *testing.T) {
	testkit.RequireRoot(t)
	n := 2000
	if s := os.Getenv("HITS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	for _, c := range hit.Measure(t, n) {
		t.Logf("%-36s %v (%d hits, %d emitted)", c.What, c.Hit, c.Hits, c.Emitted)
		if c.Hit <= 0 || c.Hits < 2000 {
			t.Errorf("%s: %v over %d hits", c.What, c.Hit, c.Hits)
		}
	}
}

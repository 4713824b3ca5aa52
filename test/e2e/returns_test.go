// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// TestCallsWithReturns shows calls of a recursive function with their results and durations, and only those that failed.
func TestCallsWithReturns(t *testing.T) {
	d := devtest.Start(t, nil)
	calls := testkit.Start(t, testkit.BuildGo(t, "test/targets/calls"))
	calls.Expect("ready", 10*time.Second)
	target := fmt.Sprintf("pid/%d", calls.PID())
	for _, c := range []struct {
		flags []string
		shown uint64 // of the 48 calls
	}{
		{[]string{"--ret", "duration"}, 48},
		{[]string{"--ret", "sum", "--ret", "err"}, 48},
		{[]string{"--ret", "err", "--errors-only"}, 24}, // of every odd depth
		{[]string{"--errors-only=nonzero"}, 47},         // the sum of the innermost call of the first goroutine is 0
		{[]string{"--slower-than", "1m"}, 0},
	} {
		t.Run(strings.Join(c.flags, " "), func(t *testing.T) {
			tr := d.Trace(append([]string{target, "main.Work", "--arg", "depth", "--for", "2m", "--rate", "1000000/s"}, c.flags...)...)
			calls.Send("return 4 11 1")
			calls.Expect("done 48 48", time.Minute)
			d.MustRun("stop", "--all")
			events, sum := tr.Finish(30 * time.Second)
			sum.RequireSum(t)
			if sum.Hits != 48 || sum.Emitted != c.shown || sum.Filtered != 48-c.shown || uint64(len(events)) != c.shown {
				t.Errorf("%d events: %+v", len(events), sum)
			}
			for _, e := range events {
				odd := strings.ContainsAny(e.Argument(t, "depth").Value[len(e.Argument(t, "depth").Value)-1:], "13579")
				if e.AttachPoint != "call" || e.DurationNs == 0 || e.DurationNs > uint64(time.Minute) {
					t.Fatalf("%+v", e)
				}
				for _, r := range e.Results {
					if r.Name == "err" && (r.Kind != "error" || (r.Value == "not nil") != odd) {
						t.Errorf("%+v", e)
					}
				}
			}
		})
	}
	if r := d.Run("trace", target, "main.Work", "--ret", "nothing"); r.Status != 4 || !strings.Contains(r.Stderr, "it has sum, err, duration") {
		t.Errorf("status %d: %s", r.Status, r.Stderr)
	}
	out := d.MustRun("explain", target, "main.Work", "--ret", "sum", "--slower-than", "5ms")
	for _, want := range []string{"return +0x", "sum (at return)", "duration >= 5ms"} {
		if !strings.Contains(out, want) {
			t.Errorf("explain does not say %q:\n%s", want, out)
		}
	}
}

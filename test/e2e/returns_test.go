// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"runtime"
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

// TestCallsSeenByTheKernel shows calls of a C function that ends in a call of another, whose returns the kernel's own probe sees; and says so
// beforehand and on record.
func TestCallsSeenByTheKernel(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("on other machines the kernel's return probe is not used")
	}
	d := devtest.Start(t, nil)
	tails := testkit.Start(t, testkit.BuildC(t, "ctails", []string{"test/targets/ctails/main.c"}, "-O2", "-g", "-pthread"))
	tails.Expect("ready", 10*time.Second)
	before := testkit.ReadText(t, tails.PID())
	target := fmt.Sprintf("pid/%d", tails.PID())
	out := d.MustRun("explain", target, "hold", "--ret", "r0")
	for _, want := range []string{"by the kernel's return probe", "it ends in a jump to another function", "r0 (at return)"} {
		if !strings.Contains(out, want) {
			t.Errorf("explain does not say %q:\n%s", want, out)
		}
	}
	tr := d.Trace(target, "hold", "--arg", "id", "--ret", "r0", "--for", "2m")
	tails.Send("hold")
	tails.Expect("done 4 0 0", time.Minute)
	tails.Send("release")
	tails.Expect("done 4 4 0", time.Minute)
	d.MustRun("stop", "--all")
	events, sum := tr.Finish(30 * time.Second)
	sum.RequireSum(t)
	if sum.Hits != 4 || sum.Emitted != 4 || len(events) != 4 {
		t.Errorf("%d events: %+v", len(events), sum)
	}
	for _, e := range events {
		if e.AttachPoint != "call" || e.DurationNs == 0 || strings.TrimSuffix(e.Results[0].Value, "00") != e.Argument(t, "id").Value && e.Results[0].Value != "0" {
			t.Errorf("%+v", e)
		}
	}
	if changed := before.Differences(testkit.ReadText(t, tails.PID())); len(changed) > 0 {
		t.Errorf("the text is not as it was: %v", changed)
	}
	if records := d.MustRun("audit", "ls", "-o", "json"); !strings.Contains(records, "by the kernel's return probe") {
		t.Errorf("the audit log does not say by what returns were seen:\n%s", records)
	}
}

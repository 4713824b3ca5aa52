// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// TestHotLoop calls a function as fast as the machine can, under the default budget: before the probe comes, and while it
// is there. Either way the probe goes, soon, and alone.
func TestHotLoop(t *testing.T) {
	d := devtest.Start(t, nil)
	vault := startVault(t)
	quiet := d.Trace(fmt.Sprintf("pid/%d", vault.PID()), "main.Open", "--arg", "n", "--for", "1m")
	for _, c := range []struct {
		name  string
		while bool // the loop begins when the probe is there
		says  string
	}{
		{"before", false, "Stopped before capturing: "},
		{"while", true, "Stopped: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := hot.Start(t)
			before, others := testkit.ReadText(t, p.PID()), testkit.KernelObjects(t)
			if !c.while {
				p.Do(t, "run 0")
			}
			args := []string{fmt.Sprintf("pid/%d", p.PID()), "hot_pair", "--arg", "value", "--for", "1m"}
			var trace *devtest.Trace
			begun := time.Now()
			if c.while {
				trace = d.Trace(args...)
				probed(t, p.PID(), before)
				p.Do(t, "run 0")
				begun = time.Now()
			} else {
				trace = d.BeginTrace(args...)
				for len(before.Differences(testkit.ReadText(t, p.PID()))) == 0 {
					if time.Since(begun) > 20*time.Second {
						t.Fatalf("not attached\n%s", trace.Stderr())
					}
					time.Sleep(time.Millisecond)
				}
				begun = time.Now()
			}
			restored(t, p.PID(), before, others, begun.Add(2*time.Second))
			t.Logf("detached after %v", time.Since(begun).Round(time.Millisecond))
			events, sum := trace.Finish(10 * time.Second)
			sum.RequireSum(t)
			if sum.EndedBy != "tripped" || sum.CostNs == 0 || !c.while && (len(events) > 0 || sum.Throttled != sum.Hits) {
				t.Errorf("%d events, %+v", len(events), sum)
			}
			if status := trace.Wait(10 * time.Second); status != 5 {
				t.Errorf("status %d", status)
			}
			if text := trace.Stderr(); !strings.Contains(text, c.says) || !strings.Contains(text, "budget 2%") || !strings.Contains(text, "calls/s × ") {
				t.Errorf("it said %q", text)
			}
			var tripped int
			for line := range strings.Lines(d.MustRun("audit", "ls", "-o", "json")) {
				if strings.Contains(line, `"kind":"tripped"`) {
					tripped++
				}
			}
			if want := map[bool]int{false: 1, true: 2}[c.while]; tripped != want {
				t.Errorf("%d records that a session tripped, want %d", tripped, want)
			}
			p.Do(t, "halt")
			// The other session has noticed nothing.
			call(vault, 3)
			for range 3 {
				if u := quiet.Next(5 * time.Second); u.Event == nil {
					t.Fatalf("the other session ended: %+v", u.Summary)
				}
			}
		})
	}
	d.MustRun("audit", "verify")
	d.MustRun("stop", "--all")
	if _, sum := quiet.Finish(10 * time.Second); sum.EndedBy != "stopped" || sum.Emitted != 6 {
		t.Errorf("the other session: %+v", sum)
	}
}

// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
)

// TestCountsAddUp calls a function far faster than its session can take the events, into a ring buffer of one page, in several threads, while the reader
// stands still and while it reads. Every call is counted under exactly one outcome.
func TestCountsAddUp(t *testing.T) {
	const calls = 200_000
	d := devtest.Start(t, nil, "--ring-bytes", "4096", "--ceiling", devtest.BusyNode(t))
	vault := startVault(t)
	vault.Send("threads 4")
	vault.Expect("ok", 10*time.Second)
	target := fmt.Sprintf("pid/%d", vault.PID())

	for _, c := range []struct {
		name  string
		flags []string
		check func(t *testing.T, s *devtest.Summary)
	}{
		{"ring overflows", []string{"--rate", "1000000/s"}, func(t *testing.T, s *devtest.Summary) {
			if s.Lost == 0 || s.Emitted == 0 {
				t.Errorf("a ring of one page held all events of %d calls: %+v", calls, s)
			}
		}},
		{"rate", []string{"--rate", "50/s"}, func(t *testing.T, s *devtest.Summary) {
			if s.Throttled < calls/2 {
				t.Errorf("50 a second throttled only %d of %d calls", s.Throttled, calls)
			}
		}},
		{"condition", []string{"--rate", "1000000/s", "--where", "n >= 50000"}, func(t *testing.T, s *devtest.Summary) {
			if s.Filtered != calls/2 {
				t.Errorf("filtered %d calls; %d do not meet the condition", s.Filtered, calls/2)
			}
		}},
		{"sample", []string{"--rate", "1000000/s", "--sample", "1/10"}, func(t *testing.T, s *devtest.Summary) {
			if s.SampledOut < calls*85/100 || s.SampledOut > calls*95/100 {
				t.Errorf("sampled out %d of %d; want about nine in ten", s.SampledOut, calls)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := d.Trace(append([]string{target, "main.Open", "--arg", "n", "--for", "2m", "--budget", "1000%"}, c.flags...)...)
			holder := d.ProcessID("kh-holder")
			stop(t, holder, syscall.SIGSTOP)
			vault.Send(fmt.Sprintf("call %d", calls/2))
			vault.Expect("called", time.Minute)
			stop(t, holder, syscall.SIGCONT)
			// The second half covers the same numbers again, so that conditions see each of them twice.
			vault.Send(fmt.Sprintf("call %d", calls/2))
			vault.Expect("called", time.Minute)
			d.MustRun("stop", "--all")
			events, sum := tr.Finish(30 * time.Second)
			sum.RequireSum(t)
			if sum.Hits != calls {
				t.Errorf("%d calls were made, %d hits counted: %+v", calls, sum.Hits, sum)
			}
			if got := uint64(len(events)); got != sum.Delivered {
				t.Errorf("%d events came out; delivered is %d", got, sum.Delivered)
			}
			if sum.Delivered+sum.LostToClient != sum.Emitted {
				t.Errorf("delivered and lost to the client do not add up to what was emitted: %+v", sum)
			}
			c.check(t, sum)
		})
	}

	t.Run("max hits", func(t *testing.T) {
		tr := d.Trace(target, "main.Open", "--arg", "n", "--for", "2m", "--budget", "1000%", "--max-hits", "5", "--rate", "1000000/s")
		vault.Send("call 1000")
		vault.Expect("called", time.Minute)
		events, sum := tr.Finish(30 * time.Second)
		sum.RequireSum(t)
		if sum.EndedBy != "max_hits" || sum.Emitted != 5 || len(events) != 5 {
			t.Errorf("%d events came with --max-hits 5: %+v", len(events), sum)
		}
	})
}

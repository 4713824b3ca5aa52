// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/loader"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

// TestGovernor drives a budget of 2 % through what a session costs in each quarter of a second, in percent of a core.
func TestGovernor(t *testing.T) {
	repeat := func(n int, quarters ...float64) (all []float64) {
		for range n {
			all = append(all, quarters...)
		}
		return all
	}
	for _, c := range []struct {
		name  string
		costs []float64
		trips int // after so many quarters; 0: never
	}{
		{"nothing", repeat(200, 0), 0},
		{"at its budget", repeat(200, 2), 0},
		{"over it", repeat(10, 2.1), 4},
		{"as fast as the machine can", repeat(10, 100), 4},
		{"a burst", append(repeat(3, 20), repeat(100, 0)...), 0},
		{"a second of it, with a pause", append(repeat(3, 100), append(repeat(1, 0), repeat(40, 0)...)...), 40},
		{"later", append(repeat(100, 1), repeat(10, 3)...), 104},
		{"by turns, far over", repeat(40, 20, 20, 20, 0), 40},
		{"by turns, within", repeat(80, 6, 1, 0, 0), 0},
		{"pausing, within", repeat(80, 7, 0, 0, 0), 0},
		{"pausing, over", append(repeat(5, 7, 0, 0, 0), 9, 0, 0, 0), 21},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := governor{budget: 20}
			if strings.HasPrefix(c.name, "pausing") {
				g.duty = 20
			}
			for i, percent := range c.costs {
				l := load{Hits: 10, Cost: time.Duration(percent / 100 * float64(quarter)), Within: quarter}
				if _, trips := g.observe(l); trips {
					if i+1 != c.trips {
						t.Fatalf("trips after %d quarters, want %d", i+1, c.trips)
					}
					return
				}
			}
			if c.trips > 0 {
				t.Errorf("never trips, want after %d quarters", c.trips)
			}
		})
	}
}

func TestOverBudgetNamesWaysOn(t *testing.T) {
	l := load{Hits: 18_400, Cost: 35 * time.Millisecond, Within: time.Second}
	for _, c := range []struct {
		most     probe.Budget
		mayPause bool
		want     string
	}{
		{50, true, "Stopped before capturing: 18,400 calls/s × 1.9 µs = 3.5% of a core, budget 2%. Try a narrower target, or a caller of the function that is called less · --duty 57% · --budget 3.6% (5% at most here)"},
		{50, false, "Stopped before capturing: 18,400 calls/s × 1.9 µs = 3.5% of a core, budget 2%. Try a narrower target, or a caller of the function that is called less · --budget 3.6% (5% at most here)"},
		{30, false, "Stopped before capturing: 18,400 calls/s × 1.9 µs = 3.5% of a core, budget 2%. Try a narrower target, or a caller of the function that is called less"},
	} {
		if got := overBudget("Stopped before capturing", l, 20, c.most, c.mayPause).Message; got != c.want {
			t.Errorf("got %q\nwant %q", got, c.want)
		}
	}
}

// TestNodeBudget has three sessions that keep to their own budgets and together exceed the node's: one after the other is
// ended until what is left fits, and no more.
func TestNodeBudget(t *testing.T) {
	testkit.RequireRoot(t)
	node, err := Examine(t.Context(), !loader.HasUprobeMulti())
	if err != nil {
		t.Fatal(err)
	}
	trap := node.SelfTest.Trap
	const pause = 100 * time.Microsecond
	one := float64(trap) / float64(pause+trap+60*time.Microsecond) // of a core, about
	s := prepareStage(t)
	budget := probe.Budget(1500*one) + 1
	s.ceiling = fmt.Sprintf("max: {budget: %v, node_budget: %v}", budget, budget)
	s.begin()
	p := hot.Start(t)
	spec := specOf(p.PID(), time.Minute)
	spec.Function, spec.Limits.Budget = "hot_pair", budget
	var sessions []string
	for range 3 {
		session, _ := s.hold(spec)
		sessions = append(sessions, session)
	}
	p.Do(t, "run %d", pause.Microseconds())
	time.Sleep(5 * time.Second)
	for _, session := range sessions {
		s.call("Stop", session, new(struct{}))
	}
	p.Do(t, "halt")
	ended := make(map[string]int)
	for _, session := range sessions {
		f := s.wait(session).Final
		ended[f.EndedBy]++
		if f.EndedBy == event.EndTripped && (f.Why == nil || !strings.Contains(f.Why.Message, "the other sessions on this node")) {
			t.Errorf("tripped, because %v", f.Why)
		}
	}
	if ended[event.EndTripped] == 0 || ended[event.EndStopped] == 0 || ended[event.EndTripped]+ended[event.EndStopped] != 3 {
		t.Errorf("sessions were ended by %v; one takes about %.1f %%, the node allows %v", ended, 100*one, budget)
	}
}

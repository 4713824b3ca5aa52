// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"strconv"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

const (
	// countTime is how long a session only counts before it is seen whether it fits its budget.
	countTime = 200 * time.Millisecond
	// A session trips when each quarter of a second was over its budget, or the average over a longer time was: else one
	// that is busy by turns would never.
	quarter   = 250 * time.Millisecond
	longTerm  = 10 * time.Second
	inARow    = int(time.Second / quarter)
	longCount = int(longTerm / quarter)
)

// A load is what a session took of its target within some time.
type load struct {
	Hits   uint64        `json:"hits"`
	Cost   time.Duration `json:"costNs"`
	Within time.Duration `json:"withinNs"`
}

// loadBetween is the load from one reading of the counts to a later one.
func loadBetween(before, after event.Counts, within time.Duration) load {
	return load{Hits: after.Hits - before.Hits, Cost: time.Duration(after.CostNs - before.CostNs), Within: within}
}

// over says whether the load is more than a budget.
func (l load) over(b probe.Budget) bool { return b.Over(l.Cost, l.Within) }

// plus is both loads one after the other.
func (l load) plus(m load) load {
	return load{Hits: l.Hits + m.Hits, Cost: l.Cost + m.Cost, Within: l.Within + m.Within}
}

// within is the load that remains of one at all times if the probe is attached for a part of each second.
func (l load) within(d probe.Duty) load {
	l.Within = time.Duration(float64(l.Within) * float64(time.Second) / float64(d.Window()))
	return l
}

// valid says whether a process that is not to be believed can have meant it: no sum of such loads overflows.
func (l load) valid() bool {
	return l.Within > 0 && l.Within < time.Hour && l.Cost >= 0 && l.Cost < 1000*time.Hour
}

// cores is how many processors the load keeps busy.
func (l load) cores() float64 { return float64(l.Cost) / float64(l.Within) }

// String is the load as people are told it: how often, times what one costs, makes what share of a core.
func (l load) String() string {
	if l.Hits == 0 || l.Within <= 0 {
		return "no calls"
	}
	return fmt.Sprintf("%s calls/s × %s = %s of a core", grouped(uint64(float64(l.Hits)/l.Within.Seconds()+0.5)),
		microseconds(l.Cost/time.Duration(l.Hits)), percent(l.cores()))
}

// grouped writes 18400 as 18,400.
func grouped(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func microseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Microsecond), 'f', 1, 64) + " µs"
}

func percent(cores float64) string {
	digits := 1
	if cores >= 0.1 {
		digits = 0
	}
	return strconv.FormatFloat(100*cores, 'f', digits, 64) + "%"
}

// A governor sees from the load of each quarter of a second whether a budget is kept. The zero value has seen none.
type governor struct {
	budget   probe.Budget
	duty     probe.Duty // in a second that has one window, not each quarter is busy
	quarters []load     // the last ones, at most longCount
}

// observe takes the load of another quarter and returns the load that is over the budget, if the time has come to end it.
func (g *governor) observe(l load) (over load, trips bool) {
	g.quarters = append(g.quarters, l)
	if len(g.quarters) > longCount {
		g.quarters = g.quarters[1:]
	}
	if n := len(g.quarters); n >= inARow {
		var second load
		busy := true
		for _, q := range g.quarters[n-inARow:] {
			second, busy = second.plus(q), busy && q.over(g.budget)
		}
		if busy || g.duty != 0 && second.over(g.budget) {
			return second, true
		}
	}
	if len(g.quarters) == longCount {
		var all load
		for _, q := range g.quarters {
			all = all.plus(q)
		}
		return all, all.over(g.budget)
	}
	return load{}, false
}

// overBudget tells a requester that the session took more than its budget, and what can be done; mayPause: also by --duty.
func overBudget(what string, l load, budget, most probe.Budget, mayPause bool) *problem.Error {
	text := fmt.Sprintf("%s: %v, budget %v. Try a narrower target, or a caller of the function that is called less", what, l, budget)
	if share := probe.Duty(100 * float64(budget) / (1000 * l.cores())); mayPause && share >= probe.MinDuty {
		text += fmt.Sprintf(" · --duty %v", min(share, probe.MaxDuty))
	}
	if enough := probe.Budget(l.cores()*1000) + 1; budget < most && enough <= most {
		text += fmt.Sprintf(" · --budget %v (%v at most here)", enough, most)
	}
	return problem.New(problem.ResourceExhausted, "%s", text)
}

// overNode tells a requester that the sessions of a node together took more than the node allows.
func overNode(what string, l load, all float64, budget probe.Budget) *problem.Error {
	return problem.New(problem.ResourceExhausted, "%s: %v, and with the other sessions on this node %s of a core, of which it allows %v. "+
		"Stop another session, or try a caller of the function that is called less", what, l, percent(all), budget)
}

// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"fmt"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// govern looks at the counts until the session has ended: first whether it may capture at all, then each quarter of a second
// whether it keeps to its budget and limits. It has a goroutine of its own, so that an agent that takes no events cannot keep
// it from looking. A fault of its own ends the session.
func (r *reader) govern() error {
	err := r.keepBudget()
	if err != nil {
		r.end(event.EndHolderLost)
	}
	return err
}

func (r *reader) keepBudget() error {
	m := meter{reader: r}
	if err := m.begin(); err != nil {
		return err
	}
	if err := r.admit(&m); err != nil || r.isEnded() {
		return err
	}
	g := governor{budget: r.Budgets.Session, duty: r.Plan.Limits.Duty}
	ticker := time.NewTicker(quarter)
	defer ticker.Stop()
	for looks := 1; ; looks++ {
		select {
		case <-r.ended:
			return nil
		case <-ticker.C:
		}
		l, err := m.read()
		if err != nil {
			return err
		}
		if over, trips := g.observe(l); trips {
			r.trip(overBudget("Stopped", over, r.Budgets.Session, r.Budgets.Most, r.mayPause()))
			return nil
		}
		r.endAtLimit(m.counts)
		if looks%inARow == 0 {
			if err := r.tellAggregate(m.counts); err != nil {
				return err
			}
		}
		if err := r.monitor.send(notice{Load: &l}); err != nil {
			return fmt.Errorf("tell monitor: %w", err)
		}
	}
}

// admit lets the program, which only counts so far, capture if the session fits its budget, and the node's.
func (r *reader) admit(m *meter) error {
	select {
	case <-time.After(countTime):
	case <-r.ended:
		return nil
	}
	l, err := m.read()
	if err != nil {
		return err
	}
	if duty := r.Plan.Limits.Duty; duty != 0 { // as it will be, of each second
		l = l.within(duty)
	}
	if l.over(r.Budgets.Session) {
		r.trip(overBudget("Stopped before capturing", l, r.Budgets.Session, r.Budgets.Most, r.mayPause()))
		return nil
	}
	if err := r.monitor.send(notice{Load: &l}); err != nil {
		return fmt.Errorf("tell monitor: %w", err)
	}
	select {
	case <-r.admitted:
	case <-r.ended:
		return nil
	}
	if err := r.records.Admit(); err != nil {
		return err
	}
	select {
	case r.queue <- report{Admitted: true}:
		close(r.captures)
	case <-r.ended:
	}
	return nil
}

// mayPause says whether the session could pause, and does not.
func (r *reader) mayPause() bool { return r.Plan.Limits.Duty == 0 && r.Plan.Returns == nil }

// trip ends the session because it, or the node, is over its budget.
func (r *reader) trip(why *problem.Error) { r.endFor(event.EndTripped, why) }

// A meter reads how much the counts have grown since it was last read.
type meter struct {
	reader *reader
	counts event.Counts
	at     time.Time
}

func (m *meter) begin() (err error) {
	m.counts, err = m.reader.records.Counts()
	m.at = time.Now()
	return err
}

// read returns the load since the last reading. The agent is told the counts, if it listens.
func (m *meter) read() (load, error) {
	before, at := m.counts, m.at
	if err := m.begin(); err != nil {
		return load{}, err
	}
	told := m.counts
	select {
	case m.reader.queue <- report{Counts: &told}:
	default:
	}
	return loadBetween(before, m.counts, m.at.Sub(at)), nil
}

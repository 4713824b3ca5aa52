// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/keyhole-dev/keyhole/internal/event"
)

// Each holder sees to its own session's budget. The node's, which is for all of them together, is the monitor's: it believes
// what a holder says of its load, since one that lies could as well say nothing to its own budget.

// takeLoad takes note of a holder's load. The first comes with the question whether the node has so much left.
func (m *monitor) takeLoad(h *hold, l load, asks bool) error {
	if !l.valid() {
		return errors.New("a holder's load that cannot be")
	}
	h.mu.Lock()
	h.load = l
	h.mu.Unlock()
	if !asks {
		return nil
	}
	budget := m.judge.ceiling.NodeBudget
	if all, _, _ := m.loads(); l.Cost > 0 && all*1000 > float64(budget) {
		return h.answer(overNode("Stopped before capturing", l, all, budget))
	}
	return h.answer(nil)
}

// loads is how many processors all sessions keep busy, and the session that does most, with its load.
func (m *monitor) loads() (all float64, most *hold, load load) {
	m.mu.Lock()
	holds := slices.Collect(maps.Values(m.holds))
	m.mu.Unlock()
	for _, h := range holds {
		h.mu.Lock()
		l := h.load
		h.mu.Unlock()
		if l.Within == 0 || h.hasEnded() {
			continue
		}
		all += l.cores()
		if most == nil || l.cores() > load.cores() {
			most, load = h, l
		}
	}
	return all, most, load
}

// govern is called each quarter of a second. When all sessions together were over the node's budget for a second, the one that
// costs most is ended, and the others get another second.
func (m *monitor) govern() {
	budget := m.judge.ceiling.NodeBudget
	all, most, load := m.loads()
	if all*1000 <= float64(budget) {
		m.overload = 0
		return
	}
	if m.overload++; m.overload < inARow {
		return
	}
	m.overload = 0
	why := overNode("Stopped", load, all, budget)
	if most.end(event.EndTripped) && most.conn.send(order{Stop: event.EndTripped, Problem: why}) != nil {
		_ = most.child.signal(unix.SIGKILL)
	}
}

// hasEnded says whether the monitor has ended the holder.
func (h *hold) hasEnded() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cause != ""
}

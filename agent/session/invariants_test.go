// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
)

// A history is what happened to a machine so far: what it asked for and what was answered. check holds the promises
// that this package is about against it, after every step.
type history struct {
	state map[string]State
	asked map[string]map[string]int // how often each effect was asked for, by session
	done  map[string]map[string]int // how often each record became durable, by session
}

func newHistory() *history {
	return &history{state: map[string]State{}, asked: map[string]map[string]int{}, done: map[string]map[string]int{}}
}

func count(in map[string]map[string]int, id, what string) {
	if in[id] == nil {
		in[id] = map[string]int{}
	}
	in[id][what]++
}

func (h *history) check(m *Machine, e Event, effects []Effect) error {
	switch e := e.(type) {
	case Recorded:
		// An answer counts only if it was waited for: a stray one proves nothing.
		if h.state[e.SessionID] == waitsFor(e.Kind) {
			count(h.done, e.SessionID, string(e.Kind))
		}
	case Orphaned:
		if _, known := h.state[e.SessionID]; !known {
			count(h.done, e.SessionID, string(RecordAboutToAttach))
		}
	case Finished:
		if _, known := h.state[e.SessionID]; !known {
			h.state[e.SessionID] = Ended
		}
	}
	for _, f := range effects {
		if err := h.effect(f, e); err != nil {
			return fmt.Errorf("%s: %w", describe(f), err)
		}
	}
	if live := len(m.Live()); live > m.max {
		orphans := 0
		for _, id := range m.Live() {
			if s := m.sessions[id]; s.State == Closing || s.State == Refusing {
				orphans++
			}
		}
		if live-orphans > m.max {
			return fmt.Errorf("%d sessions are carried out; at most %d may be", live-orphans, m.max)
		}
	}
	for id, was := range h.state {
		now, known := m.Session(id)
		switch {
		case !known:
			return fmt.Errorf("session %s is forgotten", id)
		case was == Ended && now.State != Ended:
			return fmt.Errorf("session %s ended and came back as %s", id, now.State)
		case now.State < was:
			return fmt.Errorf("session %s went back from %s to %s", id, was, now.State)
		}
	}
	for id, s := range m.sessions {
		h.state[id] = s.State
		if err := h.session(s); err != nil {
			return fmt.Errorf("session %s: %w", id, err)
		}
	}
	for id := range m.finished {
		h.state[id] = Ended
		if _, also := m.sessions[id]; also {
			return fmt.Errorf("session %s is both finished and not", id)
		}
	}
	return nil
}

// effect holds what must be true at the moment that something is asked for.
func (h *history) effect(f Effect, cause Event) error {
	once := func(id, what string) error {
		count(h.asked, id, what)
		if n := h.asked[id][what]; n > 1 {
			return fmt.Errorf("asked for %d times", n)
		}
		return nil
	}
	switch f := f.(type) {
	case Prepare:
		return once(f.SessionID, "prepare")
	case Record:
		if f.Aside {
			return nil
		}
		if f.Kind == RecordDetached && h.done[f.SessionID][string(RecordAboutToAttach)] == 0 {
			return fmt.Errorf("`about to attach` is not on record")
		}
		return once(f.SessionID, string(f.Kind))
	case Hold:
		if h.done[f.SessionID][string(RecordAboutToAttach)] == 0 {
			return fmt.Errorf("`about to attach` is not on record")
		}
		return once(f.SessionID, "hold")
	case Forward:
		if h.done[f.SessionID][string(RecordAttached)] == 0 {
			return fmt.Errorf("`attached` is not on record")
		}
		return once(f.SessionID, "events")
	case Discard:
		return once(f.SessionID, "events")
	case Stop:
		if _, ok := cause.(HolderAttached); ok && h.asked[f.SessionID]["hold"] == 0 {
			return nil // a holder that nobody asked for
		}
		return once(f.SessionID, "stop")
	}
	return nil
}

// session holds what is true of a session in a state.
func (h *history) session(s *Session) error {
	asked, done := h.asked[s.ID], h.done[s.ID]
	attached := asked["events"] > 0 || s.State == Confirming
	switch {
	case s.ID == "":
		return fmt.Errorf("has no name")
	case s.State == 0 || s.State > Ended:
		return fmt.Errorf("is in state %d", s.State)
	case s.AboutToAttachOnRecord != (done[string(RecordAboutToAttach)] > 0),
		s.AttachedOnRecord != (done[string(RecordAttached)] > 0),
		s.DetachedOnRecord != (done[string(RecordDetached)] > 0):
		return fmt.Errorf("says wrongly what is on record")
	case attached && !s.AboutToAttachOnRecord:
		return fmt.Errorf("is attached and not on record")
	case s.State == Ended && s.EndedBy == "":
		return fmt.Errorf("ended by nothing")
	case s.State == Ended && s.AboutToAttachOnRecord && asked[string(RecordDetached)] != 1:
		return fmt.Errorf("ended with %d records `detached` asked for", asked[string(RecordDetached)])
	case s.State < Tripping && s.State != Refusing && s.EndedBy != "":
		return fmt.Errorf("is %s and already ended by %s", s.State, s.EndedBy)
	case s.State == Tripping != (asked[string(RecordTripped)] > asked[string(RecordDetached)]):
		return fmt.Errorf("is %s with %d records `tripped` asked for", s.State, asked[string(RecordTripped)])
	case s.State == Detaching && s.Cause == "":
		return fmt.Errorf("detaches for no cause")
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"maps"
	"slices"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// A Machine holds the sessions of one node. It is not safe for concurrent use.
type Machine struct {
	max      int
	sessions map[string]*Session
	// finished maps each session that is over and no longer asked for to what ended it. It is what stops a replay, so
	// it is never pruned: about a hundred bytes a session for the life of the process.
	finished map[string]string
	set      int64 // revision of the newest desired set of this stream
	draining string
}

// New returns a machine that carries out at most limit sessions at once.
func New(limit int) *Machine {
	return &Machine{max: limit, sessions: make(map[string]*Session), finished: make(map[string]string)}
}

// Session returns a copy of the session's present state. One that is over and forgotten has only its ID, State and EndedBy.
func (m *Machine) Session(id string) (Session, bool) {
	if s, ok := m.sessions[id]; ok {
		return *s, true
	}
	if by, ok := m.finished[id]; ok {
		return Session{ID: id, State: Ended, EndedBy: by}, true
	}
	return Session{}, false
}

// Live returns the sessions that are not over, in the order of their IDs.
func (m *Machine) Live() []string {
	live := make([]string, 0, len(m.sessions))
	for _, id := range slices.Sorted(maps.Keys(m.sessions)) {
		if m.sessions[id].State != Ended {
			live = append(live, id)
		}
	}
	return live
}

// Handle takes one event in and returns what is to be done, in order. An event that does not fit the session's state
// changes nothing: answers may cross with what made them moot.
func (m *Machine) Handle(e Event) []Effect {
	switch e := e.(type) {
	case Connected:
		m.set = 0
		return m.reportAll()
	case Desired:
		return m.desired(e)
	case Orphaned:
		return m.orphaned(e.SessionID)
	case Finished:
		if _, known := m.sessions[e.SessionID]; !known {
			m.finished[e.SessionID] = e.EndedBy
		}
		return nil
	case Draining:
		m.draining = e.Cause
		return m.stopAll(func(string) string { return e.Cause })
	case HolderAttached:
		return m.holderAttached(e)
	default:
		return m.step(e)
	}
}

// step handles the events of one known session.
func (m *Machine) step(e Event) []Effect {
	switch e := e.(type) {
	case Prepared:
		return m.prepared(m.in(e.SessionID, Preparing), e)
	case PrepareFailed:
		return m.prepareFailed(m.in(e.SessionID, Preparing), e.Problem)
	case Recorded:
		return m.recorded(m.in(e.SessionID, waitsFor(e.Kind)), e.Kind)
	case RecordFailed:
		return m.recordFailed(m.in(e.SessionID, waitsFor(e.Kind)), e)
	case AttachFailed:
		return m.attachFailed(m.in(e.SessionID, Attaching), e.Problem)
	case HolderAdmitted:
		return m.admitted(m.in(e.SessionID, Counting))
	case Counted:
		return m.counted(m.in(e.SessionID, Counting, Attached, Detaching), e.Counts)
	case StopRequested:
		return m.stop(m.sessions[e.SessionID], e.Cause)
	case DeadlineReached:
		return m.stop(m.in(e.SessionID, Confirming, Counting, Attached), event.EndDeadline)
	case HolderEnded:
		return m.holderEnded(m.in(e.SessionID, Counting, Attached, Detaching), e)
	}
	return nil
}

// in returns the session if it is in one of the states, else nil; every handler takes nil for "nothing to do".
func (m *Machine) in(id string, states ...State) *Session {
	if s, ok := m.sessions[id]; ok && slices.Contains(states, s.State) {
		return s
	}
	return nil
}

// waitsFor is the state in which a session waits for a record.
func waitsFor(k RecordKind) State {
	switch k {
	case RecordRefused:
		return Refusing
	case RecordAboutToAttach:
		return Recording
	case RecordAttached:
		return Confirming
	case RecordTripped:
		return Tripping
	case RecordDetached:
		return Closing
	}
	return 0
}

// desired reconciles with the whole set. A set older than one already seen on this stream says nothing.
func (m *Machine) desired(e Desired) []Effect {
	if e.Revision < m.set {
		return nil
	}
	m.set = e.Revision
	wanted := make(map[string]bool, len(e.Sessions))
	var effects []Effect
	for _, d := range e.Sessions {
		wanted[d.SessionID] = true
		effects = append(effects, m.desire(d)...)
	}
	effects = append(effects, m.stopAll(func(id string) string {
		if wanted[id] {
			return ""
		}
		return event.EndRevoked
	})...)
	for id, s := range m.sessions {
		if s.State == Ended && !wanted[id] {
			m.finished[id] = s.EndedBy
			delete(m.sessions, id)
		}
	}
	return effects
}

func (m *Machine) desire(d Desire) []Effect {
	if _, over := m.finished[d.SessionID]; over {
		return []Effect{Report{d.SessionID}} // the control plane missed it
	}
	s, known := m.sessions[d.SessionID]
	if !known {
		return m.begin(d)
	}
	if s.State == Ended {
		return []Effect{Report{s.ID}}
	}
	var effects []Effect
	refused := d.Refused
	if refused == nil && d.Revision < s.Revision {
		refused = problem.New(problem.FailedPrecondition, "grant of revision %d comes after one of revision %d: a replay", d.Revision, s.Revision)
	}
	switch {
	case refused == nil:
		// The session keeps its deadline: a grant seen again never gives a new TTL.
		s.Revision, s.Watched = d.Revision, d.Watched
	case s.complaint != refused.Message:
		s.complaint = refused.Message
		effects = append(effects, Record{SessionID: s.ID, Kind: RecordRefused, Problem: refused, Aside: true})
	}
	if d.Stop { // believed without proof: ending early is always allowed
		effects = append(effects, m.stop(s, cmp.Or(d.StoppedBy, event.EndStopped))...)
	}
	return effects
}

func (m *Machine) begin(d Desire) []Effect {
	if m.draining != "" {
		return nil // the agent's successor is asked again
	}
	live := len(m.Live())
	s := &Session{ID: d.SessionID, Revision: d.Revision, Watched: d.Watched}
	m.sessions[s.ID] = s
	switch {
	case d.Stop:
		s.Cause = cmp.Or(d.StoppedBy, event.EndStopped)
		return m.end(s, s.Cause)
	case d.Refused != nil:
		return m.refuse(s, d.Refused)
	case live >= m.max:
		return m.refuse(s, problem.New(problem.ResourceExhausted,
			"this node already carries out %d sessions, the most it takes: stop one or wait for one to end", live))
	}
	s.State = Preparing
	return []Effect{Report{s.ID}, Prepare{s.ID}}
}

// orphaned closes the pair that a dead agent left open.
func (m *Machine) orphaned(id string) []Effect {
	if _, known := m.Session(id); known {
		return nil
	}
	s := &Session{ID: id, Cause: event.EndAgentLost, AboutToAttachOnRecord: true}
	m.sessions[id] = s
	return m.close(s, event.EndAgentLost)
}

func (m *Machine) prepared(s *Session, e Prepared) []Effect {
	switch {
	case s == nil:
		return nil
	case s.Cause != "":
		return append([]Effect{Release{s.ID}}, m.end(s, s.Cause)...)
	}
	s.PlanDigest = e.PlanDigest
	s.State = Recording
	return []Effect{Record{SessionID: s.ID, Kind: RecordAboutToAttach}}
}

func (m *Machine) prepareFailed(s *Session, p *problem.Error) []Effect {
	switch {
	case s == nil:
		return nil
	case s.Cause != "": // it failed because it was cancelled
		return append([]Effect{Release{s.ID}}, m.end(s, s.Cause)...)
	}
	return append([]Effect{Release{s.ID}}, m.refuse(s, p)...)
}

func (m *Machine) recorded(s *Session, k RecordKind) []Effect {
	if s == nil {
		return nil
	}
	switch k {
	case RecordAboutToAttach:
		s.AboutToAttachOnRecord = true
		if s.Cause != "" {
			return append([]Effect{Release{s.ID}}, m.close(s, s.Cause)...)
		}
		s.State = Attaching
		return []Effect{Hold{s.ID}}
	case RecordAttached:
		s.AttachedOnRecord = true
		s.State = Counting
		if s.Cause != "" {
			s.State = Detaching // Stop is already on its way
		}
		return []Effect{Forward{s.ID}, Report{s.ID}}
	case RecordTripped:
		return m.close(s, s.EndedBy)
	case RecordDetached:
		s.DetachedOnRecord = true
	}
	return m.end(s, s.EndedBy)
}

func (m *Machine) recordFailed(s *Session, e RecordFailed) []Effect {
	if s == nil {
		return nil
	}
	if s.Problem == nil {
		s.Problem = e.Problem
	}
	switch e.Kind {
	case RecordAboutToAttach:
		return append([]Effect{Release{s.ID}}, m.end(s, cmp.Or(s.Cause, event.EndNotAttached))...)
	case RecordAttached:
		effects := []Effect{Discard{s.ID}}
		if s.Cause == "" {
			s.Cause = event.EndAuditLost
			effects = append(effects, Stop{s.ID, s.Cause})
		}
		s.State = Detaching
		return append(effects, Report{s.ID})
	case RecordTripped:
		return m.close(s, s.EndedBy)
	}
	// The fact itself cannot be undone; the pair that stays open in the spool is closed by this agent's successor.
	return m.end(s, s.EndedBy)
}

func (m *Machine) holderAttached(e HolderAttached) []Effect {
	s := m.in(e.SessionID, Attaching)
	if s == nil {
		if m.in(e.SessionID, Confirming, Counting, Attached, Detaching) != nil {
			return nil // said twice
		}
		return []Effect{Stop{e.SessionID, event.EndRevoked}} // nobody asked for it: it must not stay
	}
	s.HolderPID, s.DeadlineNs = e.HolderPID, e.DeadlineNs
	s.State = Confirming
	effects := []Effect{Release{s.ID}, Record{SessionID: s.ID, Kind: RecordAttached}}
	if s.Cause != "" {
		effects = append(effects, Stop{s.ID, s.Cause})
	}
	return effects
}

func (m *Machine) attachFailed(s *Session, p *problem.Error) []Effect {
	if s == nil {
		return nil
	}
	by := s.Cause // cancelled: what the holder says then is no news
	if by == "" {
		by, s.Problem = event.EndNotAttached, p
	}
	return append([]Effect{Release{s.ID}}, m.close(s, by)...)
}

func (m *Machine) admitted(s *Session) []Effect {
	if s == nil {
		return nil
	}
	s.State = Attached
	return []Effect{Report{s.ID}}
}

func (m *Machine) counted(s *Session, c event.Counts) []Effect {
	if s == nil || s.Counts == c {
		return nil
	}
	s.Counts = c
	return []Effect{Report{s.ID}}
}

func (m *Machine) holderEnded(s *Session, e HolderEnded) []Effect {
	if s == nil {
		return nil
	}
	s.Counts, s.TextRestored = e.Counts, e.TextRestored
	if s.Problem == nil {
		s.Problem = e.Problem
	}
	by := cmp.Or(e.EndedBy, event.EndHolderLost)
	if by == event.EndHolderLost && s.Cause != "" {
		by = s.Cause // it was killed because it did not end when it was told to
	}
	if by == event.EndTripped {
		s.EndedBy, s.State = by, Tripping
		return []Effect{Record{SessionID: s.ID, Kind: RecordTripped, Problem: s.Problem}, Report{s.ID}}
	}
	return m.close(s, by)
}

// stop makes the session end as soon as its state allows; the first cause stays.
func (m *Machine) stop(s *Session, cause string) []Effect {
	if s == nil || s.State == Ended || s.Cause != "" {
		return nil
	}
	s.Cause = cause
	switch s.State {
	case Preparing, Attaching:
		return []Effect{Cancel{s.ID}}
	case Confirming:
		return []Effect{Stop{s.ID, cause}}
	case Counting, Attached:
		s.State = Detaching
		return []Effect{Stop{s.ID, cause}, Report{s.ID}}
	}
	return nil // Recording and Refusing look at the cause when they are answered; the others are ending already
}

// stopAll stops each session for which cause gives one, in the order of their IDs.
func (m *Machine) stopAll(cause func(id string) string) []Effect {
	var effects []Effect
	for _, id := range m.Live() {
		if c := cause(id); c != "" {
			effects = append(effects, m.stop(m.sessions[id], c)...)
		}
	}
	return effects
}

func (m *Machine) reportAll() []Effect {
	var effects []Effect
	for _, id := range m.Live() {
		effects = append(effects, Report{id})
	}
	return effects
}

// refuse ends a session that was never begun, once the refusal is on record.
func (m *Machine) refuse(s *Session, p *problem.Error) []Effect {
	s.Problem, s.EndedBy, s.State = p, event.EndNotAttached, Refusing
	return []Effect{Record{SessionID: s.ID, Kind: RecordRefused, Problem: p}}
}

// close ends a session that is on record as about to attach, once `detached` is on record.
func (m *Machine) close(s *Session, by string) []Effect {
	s.EndedBy, s.State = by, Closing
	return []Effect{Record{SessionID: s.ID, Kind: RecordDetached, EndedBy: by, Problem: s.Problem}, Report{s.ID}}
}

func (m *Machine) end(s *Session, by string) []Effect {
	s.EndedBy, s.State = by, Ended
	return []Effect{Report{s.ID}}
}

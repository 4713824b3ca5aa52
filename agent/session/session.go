// SPDX-License-Identifier: Apache-2.0

// Package session decides what happens to the sessions of one node. A Machine is a pure function with a memory: one
// Event in, the new state and the Effects out. It has no goroutines, no clock, no files: whoever runs the effects
// feeds what became of them back as events. Everything that must never happen (attaching before the record of it is
// durable, handing on events before `attached` is, giving a grant a second life) is therefore decided in this package, in one
// place that tests can drive through any order of events.
package session

import (
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// A State is where a session is in its life. The order is the order of that life; a session never goes back.
type State uint8

// The states. A session that cannot be begun goes from Preparing through Refusing to Ended; one that was put on record and
// could not be attached goes from Attaching to Closing.
const (
	Preparing  State = iota + 1 // its target is inspected, resolved, compared, its plan compiled
	Refusing                    // the record of why not is being made durable
	Recording                   // the record `about to attach` is being made durable
	Attaching                   // a holder loads and attaches
	Confirming                  // it is attached, the record of it is being made durable, events wait
	Counting                    // the program counts and reads nothing, until it is seen that the session fits its budget
	Attached                    // events are handed on
	Detaching                   // the holder was told to end
	Tripping                    // it was over its budget; the record of that is being made durable
	Closing                     // the record `detached` is being made durable
	Ended
)

var stateNames = [...]string{
	Preparing: "preparing", Refusing: "refusing", Recording: "recording", Attaching: "attaching", Confirming: "confirming",
	Counting: "counting", Attached: "attached", Detaching: "detaching", Tripping: "tripping", Closing: "closing", Ended: "ended",
}

func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return "unknown"
}

// A Session is one grant being carried out on this node.
type Session struct {
	ID       string
	Revision int64 // of the grant: a lower one is a replay
	State    State
	Watched  bool // somebody wants the live copy of its events

	// Cause is why the session is to end; the first cause stays. Empty while it is wanted.
	Cause string
	// EndedBy is Cause, or what the holder says ended it; set once the holder is gone or was never started.
	EndedBy string
	// Problem is why it was not attached, or what went wrong later; nil if nothing did.
	Problem *problem.Error

	PlanDigest   string
	HolderPID    int
	DeadlineNs   uint64 // CLOCK_BOOTTIME, fixed once by the holder
	Counts       event.Counts
	TextRestored bool // the holder saw the target's text as it was before

	// What is on record, durably.
	AboutToAttachOnRecord, AttachedOnRecord, DetachedOnRecord bool

	// complaint is the last thing that was wrong with a later grant of it; said once, not with each desired set.
	complaint string
}

// RecordKind names the audit record that a session waits for.
type RecordKind string

// The records that a node writes about its sessions, named as the audit log names them.
const (
	RecordRefused       RecordKind = "refused"
	RecordAboutToAttach RecordKind = "about_to_attach"
	RecordAttached      RecordKind = "attached"
	RecordTripped       RecordKind = "tripped"
	RecordDetached      RecordKind = "detached"
)

// An Event is something that happened. The set is closed.
type Event interface{ event() }

// A Desire is what the control plane wants of one session.
type Desire struct {
	SessionID string
	Revision  int64
	Stop      bool
	StoppedBy string         // Stop: the cause to record
	Watched   bool           // send the live copy of its events
	Refused   *problem.Error // the grant was not believed: signature, node, proof, ceiling
}

type (
	// Connected begins a new stream: the revisions of desired sets start anew, and the control plane is told everything.
	Connected struct{}
	// Desired is the whole set of what this node should carry out. What is not in it is to be stopped.
	Desired struct {
		Revision int64
		Sessions []Desire
	}
	// Orphaned is a session that the spool knows to be begun and not closed: the agent before this one died with it.
	Orphaned struct{ SessionID string }
	// Finished is a session that the spool knows to be over. Its grant is never carried out again.
	Finished struct{ SessionID, EndedBy string }
	// Prepared: the plan is compiled.
	Prepared struct{ SessionID, PlanDigest string }
	// PrepareFailed: there is no plan, for a reason that is the requester's business.
	PrepareFailed struct {
		SessionID string
		Problem   *problem.Error
	}
	// Recorded: the record is durable.
	Recorded struct {
		SessionID string
		Kind      RecordKind
	}
	// RecordFailed: the record may or may not be in the spool, and the spool takes no more.
	RecordFailed struct {
		SessionID string
		Kind      RecordKind
		Problem   *problem.Error
	}
	// HolderAttached: breakpoints are set, the holder reads the ring and waits to hand on.
	HolderAttached struct {
		SessionID  string
		HolderPID  int
		DeadlineNs uint64
	}
	// AttachFailed: nothing is attached.
	AttachFailed struct {
		SessionID string
		Problem   *problem.Error
	}
	// HolderAdmitted: the session fits its budget, and captures.
	HolderAdmitted struct{ SessionID string }
	// Counted: the counts moved while the session runs.
	Counted struct {
		SessionID string
		Counts    event.Counts
	}
	// StopRequested by somebody on this node.
	StopRequested struct{ SessionID, Cause string }
	// DeadlineReached on the boot-time clock. The holder and the monitor look at it too; any one of the three is enough.
	DeadlineReached struct{ SessionID string }
	// HolderEnded: its links are closed, and every event that it handed over was dealt with.
	HolderEnded struct {
		SessionID    string
		EndedBy      string
		Counts       event.Counts
		TextRestored bool
		Problem      *problem.Error
	}
	// Draining: the agent is about to end. Nothing is begun any more, everything is stopped.
	Draining struct{ Cause string }
)

func (Connected) event()       {}
func (Desired) event()         {}
func (Orphaned) event()        {}
func (Finished) event()        {}
func (Prepared) event()        {}
func (PrepareFailed) event()   {}
func (Recorded) event()        {}
func (RecordFailed) event()    {}
func (HolderAttached) event()  {}
func (AttachFailed) event()    {}
func (HolderAdmitted) event()  {}
func (Counted) event()         {}
func (StopRequested) event()   {}
func (DeadlineReached) event() {}
func (HolderEnded) event()     {}
func (Draining) event()        {}

// An Effect is something to be done. The set is closed.
type Effect interface{ effect() }

type (
	// Prepare the session: inspect, resolve, compare, compile. Answered by Prepared or PrepareFailed.
	Prepare struct{ SessionID string }
	// Record a fact durably. Answered by Recorded or RecordFailed, but for one that stands aside of the session's life.
	Record struct {
		SessionID string
		Kind      RecordKind
		EndedBy   string         // RecordDetached
		Problem   *problem.Error // RecordRefused, RecordTripped, RecordDetached: nil if nothing went wrong
		Aside     bool           // nobody waits for it: a later grant of a session that keeps on was not believed
	}
	// Hold starts a holder for the prepared session. Answered by HolderAttached or AttachFailed.
	Hold struct{ SessionID string }
	// Cancel what Prepare or Hold began, if it is still under way. They answer all the same.
	Cancel struct{ SessionID string }
	// Forward the holder's events, from its first. Answered, when the holder is gone, by HolderEnded.
	Forward struct{ SessionID string }
	// Discard the holder's events instead of forwarding them. Answered, when the holder is gone, by HolderEnded.
	Discard struct{ SessionID string }
	// Stop the holder; HolderEnded follows.
	Stop struct{ SessionID, Cause string }
	// Report the session's present state to the control plane.
	Report struct{ SessionID string }
	// Release what Prepare opened; the session needs it no more.
	Release struct{ SessionID string }
)

func (Prepare) effect() {}
func (Record) effect()  {}
func (Hold) effect()    {}
func (Cancel) effect()  {}
func (Forward) effect() {}
func (Discard) effect() {}
func (Stop) effect()    {}
func (Report) effect()  {}
func (Release) effect() {}

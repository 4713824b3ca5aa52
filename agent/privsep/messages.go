// SPDX-License-Identifier: Apache-2.0

package privsep

import (
	"time"

	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/symbol"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// Between monitor and agent. The agent is the one that the network can reach: what it says is checked.

// A hello is the monitor's first frame: what the agent confines itself to.
type hello struct {
	StateDir string   `json:"stateDir"`
	ReadOnly []string `json:"readOnly"`
	// OldKernel lets it go on where Landlock cannot refuse truncation.
	OldKernel bool `json:"oldKernel"`
}

// A request of the agent. Exactly one of what follows the number is set.
type request struct {
	ID      uint64          `json:"id"` // the reply repeats it
	Inspect *probe.Selector `json:"inspect,omitempty"`
	Compare *compareRequest `json:"compare,omitempty"`
	Hold    *holdRequest    `json:"hold,omitempty"`
	Symbols uint64          `json:"symbols,omitempty"` // the holder whose session's stacks are to be looked up
	Check   bool            `json:"check,omitempty"`
}

type compareRequest struct {
	Inspection uint64         `json:"inspection"`
	Spec       *probe.Spec    `json:"spec"` // what the inspector was asked
	Target     *target.Target `json:"target"`
}

type holdRequest struct {
	Inspection uint64 `json:"inspection"`
	Envelope   []byte `json:"envelope"`
}

// A reply of the monitor, or its word that a child has ended.
type reply struct {
	ID         uint64         `json:"id,omitempty"`
	Problem    *problem.Error `json:"problem,omitempty"`
	Inspection *inspected     `json:"inspection,omitempty"` // with the inspector's socket
	Held       *held          `json:"held,omitempty"`       // with the holder's socket
	Checked    *doctor.Report `json:"checked,omitempty"`
	Forked     *forkedOf      `json:"forked,omitempty"`
	Ended      *ended         `json:"ended,omitempty"`
}

type inspected struct {
	ID       uint64          `json:"id"`
	Identity target.Identity `json:"identity"` // what the kernel says, not what is in the file
}

type held struct {
	ID  uint64 `json:"id"`
	PID int    `json:"pid"`
}

// forkedOf is news of the children of a holder's target.
type forkedOf struct {
	Child uint64 `json:"child"`
	Forked
}

type ended struct {
	Child uint64 `json:"child"`
	// Cause is why the monitor ended the child; empty if it did not.
	Cause string `json:"cause,omitempty"`
	// Status is how the process ended, for people: "exit status 1", "signal: killed".
	Status string `json:"status"`
	// TextRestored is set for a holder that had attached.
	TextRestored bool `json:"textRestored,omitempty"`
}

// Between agent and inspector.

type question struct {
	Resolve   *probe.Spec        `json:"resolve,omitempty"`
	Functions *functionsQuestion `json:"functions,omitempty"`
	Places    []symbol.Place     `json:"places,omitempty"`
}

type functionsQuestion struct {
	Pattern string `json:"pattern"`
	Limit   int    `json:"limit"`
}

// Between agent and holder.

type command struct {
	Hold *target.Target `json:"hold,omitempty"`
	// PlanDigest is the digest that the agent put on record for the target in Hold.
	PlanDigest string `json:"planDigest,omitempty"`
	// Stop is the cause to end with.
	Stop string `json:"stop,omitempty"`
}

type report struct {
	Problem  *problem.Error `json:"problem,omitempty"`
	Attached *Attached      `json:"attached,omitempty"`
	// Admitted says that the session has only counted so far, fits its budget, and captures from now on.
	Admitted  bool             `json:"admitted,omitempty"`
	Events    []event.Event    `json:"events,omitempty"`
	Counts    *event.Counts    `json:"counts,omitempty"`
	Aggregate *event.Aggregate `json:"aggregate,omitempty"`
	Final     *final           `json:"final,omitempty"`
}

type final struct {
	Counts  event.Counts `json:"counts"`
	EndedBy string       `json:"endedBy"`
	// Why is what a requester is told of an end that was not asked for.
	Why *problem.Error `json:"why,omitempty"`
}

// Attached is what a holder says of its attachment.
type Attached struct {
	Sites                []target.Site `json:"sites"`
	ProgramDigest        string        `json:"programDigest"`
	VerifiedInstructions int           `json:"verifiedInstructions"` // what the kernel's verifier went through
	Load                 time.Duration `json:"loadNs"`
	Attach               time.Duration `json:"attachNs"`
	DeadlineNs           uint64        `json:"deadlineNs"` // CLOCK_BOOTTIME
}

// Between monitor and holder. A holder has read what the agent sent it: what it says is checked as well.

type order struct {
	// Proceed answers a notice; Problem instead of it says why not. With Stop it says why to end.
	Proceed bool           `json:"proceed,omitempty"`
	Problem *problem.Error `json:"problem,omitempty"`
	Stop    string         `json:"stop,omitempty"`
	// Resumed comes with the links of the probe that was attached once more.
	Resumed bool `json:"resumed,omitempty"`
}

type notice struct {
	// Attaching is what the holder is about to attach.
	Attaching *target.Target `json:"attaching,omitempty"`
	// Attached says that it is, with the program if that will be attached again, and Detached that it is not any more.
	Attached bool `json:"attached,omitempty"`
	Detached bool `json:"detached,omitempty"`
	// Load is what the session took of its target since the last notice. The first one is answered: the holder asks
	// whether the node has so much left, and captures only then.
	Load *load `json:"load,omitempty"`
	// Paused says that the probe is detached for now, and Resume asks to attach it once more.
	Paused bool `json:"paused,omitempty"`
	Resume bool `json:"resume,omitempty"`
}

// SPDX-License-Identifier: Apache-2.0

package control

import (
	"fmt"
	"time"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// A State is how far a session is, as far as anybody off the node needs to know.
type State int

// The states of a session on its node.
const (
	Attaching State = State(keyholev1.SessionState_SESSION_STATE_ATTACHING)
	Attached  State = State(keyholev1.SessionState_SESSION_STATE_ATTACHED)
	Detaching State = State(keyholev1.SessionState_SESSION_STATE_DETACHING)
	Ended     State = State(keyholev1.SessionState_SESSION_STATE_ENDED)
)

// A Report is a session's present state. Its spec and its requester are the control plane's own knowledge.
type Report struct {
	SessionID    string
	Revision     int64
	State        State
	AttachedAt   time.Time // zero: not yet
	Deadline     time.Time // wall time, for people
	EndedAt      time.Time
	HolderPID    int
	PID          int           // of the target
	Sites        []target.Site // where breakpoints are, or were
	Counts       event.Counts
	EndedBy      string // empty while it goes on
	Problem      *problem.Error
	PlanDigest   string
	PolicyDigest string
	Function     string
	Process      string
	BuildID      string
	Fields       []Field
	// Forked are children of the target that have inherited its breakpoints and live, ForkedSum how many were ever seen.
	Forked    []int
	ForkedSum int
}

// A Copy is an event with the IDs of its span, empty if there is none.
type Copy struct {
	Event           event.Event
	TraceID, SpanID string
}

// A Field is one value of the plan, as people are shown it.
type Field struct {
	Path, Type, Kind string
	Action, Rule     string
	Missing, Detail  string
	Reads            string // from where: "rax -> +0x18"
	MaxBytes         int
	Result           bool // read at the return
}

// An Explanation is what a session of a request would do.
type Explanation struct {
	Target       *target.Target
	Process      string // comm[pid]
	Fields       []Field
	Conditions   []string
	Limits       probe.Limits
	PolicyDigest string
	PlanDigest   string
	Listing      string // of the ops, one a line
	RecordBytes  int    // the longest record
}

// A Listing is what can be probed in a target.
type Listing struct {
	Functions  []Function
	Matched    int // before the limit
	Executable string
	Stripped   bool
}

// A Function is one that can be named in a request.
type Function struct {
	Name, Signature, File string
	Line                  int
	Parameters            []Parameter
	Refused               string // why it cannot be probed; empty if nothing is known against it
}

// A Parameter of a function.
type Parameter struct{ Name, Type string }

func toSession(node string, r *Report) *keyholev1.Session {
	s := &keyholev1.Session{
		Id: r.SessionID, Node: node, State: keyholev1.SessionState(r.State), Revision: r.Revision,
		Attached: wire.ToTime(r.AttachedAt), Deadline: wire.ToTime(r.Deadline), Ended: wire.ToTime(r.EndedAt),
		HolderPid: int32(r.HolderPID), Sites: toSites(r.PID, r.Sites), Summary: wire.ToSummary(r.Counts, r.EndedBy),
		PlanDigest: r.PlanDigest, PolicyDigest: r.PolicyDigest, Function: r.Function, Process: r.Process, BuildId: r.BuildID,
		Fields: toFields(r.Fields), ForkedSum: int32(r.ForkedSum),
	}
	for _, pid := range r.Forked {
		s.ForkedChildren = append(s.ForkedChildren, int32(pid))
	}
	if r.Problem != nil {
		s.Error, s.ErrorCode, s.Candidates = r.Problem.Message, r.Problem.Code, r.Problem.Candidates
	}
	return s
}

func toSites(pid int, sites []target.Site) []*keyholev1.Site {
	list := make([]*keyholev1.Site, len(sites))
	for i := range sites {
		list[i] = wire.ToSite(pid, &sites[i])
	}
	return list
}

func toFields(fields []Field) []*keyholev1.Field {
	list := make([]*keyholev1.Field, len(fields))
	for i, f := range fields {
		list[i] = &keyholev1.Field{
			Path: f.Path, Type: f.Type, Kind: f.Kind, Action: f.Action, Rule: f.Rule, Missing: f.Missing, Detail: f.Detail,
			Reads: f.Reads, MaxBytes: uint32(f.MaxBytes), Result: f.Result,
		}
	}
	return list
}

func toEvent(c *Copy) *keyholev1.Event {
	e := wire.ToEvent(&c.Event)
	e.TraceId, e.SpanId = c.TraceID, c.SpanID
	return e
}

func toExplanation(node string, e *Explanation) *keyholev1.ExplainResponse {
	t := e.Target
	m := &keyholev1.ExplainResponse{
		Node: node, Function: t.Function.Name, Signature: t.Function.Signature, File: t.Function.File, Line: int32(t.Function.Line),
		Process: e.Process, Executable: t.Identity.Path, BuildId: t.Identity.BuildID, Language: t.Identity.Language, Arch: t.Identity.Arch,
		Sites: toSites(t.Identity.PID, t.Sites), Fields: toFields(e.Fields), InlinedSum: int32(t.Function.InlinedSum),
		OtherProcesses: int32(t.OtherProcesses), Limits: wire.ToLimits(e.Limits), PolicyDigest: e.PolicyDigest, PlanDigest: e.PlanDigest,
		Listing: e.Listing, RecordBytes: uint32(e.RecordBytes), Conditions: e.Conditions, Notes: t.Notes,
	}
	for _, p := range t.Function.InlinedAt {
		m.InlinedAt = append(m.InlinedAt, placeText(p))
	}
	return m
}

// placeText writes a place as a compiler would: "cart.go:41 (main.total)".
func placeText(p target.Place) string {
	text := fmt.Sprintf("%s:%d", p.File, p.Line)
	if p.Function != "" {
		text += " (" + p.Function + ")"
	}
	return text
}

func toListing(l *Listing) *keyholev1.ListFunctionsResponse {
	m := &keyholev1.ListFunctionsResponse{Matched: uint32(l.Matched), Executable: l.Executable, Stripped: l.Stripped}
	for _, f := range l.Functions {
		info := &keyholev1.FunctionInfo{Name: f.Name, Signature: f.Signature, File: f.File, Line: int32(f.Line), Refused: f.Refused}
		for _, p := range f.Parameters {
			info.Parameters = append(info.Parameters, &keyholev1.Parameter{Name: p.Name, Type: p.Type})
		}
		m.Functions = append(m.Functions, info)
	}
	return m
}

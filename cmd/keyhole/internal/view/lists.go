// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// Functions lists what can be probed, one a line, under names that can be typed without quotes.
func Functions(r *keyholev1.ListFunctionsResponse) []table.Line {
	columns := []table.Column{{Title: "FUNCTION"}, {Title: "PARAMETERS", Max: 80}, {Title: "AT"}}
	var rows [][]table.Span
	for _, f := range r.GetFunctions() {
		parameters := make([]string, len(f.GetParameters()))
		for i, p := range f.GetParameters() {
			parameters[i] = strings.TrimSpace(p.GetName() + " " + p.GetType())
		}
		row := []table.Span{table.Text(typed(f.GetName())), table.Text(strings.Join(parameters, ", ")), dim(place(f.GetFile(), f.GetLine()))}
		if f.GetRefused() != "" {
			row[0].Style, row[1] = table.Dim, warn("cannot be probed: "+f.GetRefused())
		}
		rows = append(rows, row)
	}
	return table.Table(columns, rows)
}

// typed is a function's name as one can type it: without what a shell reads as its own.
func typed(name string) string { return strings.NewReplacer("(", "", "*", "", ")", "").Replace(name) }

// Sessions lists sessions.
func Sessions(list []*keyholev1.Session, now time.Time) []table.Line {
	columns := []table.Column{
		{Title: "ID"}, {Title: "STATE"}, {Title: "FUNCTION"}, {Title: "PROCESS"}, {Title: "NODE"}, {Title: "REQUESTER"},
		{Title: "CALLS", Right: true}, {Title: "SHOWN", Right: true}, {Title: "ENDS", Right: true},
	}
	var rows [][]table.Span
	for _, s := range list {
		rows = append(rows, []table.Span{
			table.Text(s.GetId()), stateSpan(s), table.Text(function(s)), table.Text(process(s)), table.Text(s.GetNode()), table.Text(person(s.GetRequester())),
			table.Text(number(s.GetSummary().GetHits())), table.Text(number(s.GetSummary().GetEmitted())), table.Text(ends(s, now)),
		})
	}
	return table.Table(columns, rows)
}

var states = map[keyholev1.SessionState]string{
	keyholev1.SessionState_SESSION_STATE_GRANTED:   "granted",
	keyholev1.SessionState_SESSION_STATE_ATTACHING: "attaching",
	keyholev1.SessionState_SESSION_STATE_ATTACHED:  "attached",
	keyholev1.SessionState_SESSION_STATE_DETACHING: "detaching",
	keyholev1.SessionState_SESSION_STATE_ENDED:     "ended",
}

func stateSpan(s *keyholev1.Session) table.Span {
	switch s.GetState() {
	case keyholev1.SessionState_SESSION_STATE_ATTACHED:
		return table.Span{Text: "attached", Style: table.Good}
	case keyholev1.SessionState_SESSION_STATE_ENDED:
		return dim("ended")
	default:
		return table.Text(states[s.GetState()])
	}
}

// function is the function as resolved, before that as it was asked for.
func function(s *keyholev1.Session) string {
	if s.GetFunction() != "" {
		return s.GetFunction()
	}
	return s.GetSpec().GetFunction()
}

func process(s *keyholev1.Session) string {
	if s.GetProcess() != "" {
		return s.GetProcess()
	}
	if exe := s.GetSpec().GetTarget().GetExe(); exe != "" {
		return "exe" + exe
	}
	if s.GetSpec().GetTarget().GetKernel() {
		return "kernel"
	}
	return fmt.Sprintf("pid/%d", s.GetSpec().GetTarget().GetPid())
}

// person is the last part of an identity: the name of a user or a node.
func person(identity string) string { return identity[strings.LastIndex(identity, "/")+1:] }

func ends(s *keyholev1.Session, now time.Time) string {
	switch {
	case s.GetEnded() != nil:
		return clock(now.Sub(s.GetEnded().AsTime())) + " ago"
	case s.GetDeadline() != nil:
		return "in " + clock(s.GetDeadline().AsTime().Sub(now))
	default:
		return ""
	}
}

// Session tells all that is known of one session.
func Session(s *keyholev1.Session, now time.Time) []table.Line {
	lines := []table.Line{
		line(bold(function(s)), "   ", process(s), " on ", s.GetNode(), "   session "+s.GetId()),
		fact("state", stateText(s, now)),
		fact("requester", s.GetRequester()),
		fact("reason", s.GetSpec().GetReason()),
		fact("limits", limits(s.GetSpec().GetLimits())),
	}
	if s.GetSpec().GetWhere() != "" {
		lines = append(lines, fact("where", s.GetSpec().GetWhere()))
	}
	for _, t := range []struct {
		name string
		at   interface{ AsTime() time.Time }
		set  bool
	}{
		{"created", s.GetCreated(), s.GetCreated() != nil}, {"attached", s.GetAttached(), s.GetAttached() != nil},
		{"deadline", s.GetDeadline(), s.GetDeadline() != nil}, {"ended", s.GetEnded(), s.GetEnded() != nil},
	} {
		if t.set {
			lines = append(lines, fact(t.name, t.at.AsTime().Local().Format(time.RFC3339)))
		}
	}
	for _, site := range s.GetSites() {
		lines = append(lines, fact("site", fmt.Sprintf("%#x, file offset %#x, %s, % x", site.GetAddress(), site.GetFileOffset(), site.GetWhere(), site.GetBytes())))
	}
	if s.GetHolderPid() != 0 && s.GetEnded() == nil {
		lines = append(lines, fact("holder", fmt.Sprintf("process %d; killing it detaches the session", s.GetHolderPid())))
	}
	if n := s.GetForkedSum(); n > 0 {
		lines = append(lines, fact("children", forkedText(s.GetForkedChildren(), n)))
	}
	if s.GetSummary() != nil {
		lines = append(lines, fact("calls", callsText(s, s.GetSummary())))
		if cost := meanCost(s, s.GetSummary(), now); cost != "" {
			lines = append(lines, fact("cost", cost))
		}
	}
	if withheld := withheldText(s.GetFields(), func(*keyholev1.Field) bool { return true }); withheld != "" {
		lines = append(lines, fact("withheld", withheld))
	}
	if s.GetPlanDigest() != "" {
		lines = append(lines, fact("digest", s.GetPlanDigest()), fact("policy", s.GetPolicyDigest()))
	}
	return append(lines, fact("record", "keyhole audit show "+s.GetId()))
}

func fact(name, text string) table.Line { return line(dim(fmt.Sprintf("  %-10s ", name)), text) }

func stateText(s *keyholev1.Session, now time.Time) string {
	text := states[s.GetState()]
	switch {
	case s.GetState() == keyholev1.SessionState_SESSION_STATE_ENDED:
		text += ": " + ending(s.GetSummary().GetEndedBy())
	case s.GetDeadline() != nil:
		text += ", ends in " + clock(s.GetDeadline().AsTime().Sub(now))
	}
	if s.GetError() != "" {
		text += ": " + s.GetError()
	}
	return text
}

// Nodes lists the nodes.
func Nodes(list []*keyholev1.Node, now time.Time) []table.Line {
	columns := []table.Column{
		{Title: "NODE"}, {Title: "STATE"}, {Title: "TIER"}, {Title: "KERNEL"}, {Title: "ARCH"}, {Title: "SESSIONS", Right: true}, {Title: "VERSION"}, {Title: ""},
	}
	var rows [][]table.Span
	for _, n := range list {
		state := table.Span{Text: "connected", Style: table.Good}
		if !n.GetConnected() {
			state = warn("gone")
			if n.GetLastSeen() != nil {
				state = warn("gone " + clock(now.Sub(n.GetLastSeen().AsTime())))
			}
		}
		rows = append(rows, []table.Span{
			table.Text(n.GetName()), state, table.Text(n.GetTier()), table.Text(n.GetKernel()), table.Text(n.GetArch()),
			table.Text(fmt.Sprint(n.GetSessions())), table.Text(n.GetVersion()), dim(n.GetWhy()),
		})
	}
	return table.Table(columns, rows)
}

// Stopped says which sessions were asked to end.
func Stopped(list []*keyholev1.Session) []table.Line {
	lines := make([]table.Line, len(list))
	for i, s := range list {
		lines[i] = line("stopped "+s.GetId()+"  ", function(s), "  ", process(s), " on ", s.GetNode())
	}
	return lines
}

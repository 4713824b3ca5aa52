// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/redact"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// Summary is what is said of a session when it is over.
func (t *Trace) Summary(sum *keyholev1.Summary) []table.Line {
	s := t.session
	first := "Ended"
	if s.GetAttached() != nil && s.GetEnded() != nil {
		first += " after " + clock(s.GetEnded().AsTime().Sub(s.GetAttached().AsTime()))
	}
	first += ": " + ending(sum.GetEndedBy())
	if sites := len(s.GetSites()); sites > 0 {
		first += fmt.Sprintf(" · detached on %d of %d", sites, sites)
	}
	if s.GetAttached() == nil && len(s.GetSites()) == 0 && sum.GetHits() == 0 {
		return []table.Line{line(bold(first + " · before anything was attached")), item("record", "keyhole audit show "+s.GetId())}
	}
	lines := []table.Line{line(bold(first))}
	lines = append(lines, item("calls", callsText(s, sum)))
	if cost := meanCost(s, sum, time.Now()); cost != "" {
		lines = append(lines, item("cost", cost))
	}
	if missed := sum.GetLostToClient(); missed > 0 {
		lines = append(lines, item("missed", fmt.Sprintf("%s events were emitted and did not reach this terminal: it, or the way to it, was too slow", number(missed))))
	}
	if !sum.GetCountsFinal() {
		lines = append(lines, item("", "these counts are not final: nobody was left to read the last ones"))
	}
	if withheld := withheldText(s.GetFields(), func(f *keyholev1.Field) bool { return t.withheld[f.GetPath()] }); withheld != "" {
		lines = append(lines, item("withheld", withheld), item("policy", short(s.GetPolicyDigest())))
	}
	if t.spans > 0 {
		lines = append(lines, item("spans", fmt.Sprintf("%s of the %s events shown were exported as spans; -o json has their IDs", number(t.spans), number(t.shown))))
	}
	return append(lines, item("record", "keyhole audit show "+s.GetId()))
}

func item(name, text string) table.Line { return line(dim(fmt.Sprintf("  %-9s ", name)), text) }

// callsText is the equation that a session's counts are.
func callsText(s *keyholev1.Session, sum *keyholev1.Summary) string {
	emitted := "emitted"
	if s.GetSpec().GetAggregate() != "" {
		emitted = "counted"
	}
	text := fmt.Sprintf("%s = %s %s", number(sum.GetHits()), emitted, number(sum.GetEmitted()))
	for _, outcome := range []struct {
		name  string
		count uint64
	}{
		{"rate-limited", sum.GetThrottled()}, {"filtered", sum.GetFiltered()}, {"sampled out", sum.GetSampledOut()},
		{"over the limit", sum.GetOverLimit()}, {"lost", sum.GetLost()},
	} {
		text += fmt.Sprintf(" + %s %s", outcome.name, number(outcome.count))
	}
	if n := sum.GetUnpaired(); n > 0 {
		var reasons []string
		for _, reason := range slices.Sorted(maps.Keys(sum.GetUnpairedReasons())) {
			reasons = append(reasons, fmt.Sprintf("%s %s", reason, number(sum.GetUnpairedReasons()[reason])))
		}
		text += fmt.Sprintf(" + unpaired %s (%s)", number(n), strings.Join(reasons, ", "))
	}
	if sum.Missed != nil {
		text += fmt.Sprintf("   missed by the kernel %s", number(sum.GetMissed()))
	}
	return text
}

// withheldText says which values were not shown whole, and by which rule. Of an action that lets out whole what it finds nothing in, it is
// asked whether something was withheld.
func withheldText(fields []*keyholev1.Field, was func(*keyholev1.Field) bool) string {
	var parts []string
	for _, f := range fields {
		if f.GetMissing() != "" && f.GetMissing() != event.Redacted {
			continue
		}
		a, err := redact.ParseAction(f.GetAction())
		if err == nil && (a.Kind == redact.Keep || (a.Kind == redact.Detect || a.Kind == redact.Bucket && a.N > 0) && !was(f)) {
			continue
		}
		parts = append(parts, fmt.Sprintf("%s by %s (%s)", f.GetPath(), f.GetRule(), f.GetAction()))
	}
	return strings.Join(parts, ", ")
}

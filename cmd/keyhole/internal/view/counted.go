// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// maxGroups is how many groups a line shows: those with most calls.
const maxGroups = 8

// counting says what a session counts; empty if it shows events.
func counting(s *keyholev1.Spec) string {
	switch path := strings.Join(s.GetArguments(), ", "); probe.Aggregate(s.GetAggregate()) {
	case probe.AggregateNone:
		return ""
	case probe.AggregateGroups:
		return "counting by " + path
	case probe.AggregateHistogram:
		return "histogram of " + path
	case probe.AggregateDurations:
		return "histogram of how long calls take"
	default:
		return "counting"
	}
}

// Counted returns the line of what a session has counted so far.
func (t *Trace) Counted(a *keyholev1.Aggregate, now time.Time) []table.Line {
	t.quiet = t.quiet || a.GetCalls() > 0
	var lines []table.Line
	if t.columns == nil { // it comes before the word that the session is attached
		lines = t.begin(nil, a.GetFunction(), "", now)
	}
	pieces := []any{dim(a.GetTime().AsTime().Local().Format(timeFormat)), "  " + number(a.GetCalls()) + " calls"}
	switch {
	case a.GetHistogram() != nil:
		pieces = append(pieces, "   ", bold(a.GetPath()), "  "+histogramText(a.GetHistogram(), a.GetDurations()))
	case len(a.GetGroups()) > 0:
		pieces = append(pieces, "   ", bold(a.GetPath()))
		shown := a.GetGroups()[:min(len(a.GetGroups()), maxGroups)]
		rest := a.GetOther()
		for _, g := range a.GetGroups()[len(shown):] {
			rest += g.GetCalls()
		}
		for _, g := range shown {
			pieces = append(pieces, "  ", Value(g.GetValue()), dim(" × "+number(g.GetCalls())))
		}
		if rest > 0 {
			pieces = append(pieces, dim(fmt.Sprintf("  others × %s", number(rest))))
		}
	}
	return append(lines, line(pieces...))
}

// histogramText says where the numbers lie. A bucket's upper bound stands for what is in it.
func histogramText(m *keyholev1.Histogram, durations bool) string {
	h := wire.FromHistogram(m)
	if h.Count() == 0 {
		return "no numbers"
	}
	var parts []string
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"max", 1}} {
		text := atMost(h.Quantile(q.at))
		if durations {
			text = duration(time.Duration(min(h.Quantile(q.at), math.MaxInt64)))
		}
		parts = append(parts, q.name+" "+text)
	}
	if h.Missing > 0 {
		parts = append(parts, number(h.Missing)+" not readable")
	}
	return strings.Join(parts, " · ")
}

// atMost writes a bound of integers: a whole number.
func atMost(x float64) string {
	if x = math.Floor(x); math.Abs(x) < 1<<53 {
		return strconv.FormatInt(int64(x), 10)
	}
	return strconv.FormatFloat(x, 'g', 4, 64)
}

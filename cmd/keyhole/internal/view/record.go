// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/audit"
)

// An Entry is a record of the log with its place in it.
type Entry struct {
	Index uint64 `json:"index,string"`
	audit.Record
}

// Records lists the records of the log, one a line.
func Records(list []Entry) []table.Line {
	columns := []table.Column{
		{Title: "#", Right: true}, {Title: "TIME"}, {Title: "RECORD"}, {Title: "SESSION"}, {Title: "ACTOR"}, {Title: "NODE"}, {Title: "DETAILS"},
	}
	var rows [][]table.Span
	for _, e := range list {
		rows = append(rows, []table.Span{
			table.Text(fmt.Sprint(e.Index)), dim(e.Time.Local().Format(time.DateTime)), kindSpan(e.Kind), table.Text(e.SessionID),
			table.Text(person(e.Actor)), table.Text(e.Node), dim(gist(&e.Record)),
		})
	}
	return table.Table(columns, rows)
}

func kindSpan(k audit.Kind) table.Span {
	switch k {
	case audit.Denied, audit.Refused, audit.NotAttached, audit.AgentLost:
		return warn(string(k))
	case audit.Attached:
		return table.Span{Text: string(k), Style: table.Good}
	}
	return table.Text(string(k))
}

// gist is what one looks for in a list of records: the details that say what happened, the others are told by Story.
func gist(r *audit.Record) string {
	var parts []string
	for _, key := range []string{"method", "function", "target", "process", "reason", "error", "endedBy", "counts"} {
		if v := r.Details[key]; v != "" {
			parts = append(parts, key+"="+v)
		}
	}
	return table.Cut(strings.Join(parts, " "), 100)
}

// Story tells one session's records in their order, with all that they say.
func Story(list []Entry) []table.Line {
	if len(list) == 0 {
		return nil
	}
	begin := list[0].Time
	lines := []table.Line{line(bold("session " + list[0].SessionID))}
	for _, e := range list {
		lines = append(lines, line(
			dim(fmt.Sprintf("%s %+9.3fs  ", e.Time.Local().Format(time.DateTime), e.Time.Sub(begin).Seconds())), kindSpan(e.Kind),
			"  by "+e.Actor, dim(fmt.Sprintf("  #%d", e.Index)),
		))
		for _, key := range slices.Sorted(maps.Keys(e.Details)) {
			lines = append(lines, line(dim(fmt.Sprintf("    %-15s ", key)), e.Details[key]))
		}
	}
	return lines
}

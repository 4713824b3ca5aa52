// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"path"
	"strings"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// Explain says what a session would do: where it attaches, what it reads from where, what leaves the kernel as what and
// why, under which limits.
func Explain(e *keyholev1.ExplainResponse) []table.Line {
	what := fmt.Sprintf("  %s, %s · build %s · %s on %s · ", e.GetLanguage(), e.GetArch(), build(e.GetBuildId()), e.GetProcess(), e.GetNode())
	if ofKernel(e) {
		what = fmt.Sprintf("  %s, %s · every process on %s · ", e.GetExecutable(), e.GetArch(), e.GetNode())
	}
	lines := []table.Line{
		line(bold(signature(e)), "   ", dim(place(e.GetFile(), e.GetLine()))),
		line(what, bold("nothing is attached by this command")),
		nil,
	}
	lines = append(lines, where(e)...)
	lines = append(lines, nil)
	lines = append(lines, reads(e)...)
	lines = append(lines, nil)
	for i, c := range e.GetConditions() {
		lines = append(lines, section("WHEN", i, c, "  read and compared in the kernel; nothing of it leaves"))
	}
	lines = append(lines, section("COST", 0, fmt.Sprintf("at most %s a call leave the kernel, in %s", size(uint64(e.GetRecordBytes())), plural(ops(e.GetListing()), "step"))))
	lines = append(lines, section("LIMITS", 0, limits(e.GetLimits()), " · ends by itself if the agent, the control plane or you disappear"))
	lines = append(lines, section("POLICY", 0, e.GetPolicyDigest()))
	lines = append(lines, section("DIGEST", 0, e.GetPlanDigest(), "  of exactly this"))
	return append(lines, nil, line(dim("keyhole trace …(the same flags)… to run it")))
}

// section is a line with a heading on the left, of a group's first line only.
func section(heading string, i int, text string, note ...string) table.Line {
	if i > 0 {
		heading = ""
	}
	return line(bold(fmt.Sprintf("%-10s ", heading)), text, dim(strings.Join(note, "")))
}

// ofKernel says whether the target is no process: then no site has an address.
func ofKernel(e *keyholev1.ExplainResponse) bool {
	return len(e.GetSites()) > 0 && e.GetSites()[0].GetAddress() == 0
}

func signature(e *keyholev1.ExplainResponse) string {
	if e.GetSignature() != "" {
		return e.GetSignature()
	}
	return e.GetFunction()
}

// place is a line of source with its directory, as much of the path as one needs to know it again.
func place(file string, number int32) string {
	if file == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", path.Join(path.Base(path.Dir(file)), path.Base(file)), number)
}

// build is the beginning of a build ID.
func build(id string) string {
	const enough = 12
	switch {
	case id == "":
		return "unknown"
	case len(id) > enough:
		return id[:enough] + "…"
	default:
		return id
	}
}

func where(e *keyholev1.ExplainResponse) []table.Line {
	lines := []table.Line{section("WHERE", 0, e.GetFunction(), "  in "+e.GetExecutable())}
	if ofKernel(e) {
		return append(lines, line("  entry  by its name: the kernel finds the address, and refuses what it cannot probe safely"))
	}
	var rows [][]table.Span
	for _, s := range e.GetSites() {
		side := "  entry  "
		if s.GetReturn() {
			side = "  return "
		}
		rows = append(rows, []table.Span{
			table.Text(side), table.Text(fmt.Sprintf("%#x", s.GetAddress())), table.Text(s.GetWhere()),
			dim(fmt.Sprintf("% x", s.GetBytes())),
			{Text: "proved: decode, file = memory = analysed", Style: table.Good},
		})
	}
	columns := table.NewColumns(make([]table.Column, 5)...)
	for _, row := range rows {
		columns.Fit(row)
	}
	for _, row := range rows {
		lines = append(lines, columns.Row(row))
	}
	if n := int(e.GetInlinedSum()); n == 0 {
		lines = append(lines, line("  inlined  none"))
	} else {
		text := fmt.Sprintf("%s were inlined and are not seen: ", plural(n, "call"))
		if n == 1 {
			text = "1 call was inlined and is not seen: "
		}
		places := e.GetInlinedAt()
		text += strings.Join(places, ", ")
		if n > len(places) && len(places) > 0 {
			text += fmt.Sprintf(" and %d more", n-len(places))
		}
		lines = append(lines, line("  inlined  ", warn(text)))
	}
	if n := int(e.GetOtherProcesses()); n > 0 {
		text := fmt.Sprintf("%d more run this executable and are left alone", n)
		if n == 1 {
			text = "1 more process runs this executable and is left alone"
		}
		lines = append(lines, line("  others   ", text))
	}
	return lines
}

func reads(e *keyholev1.ExplainResponse) []table.Line {
	columns := []table.Column{
		{Title: "READS"}, {Title: ""}, {Title: "from"}, {Title: "bytes", Right: true}, {Title: "LEAVES THE KERNEL AS"}, {Title: "BECAUSE"},
	}
	var rows [][]table.Span
	for _, f := range e.GetFields() {
		from, bytes := f.GetReads(), fmt.Sprint(f.GetMaxBytes())
		if from == "" {
			from, bytes = "–", "0"
		} else if variable(f) {
			bytes = "≤ " + bytes
		}
		rows = append(rows, []table.Span{
			table.Text("  " + name(f)), dim(f.GetType()), table.Text(from), table.Text(bytes), leaves(f), reason(f),
		})
	}
	var lines []table.Line
	switch {
	case len(rows) > 0:
		lines = table.Table(columns, rows)
	case len(e.GetNotes()) > 0:
		lines = append(lines, section("READS", 0, "nothing"))
	default:
		lines = append(lines, section("READS", 0, "nothing: the function has no parameters; calls are counted, with their times"))
	}
	for _, n := range e.GetNotes() {
		lines = append(lines, line("  ", warn(n)))
	}
	return lines
}

// name is a field's path, marked if it is read at the return.
func name(f *keyholev1.Field) string {
	if f.GetResult() {
		return f.GetPath() + " (at return)"
	}
	return f.GetPath()
}

func limits(l *keyholev1.Limits) string {
	parts := []string{length(l.GetTtl().AsDuration()), number(uint64(l.GetRate())) + " events/s", size(l.GetMaxBytes()), "budget " + budget(l)}
	if d := probe.Duty(l.GetDuty()); d > 0 {
		parts = append(parts, fmt.Sprintf("attached for %v of each second", d.Window()))
	}
	if n := l.GetMaxHits(); n > 0 {
		parts = append(parts, number(n)+" events")
	}
	if n := l.GetSample(); n > 1 {
		parts = append(parts, fmt.Sprintf("1 of %d calls", n))
	}
	return strings.Join(parts, " · ")
}

// ops counts the ops of a listing: its lines that begin with a number.
func ops(listing string) int {
	n := 0
	for l := range strings.Lines(listing) {
		if l = strings.TrimSpace(l); l != "" && l[0] >= '0' && l[0] <= '9' {
			n++
		}
	}
	return n
}

// variable says whether what leaves of a field differs in length.
func variable(f *keyholev1.Field) bool {
	a, err := redact.ParseAction(f.GetAction())
	if err != nil || a.Kind == redact.Digest || a.Kind == redact.Length {
		return false
	}
	switch target.Kind(f.GetKind()) {
	case target.KindString, target.KindCString, target.KindBytes:
		return true
	}
	return false
}

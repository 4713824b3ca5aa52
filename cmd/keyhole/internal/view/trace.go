// SPDX-License-Identifier: Apache-2.0

package view

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

const (
	// quietTime is after how long without a hit something is said about it.
	quietTime = 5 * time.Second
	// rateWindow is over how long the present rate is taken.
	rateWindow = 3 * time.Second
	timeFormat = "15:04:05.000"
	// widestProcess is the longest process: 15 bytes of name and a number of 7 digits.
	widestProcess = 15 + len("[4194304]")
)

// A Trace is what is shown of one session while it goes on: two lines that say what is attached where, a row for each
// event, a status that changes, and at the end what became of all calls. Its methods return lines and write nothing; they
// take the time, so that it is the caller's.
type Trace struct {
	width   int // cells of the terminal; 0: none, nothing is cut
	session *keyholev1.Session

	attached time.Time // when this end saw that it is attached, by its own clock
	columns  *table.Columns
	names    []string        // of the values; none: the goroutine is shown
	results  int             // how many of them, the last ones, are results
	calls    bool            // with their returns: how long each took is shown
	kernel   bool            // each call may be another process's, which is shown
	withheld map[string]bool // values of which something was, by their paths
	shown    uint64
	spans    uint64
	quiet    bool // it was said that nothing came
	hits     []sampled
	rows     []sampled
	costs    []sampled // nanoseconds
}

// A sampled count.
type sampled struct {
	at    time.Time
	count uint64
}

// NewTrace begins to show a session on a terminal of so many cells; 0: the lines go elsewhere.
func NewTrace(width int) *Trace {
	return &Trace{width: width, withheld: make(map[string]bool)}
}

// Session takes the session's new state. It returns the lines above the rows, once.
func (t *Trace) Session(s *keyholev1.Session, now time.Time) []table.Line {
	t.session = s
	t.hits = addSample(t.hits, now, s.GetSummary().GetHits())
	t.costs = addSample(t.costs, now, s.GetSummary().GetCostNs())
	if t.columns != nil || s.GetState() < keyholev1.SessionState_SESSION_STATE_ATTACHED || s.GetAttached() == nil {
		return nil
	}
	return t.begin(s.GetFields(), s.GetFunction(), s.GetProcess(), now)
}

// begin makes the lines above the rows.
func (t *Trace) begin(fields []*keyholev1.Field, function, process string, now time.Time) []table.Line {
	t.attached = now
	t.layout(fields)
	s := t.session
	if s.GetNode() != "" {
		process += " on " + s.GetNode()
	}
	limits := s.GetSpec().GetLimits()
	shown := counting(s.GetSpec())
	if shown == "" {
		shown = fmt.Sprintf("shown at most %s/s", number(uint64(limits.GetRate())))
	}
	if n := limits.GetSample(); n > 1 {
		shown += fmt.Sprintf(" of 1 call in %d", n)
	}
	if d := limits.GetDuty(); d > 0 {
		shown += fmt.Sprintf(" for %v of each second", probe.Duty(d).Window())
	}
	if s.GetSpec().GetWhere() != "" {
		shown += " where " + s.GetSpec().GetWhere()
	}
	sites := max(len(s.GetSites()), 1)
	attached := fmt.Sprintf("attached %d/%d   ends in %s", sites, sites, clock(t.left(now)))
	if s.GetState() == keyholev1.SessionState_SESSION_STATE_ENDED {
		attached = fmt.Sprintf("was attached %d/%d   over", sites, sites)
	}
	lines := []table.Line{
		line(bold(function), "   ", process, "   ", dim("build "+build(s.GetBuildId())+"   session "+s.GetId())),
		line(attached + "   " + shown + "   " + t.costText(now)),
	}
	if s.GetSpec().GetAggregate() != "" {
		return lines
	}
	return append(lines, t.columns.Header())
}

// layout makes the columns for the plan's fields, and parts a terminal's width between them.
func (t *Trace) layout(fields []*keyholev1.Field) {
	columns := []table.Column{{Title: "TIME", Min: len(timeFormat)}}
	if t.calls = isOfCalls(t.session.GetSpec()); t.calls {
		columns = append(columns, table.Column{Title: "TOOK", Right: true, Min: len("1,000 ms")})
	}
	if t.kernel = t.session.GetSpec().GetTarget().GetKernel(); t.kernel {
		columns = append(columns, table.Column{Title: "PROCESS", Min: widestProcess, Max: widestProcess})
	}
	for _, f := range fields {
		if f.GetResult() {
			t.results++
		}
		t.names = append(t.names, f.GetPath())
		columns = append(columns, column(f))
	}
	if len(fields) == 0 && !t.kernel {
		columns = append(columns, table.Column{Title: "GOROUTINE", Right: true})
	}
	if t.width > 0 {
		share(columns, t.width)
	}
	t.columns = table.NewColumns(columns...)
}

// column is the place of a field's values.
func column(f *keyholev1.Field) table.Column {
	const widest = 40
	c := table.Column{Title: f.GetPath(), Max: widest}
	action, err := redact.ParseAction(f.GetAction())
	switch {
	case f.GetMissing() == event.Redacted:
		c.Min = len("withheld (drop)")
	case f.GetMissing() != "":
		c.Min = len(f.GetMissing())
	case err != nil:
	case action.Kind == redact.Digest:
		c.Min = 1 + 16
	case action.Kind == redact.Suffix, action.Kind == redact.Prefix:
		c.Min = min(table.Width(hidden)+action.N, widest)
	case action.Kind == redact.Length:
		c.Min = table.Width(hidden) + len("(123)")
	case f.GetKind() == event.KindInt, f.GetKind() == event.KindUint, f.GetKind() == event.KindFloat:
		c.Right, c.Min = true, 6
	case f.GetKind() == event.KindString, f.GetKind() == string(target.KindCString), f.GetKind() == event.KindBytes:
		c.Min = 12
	}
	return c
}

// share bounds the columns so that a row fits a terminal: what each needs at least, and an equal part of the rest.
func share(columns []table.Column, width int) {
	rest := width
	for _, c := range columns {
		rest -= max(c.Min, table.Width(c.Title)) + 2
	}
	more := max(rest, 0) / max(len(columns)-1, 1)
	for i := range columns[1:] {
		c := &columns[i+1]
		c.Max = max(c.Min, table.Width(c.Title)) + more
		c.Cut = !c.Right // a number without its end is another number
	}
}

// Event returns the row of one event.
func (t *Trace) Event(e *keyholev1.Event, now time.Time) []table.Line {
	t.shown++
	if e.GetSpanId() != "" {
		t.spans++
	}
	t.quiet = true // whoever has seen one knows that the function is called
	t.rows = addSample(t.rows, now, t.shown)
	var lines []table.Line
	process := fmt.Sprintf("%s[%d]", e.GetProcess().GetComm(), e.GetProcess().GetPid())
	if t.columns == nil { // it comes before the word that the session is attached
		about := process
		if t.session.GetSpec().GetTarget().GetKernel() {
			about = "kernel"
		}
		lines = t.begin(fieldsOf(e), e.GetFunction(), about, now)
	}
	cells := make([]table.Span, 0, len(t.names)+3)
	cells = append(cells, dim(e.GetTime().AsTime().Local().Format(timeFormat)))
	if t.calls {
		cells = append(cells, took(e))
	}
	if t.kernel {
		cells = append(cells, table.Text(process))
	}
	for _, v := range slices.Concat(e.GetArguments(), e.GetResults()) {
		if v.GetRedaction() != nil {
			t.withheld[v.GetName()] = true
		}
	}
	arguments := len(t.names) - t.results
	cells = append(cells, valueCells(t.names[:arguments], e.GetArguments())...)
	cells = append(cells, valueCells(t.names[arguments:], e.GetResults())...)
	if len(t.names) == 0 && !t.kernel {
		cells = append(cells, table.Text(strconv.FormatUint(e.GetGoroutineId(), 10)))
	}
	lines = append(lines, t.columns.Row(cells))
	for _, frame := range e.GetStack() {
		lines = append(lines, line(dim("    "+frame)))
	}
	return lines
}

func valueCells(names []string, values []*keyholev1.Value) []table.Span {
	byName := make(map[string]*keyholev1.Value, len(values))
	for _, v := range values {
		byName[v.GetName()] = v
	}
	cells := make([]table.Span, 0, len(names))
	for _, name := range names {
		if v := byName[name]; v != nil {
			cells = append(cells, Value(v))
		} else {
			cells = append(cells, warn("not sent"))
		}
	}
	return cells
}

// isOfCalls says whether a request is about calls with their returns.
func isOfCalls(s *keyholev1.Spec) bool {
	return len(s.GetResults()) > 0 || s.GetSlowerThan().AsDuration() > 0 || s.GetErrors() != ""
}

// took is how long a call took, marked if that was long or if the call failed.
func took(e *keyholev1.Event) table.Span {
	d := time.Duration(e.GetDurationNs())
	text := table.Span{Text: duration(d)}
	failed := slices.ContainsFunc(e.GetResults(), func(v *keyholev1.Value) bool {
		return v.GetKind() == event.KindError && v.GetMissing() == "" && v.GetValue() != event.NilError
	})
	switch {
	case failed:
		text.Text, text.Style = "✗ "+text.Text, table.Warn
	case d >= slow:
		text.Text, text.Style = "◀ "+text.Text, table.Warn
	}
	return text
}

// slow is how long a call takes that is marked.
const slow = time.Second

// duration is a time as short as it can be told: 412 ns, 3.8 µs, 4.1 ms, 5,002 ms.
func duration(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	case d < time.Millisecond:
		return fmt.Sprintf("%.1f µs", float64(d)/float64(time.Microsecond))
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	default:
		return number(uint64(d.Milliseconds())) + " ms"
	}
}

// fieldsOf is what an event tells of the fields.
func fieldsOf(e *keyholev1.Event) []*keyholev1.Field {
	fields := make([]*keyholev1.Field, len(e.GetArguments())+len(e.GetResults()))
	for i, v := range slices.Concat(e.GetArguments(), e.GetResults()) {
		fields[i] = &keyholev1.Field{Path: v.GetName(), Type: v.GetType(), Kind: v.GetKind(), Action: cmp.Or(v.GetRedaction().GetAction(), "keep")}
		if v.GetRedaction() != nil && v.GetMissing() == event.Redacted {
			fields[i].Missing = event.Redacted
		}
		fields[i].Result = i >= len(e.GetArguments())
	}
	return fields
}

// Status is the line at the bottom of a terminal; nil before there is anything to say.
func (t *Trace) Status(now time.Time) table.Line {
	s := t.session
	switch {
	case s == nil:
		return nil
	case s.GetState() == keyholev1.SessionState_SESSION_STATE_GRANTED:
		return line(dim(fmt.Sprintf("  on record; waiting for %s …", cmp.Or(s.GetNode(), "the node"))))
	case t.columns == nil:
		return line(dim("  analysing and attaching …"))
	case s.GetState() >= keyholev1.SessionState_SESSION_STATE_DETACHING:
		return line(dim("  detaching …"))
	}
	hits, emitted := s.GetSummary().GetHits(), s.GetSummary().GetEmitted()
	text := fmt.Sprintf("  ↑ %s shown of %s calls · %s calls/s, shown %s/s", number(t.shown), number(max(hits, t.shown)),
		rate(t.hits, now), rate(t.rows, now))
	if s.GetSpec().GetAggregate() != "" {
		text = fmt.Sprintf("  ↑ %s counted of %s calls · %s calls/s", number(emitted), number(hits), rate(t.hits, now))
	}
	text += " · " + t.costText(now)
	if lost := s.GetSummary().GetLost(); lost > 0 {
		text += fmt.Sprintf(" · lost %s", number(lost))
	}
	if emitted > 0 && s.GetSpec().GetLimits().GetMaxHits() > 0 {
		text += fmt.Sprintf(" · %s of --max-hits %s", number(emitted), number(s.GetSpec().GetLimits().GetMaxHits()))
	}
	return line(dim(text + fmt.Sprintf(" · ends in %s · Ctrl-C detaches", clock(t.left(now)))))
}

// Quiet says once what is known when nothing was shown for a while after the attach.
func (t *Trace) Quiet(now time.Time) []table.Line {
	if t.quiet || t.columns == nil || now.Sub(t.attached) < quietTime || t.session.GetState() != keyholev1.SessionState_SESSION_STATE_ATTACHED {
		return nil
	}
	t.quiet = true
	s := t.session.GetSummary()
	after := fmt.Sprintf(" in %d s", quietTime/time.Second)
	if s.GetHits() == 0 {
		return []table.Line{
			line(warn(fmt.Sprintf("0 calls%s: %s is attached, and %s.", after, t.session.GetFunction(), t.uncalled()))),
			line(dim("  keyhole explain, with the same flags, says where its code was inlined; keyhole functions lists what else there is")),
		}
	}
	var why string
	switch max(s.GetFiltered(), s.GetSampledOut(), s.GetThrottled()) {
	case s.GetFiltered():
		why = "none met --where " + t.session.GetSpec().GetWhere()
	case s.GetSampledOut():
		why = "--sample left them out"
	default:
		why = "--rate left them out"
	}
	return []table.Line{line(warn(fmt.Sprintf("%s calls%s, none shown: %s.", number(s.GetHits()), after, why)))}
}

// uncalled says who made no call.
func (t *Trace) uncalled() string {
	if t.kernel {
		return "no process made the kernel call it"
	}
	return t.session.GetProcess() + " did not call it"
}

// left is the time until the deadline by this end's clock: the node's may show another time of day.
func (t *Trace) left(now time.Time) time.Duration {
	s := t.session
	if s.GetDeadline() == nil || s.GetAttached() == nil {
		return s.GetSpec().GetLimits().GetTtl().AsDuration()
	}
	return s.GetDeadline().AsTime().Sub(s.GetAttached().AsTime()) - now.Sub(t.attached)
}

// addSample adds a count and forgets those before the window, but for the last of them. Of those that come close together one is kept.
func addSample(list []sampled, now time.Time, count uint64) []sampled {
	const finest = rateWindow / 30
	if n := len(list); n > 1 && now.Sub(list[n-1].at) < finest {
		list[n-1].count = count
		return list
	}
	list = append(list, sampled{now, count})
	for len(list) > 2 && now.Sub(list[1].at) >= rateWindow {
		list = list[1:]
	}
	return list
}

// rate is how many a second there were in the window, as text.
func rate(list []sampled, now time.Time) string {
	if len(list) == 0 {
		return "0"
	}
	n, known := perSecond(list, now)
	switch {
	case !known:
		return "…"
	case n > 0 && n < 10:
		return fmt.Sprintf("%.1f", n)
	}
	return number(uint64(n + 0.5))
}

// perSecond is how much a second there was in the window, if it is long enough to say.
func perSecond(list []sampled, now time.Time) (n float64, known bool) {
	if len(list) == 0 {
		return 0, false
	}
	last, first := list[len(list)-1], list[0]
	for _, s := range list {
		if now.Sub(s.at) > rateWindow {
			first = s
		}
	}
	passed := now.Sub(first.at)
	if passed < time.Second/2 {
		return 0, false
	}
	return float64(last.count-first.count) / passed.Seconds(), true
}

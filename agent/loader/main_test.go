// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/decode"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/hot"
)

func TestMain(m *testing.M) { testkit.MainAlone(m) }

// A request is what a test asks of a probe. The zero value of everything but the function is a default.
type request struct {
	function string
	values   []target.Value
	redact   string // of every string; default keep
	where    string
	limits   probe.Limits // default: as many events and bytes as possible, 64 bytes of a string
	ring     int
	lifetime time.Duration // default: ten minutes

	countFirst bool
	aggregate  probe.Aggregate // by the first value
	stack      bool
}

// A session is one attached probe and the end of it that reads.
type session struct {
	*Reader
	program *Program
	decoder *decode.Decoder
}

// compile makes a real plan of a request.
func compile(t testing.TB, p *hot.Process, r request) *plan.Plan {
	t.Helper()
	if r.redact == "" {
		r.redact = "keep"
	}
	action, err := redact.ParseAction(r.redact)
	if err != nil {
		t.Fatal(err)
	}
	numbers := redact.Action{Kind: redact.Keep}
	if action.Kind == redact.Bucket {
		numbers = action
	}
	rules, err := redact.Shipped().WithOwner([]redact.Rule{
		{ID: "test/text", Match: redact.Match{Name: "text"}, Action: action},
		{ID: "test/wide", Match: redact.Match{Type: "*int"}, Action: numbers},
		{ID: "test/pointer", Match: redact.Match{Type: "pointer"}, Action: redact.Action{Kind: redact.Keep}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.limits.Rate == 0 {
		r.limits.Rate = probe.MaxRate
	}
	if r.limits.MaxBytes == 0 {
		r.limits.MaxBytes = probe.MaxBytes
	}
	if r.limits.ValueBytes == 0 {
		r.limits.ValueBytes = 64
	}
	spec := &probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: p.PID()}, Function: r.function, Where: r.where, Limits: r.limits, Reason: "test",
		Aggregate: r.aggregate,
	}
	if r.aggregate == probe.AggregateGroups || r.aggregate == probe.AggregateHistogram {
		spec.Arguments = []string{r.values[0].Path}
	}
	found := p.Target(t, r.function, r.values...)
	if spec.Stack = r.stack; r.stack {
		found.Stack = p.Modules(t)
	}
	compiled, err := plan.Compile(spec, found, rules)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// attach carries a request out. The probe ends with the test.
func attach(t testing.TB, p *hot.Process, r request) *session {
	t.Helper()
	return attachPlan(t, p, compile(t, p, r), r)
}

func attachPlan(t testing.TB, p *hot.Process, compiled *plan.Plan, r request) *session {
	t.Helper()
	if r.lifetime == 0 {
		r.lifetime = 10 * time.Minute
	}
	deadline := BootNow() + uint64(r.lifetime)
	program, err := Load(compiled, Options{LatestDeadlineNs: deadline, DeadlineNs: deadline, RingBytes: r.ring, CountFirst: r.countFirst, PerfEvents: true})
	if err != nil {
		var refused *VerifierError
		if errors.As(err, &refused) {
			for _, line := range refused.Log {
				t.Log(line)
			}
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	attachment, err := program.Attach(p.Exe)
	if err != nil {
		t.Fatal(err)
	}
	defer attachment.Close()
	files, err := attachment.Files()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := OpenReader(files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close() })
	meta := decode.Meta{Wall: func(ns uint64) time.Time { return time.Unix(0, int64(ns)) }}
	return &session{Reader: reader, program: program, decoder: decode.New(compiled, meta)}
}

// events reads and decodes all records that wait.
func (s *session) events(t testing.TB) []event.Event {
	t.Helper()
	var all []event.Event
	for _, r := range s.records(t) {
		e, err := s.decoder.Decode(r)
		if err != nil {
			t.Fatalf("%v: % x", err, r)
		}
		all = append(all, e)
	}
	return all
}

func (s *session) records(t testing.TB) [][]byte {
	t.Helper()
	var all [][]byte
	for {
		record, err := s.Read(time.Now())
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, append([]byte(nil), record...))
	}
}

// counts reads the counts and checks them against the number of calls that the target made.
func (s *session) counts(t testing.TB, calls int64) event.Counts {
	t.Helper()
	c, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	if sum := c.Emitted + c.Filtered + c.SampledOut + c.Throttled + c.OverLimit + c.Lost + c.Unpaired.Sum(); c.Hits != sum || c.Hits != uint64(calls) {
		t.Fatalf("%d calls: %+v, of which the outcomes are %d", calls, c, sum)
	}
	return c
}

func startHot(t testing.TB) *hot.Process {
	t.Helper()
	testkit.RequireRoot(t)
	testkit.Need(t, testkit.Processes...)
	return hot.Start(t)
}

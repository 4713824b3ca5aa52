// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/privsep"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/otlptest"
	"github.com/keyhole-dev/keyhole/internal/testkit/planetest"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

const nodeName = "n1"

// A site is a whole agent, in its processes, with a control plane that the test plays.
type site struct {
	t      *testing.T
	plane  *planetest.Plane
	dir    string
	config Config
	stop   context.CancelFunc
	agent  *privsep.MonitorProcess

	stream   *planetest.Stream
	hello    *keyholev1.Hello
	revision int64
	// What the agent said, in order.
	reports map[string]*keyholev1.Session // the newest
	events  []*keyholev1.Event
	records []*audit.Record
	head    audit.Head
	answers map[string]*keyholev1.Answer
}

func newSite(t *testing.T) *site {
	testkit.RequireRoot(t)
	dir := t.TempDir()
	s := &site{
		t: t, plane: planetest.Start(t, dir, nodeName), dir: dir,
		reports: map[string]*keyholev1.Session{}, answers: map[string]*keyholev1.Answer{},
	}
	p := s.plane
	s.config = Config{
		ControlPlane: p.Address, Node: nodeName, StateDir: filepath.Join(dir, "state"), CA: p.CA, Cert: p.Cert, Key: p.Key, GrantKeys: p.GrantKeys,
		LogKey: p.LogKey,
	}
	s.start()
	t.Cleanup(func() {
		stream := s.stream
		go func() { // as a control plane does: read to the end, then end
			for {
				if _, err := stream.Recv(); err != nil {
					stream.End(nil)
					return
				}
			}
		}()
		if err := s.end(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) start() {
	s.t.Helper()
	options, err := s.config.Options()
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	if s.agent, err = privsep.StartMonitor(ctx, options); err != nil {
		stop()
		s.t.Fatal(err)
	}
	s.accept()
}

// end stops the agent as an operator does and waits for it.
func (s *site) end() error {
	s.stop()
	select {
	case <-s.agent.Done():
		return s.agent.Wait()
	case <-time.After(20 * time.Second):
		return errors.New("the agent does not end")
	}
}

func (s *site) accept() {
	s.t.Helper()
	s.stream, s.hello = s.plane.Accept(s.t)
}

// until receives what the agent says until done, and takes it down. It acknowledges audit records, whose chain it checks.
func (s *site) until(what string, done func() bool) {
	s.t.Helper()
	waited := time.AfterFunc(20*time.Second, func() { s.stream.End(fmt.Errorf("the test waits in vain for %s", what)) })
	defer waited.Stop()
	for !done() {
		m := s.stream.Receive()
		switch m := m.GetMessage().(type) {
		case *keyholev1.ConnectRequest_Report:
			s.reports[m.Report.GetSession().GetId()] = m.Report.GetSession()
		case *keyholev1.ConnectRequest_Events:
			s.events = append(s.events, m.Events.GetEvents()...)
		case *keyholev1.ConnectRequest_Answer:
			s.answers[m.Answer.GetQuestionId()] = m.Answer
		case *keyholev1.ConnectRequest_Spool:
			for _, data := range m.Spool.GetRecords() {
				record, head, err := s.head.Follow(data, ed25519.PublicKey(s.hello.GetSpoolKey()), nodeName)
				if err != nil {
					s.t.Fatal(err)
				}
				s.records, s.head = append(s.records, record), head
			}
			s.stream.Receipt(s.head.Sequence)
		}
	}
}

func (s *site) untilState(id string, state keyholev1.SessionState) *keyholev1.Session {
	s.t.Helper()
	s.until(id+" to be "+state.String(), func() bool { return s.reports[id].GetState() == state })
	return s.reports[id]
}

// desire sends the set of these grants under the next revision.
func (s *site) desire(grants ...*keyholev1.Grant) {
	s.t.Helper()
	s.revision++
	s.stream.Desire(s.revision, grants...)
}

func (s *site) grant(id string, spec probe.Spec) *keyholev1.Grant {
	s.t.Helper()
	return &keyholev1.Grant{SessionId: id, Envelope: s.plane.Envelope(s.t, id, nodeName, 1, spec), Watched: true}
}

// kinds are the audit records of a session, in order.
func (s *site) kinds(id string) string {
	var kinds []string
	for _, r := range s.records {
		if r.SessionID == id {
			kinds = append(kinds, string(r.Kind))
		}
	}
	return strings.Join(kinds, " ")
}

func vault(t *testing.T) (*testkit.Program, probe.Spec) {
	p := testkit.Start(t, testkit.BuildGo(t, "test/targets/vault"))
	p.Expect("ready", 10*time.Second)
	p.Send("secret hunter2")
	p.Expect("ok", 10*time.Second)
	return p, probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: p.PID()}, Function: "main.Open", Reason: "a test",
		Limits: probe.Limits{TTL: time.Minute, Rate: 1000},
	}
}

func call(p *testkit.Program, n int) {
	p.Send(fmt.Sprintf("call %d", n))
	p.Expect("called", 10*time.Second)
}

const (
	attached = keyholev1.SessionState_SESSION_STATE_ATTACHED
	over     = keyholev1.SessionState_SESSION_STATE_ENDED
)

// TestSession follows one session from its grant to its end, to the control plane, the collector and the record.
func TestSession(t *testing.T) {
	collector, err := otlptest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer collector.Close()
	for _, v := range collector.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	s := newSite(t)
	if n := s.hello.GetNode(); n.GetTier() != "full" || n.GetName() != nodeName || n.GetKernel() == "" || !strings.HasPrefix(n.GetProgramDigest(), "sha256:") {
		t.Fatalf("hello says of the node %v", n)
	}
	target, spec := vault(t)
	spec.Redact = []probe.Redaction{{Path: "note", Action: "digest"}}
	before := testkit.ReadText(t, target.PID())
	grant := s.grant("s1", spec)
	s.desire(grant)
	report := s.untilState("s1", attached)
	if report.GetHolderPid() == 0 || len(report.GetSites()) != 1 || report.GetFunction() != "main.Open" || !strings.HasPrefix(report.GetProcess(), "vault[") ||
		report.GetDeadline().AsTime().Sub(report.GetAttached().AsTime()).Round(time.Second) != time.Minute {
		t.Errorf("attached: %v", report)
	}
	if got := s.kinds("s1"); !strings.HasPrefix(got, "about_to_attach") {
		s.until("the first record", func() bool { return s.kinds("s1") != "" })
	}
	call(target, 5)
	s.until("5 events", func() bool { return len(s.events) == 5 })
	for i, e := range s.events {
		if e.GetFunction() != "main.Open" || int(e.GetProcess().GetPid()) != target.PID() || e.GetTraceId() == "" || len(e.GetArguments()) != 3 {
			t.Fatalf("event: %v", e)
		}
		if account := e.GetArguments()[0]; account.GetMissing() != "redacted" || account.GetValue() != "" || account.GetRedaction().GetAction() != "drop" {
			t.Errorf("account left as %v", account)
		}
		if n := e.GetArguments()[2]; n.GetValue() != fmt.Sprint(i) {
			t.Errorf("n left as %v; want %d", n, i)
		}
	}
	grant.Stop, grant.StoppedBy = true, "stopped"
	s.desire(grant)
	report = s.untilState("s1", over)
	if u := report.GetSummary(); u.GetEndedBy() != "stopped" || u.GetHits() != 5 || u.GetEmitted() != 5 || u.GetDelivered() != 5 || !u.GetCountsFinal() {
		t.Errorf("summary: %v", u)
	}
	s.until("the records", func() bool { return s.kinds("s1") == "about_to_attach attached detached" })
	if d := s.records[2].Details; d["endedBy"] != "stopped" || d["textRestored"] != "true" || !strings.Contains(d["counts"], "hits=5 emitted=5") {
		t.Errorf("on record: %v", d)
	}
	if different := before.Differences(testkit.ReadText(t, target.PID())); len(different) > 0 {
		t.Errorf("the text is not restored: %q", different)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := collector.WaitFor(ctx, func(spans []otlptest.Span, _ []otlptest.LogRecord) bool { return len(spans) == 5 }); err != nil {
		t.Fatal(err)
	}
	for _, span := range collector.Spans() {
		same := func(e *keyholev1.Event) bool {
			return e.GetSpanId() == hex.EncodeToString(span.GetSpanId()) && e.GetTraceId() == hex.EncodeToString(span.GetTraceId())
		}
		if !slices.ContainsFunc(s.events, same) {
			t.Errorf("span %x is no event's", span.GetSpanId())
		}
		if strings.Contains(span.String(), "hunter2") {
			t.Errorf("a span holds the secret: %v", span)
		}
	}

	// The same grant again begins nothing: the session is reported as over.
	grant.Stop = false
	delete(s.reports, "s1")
	s.desire(grant)
	s.untilState("s1", over)
	if got := s.kinds("s1"); got != "about_to_attach attached detached" {
		t.Errorf("after a replay there are records %q", got)
	}
}

func TestSessionEndsAtItsDeadline(t *testing.T) {
	s := newSite(t)
	target, spec := vault(t)
	spec.Limits.TTL = 3 * time.Second
	s.desire(s.grant("s1", spec))
	begun := s.untilState("s1", attached).GetAttached().AsTime()
	call(target, 3)
	report := s.untilState("s1", over)
	if report.GetSummary().GetEndedBy() != "deadline" || report.GetSummary().GetHits() != 3 {
		t.Errorf("summary: %v", report.GetSummary())
	}
	// The deadline is fixed before the holder loads; that it is attached is noted when it has become a reader, which takes a
	// race build a while.
	if took := report.GetEnded().AsTime().Sub(begun); took < time.Second || took > 5*time.Second {
		t.Errorf("it took %v; its TTL is three seconds", took)
	}
}

func TestRefusals(t *testing.T) {
	s := newSite(t)
	target, spec := vault(t)
	unknown, own, foreign := spec, spec, spec
	unknown.Function = "main.Opne"
	own.Target.PID = s.agent.PID()
	foreign.Reason = "somebody else's"
	s.desire(
		s.grant("unknown", unknown), s.grant("own", own),
		&keyholev1.Grant{SessionId: "forged", Envelope: []byte(`{"payloadType":"x"}`)},
		&keyholev1.Grant{SessionId: "stolen", Envelope: s.plane.Envelope(t, "stolen", "n2", 1, foreign)},
	)
	for id, want := range map[string]string{"unknown": "NOT_FOUND", "own": "PERMISSION_DENIED", "forged": "PERMISSION_DENIED", "stolen": "PERMISSION_DENIED"} {
		report := s.untilState(id, over)
		if report.GetErrorCode() != want || report.GetError() == "" || report.GetSummary().GetEndedBy() != "not_attached" {
			t.Errorf("%s: ended by %s, %s: %s", id, report.GetSummary().GetEndedBy(), report.GetErrorCode(), report.GetError())
		}
		s.until("the record of "+id, func() bool { return s.kinds(id) != "" })
		if got := s.kinds(id); got != "refused" {
			t.Errorf("%s: on record is %q", id, got)
		}
	}
	call(target, 1) // unharmed
}

// TestControlPlaneAway: a session goes on without a control plane, and keeps its deadline when there is one again.
func TestControlPlaneAway(t *testing.T) {
	s := newSite(t)
	target, spec := vault(t)
	grant := s.grant("s1", spec)
	s.desire(grant)
	deadline := s.untilState("s1", attached).GetDeadline().AsTime()
	s.stream.End(nil)
	call(target, 2)
	s.accept()
	if got := s.hello.GetSessionIds(); !slices.Equal(got, []string{"s1"}) {
		t.Errorf("hello names the sessions %q", got)
	}
	s.revision = 0
	s.desire(grant)
	delete(s.reports, "s1")
	if again := s.untilState("s1", attached); again.GetDeadline().AsTime().Sub(deadline).Abs() > 100*time.Millisecond {
		t.Errorf("its deadline moved by %v", again.GetDeadline().AsTime().Sub(deadline))
	}
	s.desire() // the set is empty: nobody wants it any more
	if u := s.untilState("s1", over).GetSummary(); u.GetEndedBy() != "revoked" || u.GetHits() != 2 {
		t.Errorf("summary: %v", u)
	}
}

// TestAgentDies: its successor puts the end on record before it does anything else.
func TestAgentDies(t *testing.T) {
	s := newSite(t)
	target, spec := vault(t)
	before := testkit.ReadText(t, target.PID())
	grant := s.grant("s1", spec)
	s.desire(grant)
	s.untilState("s1", attached)
	if err := killAgent(s.agent.PID()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.agent.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the monitor outlives its agent")
	}
	if different := before.Differences(testkit.ReadText(t, target.PID())); len(different) > 0 {
		t.Errorf("the text is not restored: %q", different)
	}
	s.start()
	s.desire(grant)
	if u := s.untilState("s1", over).GetSummary(); u.GetEndedBy() != "agent_lost" {
		t.Errorf("summary: %v", u)
	}
	s.until("the records", func() bool { return strings.HasSuffix(s.kinds("s1"), "detached") })
	if got := s.kinds("s1"); got != "about_to_attach attached detached" {
		t.Errorf("on record is %q", got)
	}
	call(target, 1)
}

// TestAgentIsStopped: its sessions end with it, and it says so before it goes.
func TestAgentIsStopped(t *testing.T) {
	s := newSite(t)
	target, spec := vault(t)
	s.desire(s.grant("s1", spec))
	s.untilState("s1", attached)
	call(target, 4)
	ended := make(chan error, 1)
	go func() { ended <- s.end() }()
	u := s.untilState("s1", over).GetSummary()
	if u.GetEndedBy() != "agent_lost" || u.GetHits() != 4 || !u.GetCountsFinal() {
		t.Errorf("summary: %v", u)
	}
	s.until("the records", func() bool { return s.kinds("s1") == "about_to_attach attached detached" })
	s.stream.End(nil)
	if err := <-ended; err != nil {
		t.Errorf("the agent was asked to end, and says %v", err)
	}
}

func TestQuestions(t *testing.T) {
	s := newSite(t)
	target, spec := vault(t)
	s.stream.Ask("explain", &keyholev1.Question{Ask: &keyholev1.Question_Explain{Explain: wire.ToSpec(&spec)}})
	s.until("the explanation", func() bool { return s.answers["explain"] != nil })
	e := s.answers["explain"].GetExplain()
	if e.GetFunction() != "main.Open" || len(e.GetFields()) != 3 || e.GetFields()[0].GetAction() != "drop" || e.GetFields()[2].GetReads() == "" ||
		len(e.GetSites()) != 1 || e.GetListing() == "" || e.GetRecordBytes() == 0 {
		t.Errorf("explained: %v (%v)", e, s.answers["explain"].GetProblem())
	}
	s.stream.Ask("functions", &keyholev1.Question{Ask: &keyholev1.Question_Functions{Functions: &keyholev1.ListFunctionsRequest{
		Target: wire.ToSelector(spec.Target), Pattern: "main.Open", Limit: 5,
	}}})
	s.until("the list", func() bool { return s.answers["functions"] != nil })
	if f := s.answers["functions"].GetFunctions().GetFunctions(); len(f) != 1 || f[0].GetName() != "main.Open" || len(f[0].GetParameters()) != 3 {
		t.Errorf("listed: %v", s.answers["functions"])
	}
	spec.Target.PID = s.agent.PID()
	s.stream.Ask("own", &keyholev1.Question{Ask: &keyholev1.Question_Functions{Functions: &keyholev1.ListFunctionsRequest{
		Target: wire.ToSelector(spec.Target),
	}}})
	s.until("the refusal", func() bool { return s.answers["own"] != nil })
	if p := s.answers["own"].GetProblem(); p.GetCode() != "PERMISSION_DENIED" {
		t.Errorf("about our own process: %v", s.answers["own"])
	}
	call(target, 1)
}

// killAgent kills the networked child of a monitor.
func killAgent(monitor int) error {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range stats {
		var pid, parent int
		var comm, state string
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		if _, err := fmt.Sscan(string(data), &pid, &comm, &state, &parent); err == nil && parent == monitor && comm == "(keyhole-agent)" {
			return syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return errors.New("the monitor has no child that is an agent")
}

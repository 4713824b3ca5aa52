// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/planetest"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var spec = probe.Spec{
	Target: probe.Selector{Kind: probe.SelectPID, PID: 10}, Function: "main.f", Reason: "a test",
}.WithDefaults()

// A node is the agent behind the link that a test plays.
type node struct {
	connected chan struct{}
	desired   chan Desired
	explain   func(ctx context.Context, s *probe.Spec) (*Explanation, error)
}

func (n *node) Connected()        { n.connected <- struct{}{} }
func (n *node) Desired(d Desired) { n.desired <- d }
func (n *node) Live() []string    { return []string{"s1", "s2"} }

func (n *node) Explain(ctx context.Context, s *probe.Spec, _ *redact.Ruleset) (*Explanation, error) {
	return n.explain(ctx, s)
}

func (n *node) Functions(_ context.Context, s probe.Selector, pattern string, limit int) (*Listing, error) {
	if pattern == "nothing" {
		return nil, &problem.Error{Code: problem.NotFound, Message: "no function", Candidates: []string{"main.f"}}
	}
	return &Listing{
		Functions: []Function{{Name: "main.f", Line: 7, Parameters: []Parameter{{"qty", "int"}}}}, Matched: limit + 1, Executable: fmt.Sprint(s.PID),
	}, nil
}

// records is a spool in memory.
type records struct {
	mu    sync.Mutex
	all   [][]byte // the first has sequence number 1
	acked uint64
}

func (r *records) Pending(after uint64, limit int) ([][]byte, uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := max(after, r.acked)
	to := min(from+uint64(limit), uint64(len(r.all)))
	return r.all[from:to], to, nil
}

func (r *records) Acknowledge(upTo uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if upTo > uint64(len(r.all)) {
		return errors.New("there is no such record")
	}
	r.acked = max(r.acked, upTo)
	return nil
}

// link runs a link to the plane until the test ends.
func link(t *testing.T, p *planetest.Plane, spool Spool) (*Link, *node) {
	t.Helper()
	n := &node{connected: make(chan struct{}, 8), desired: make(chan Desired, 8)}
	l := New(Config{
		Address: p.Address, TLS: p.TLS,
		Node:   Node{Name: "n1", Version: "v1", Kernel: "6.12", Arch: "amd64", Tier: "full", ProgramDigest: "sha256:pp"},
		Grants: p.Pinned, SpoolKey: []byte("key"), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, n, spool)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		begun := time.Now()
		running.Wait()
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("the link took %v to end", d)
		}
	})
	return l, n
}

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing happens")
		panic("unreachable")
	}
}

func TestHelloAndGrants(t *testing.T) {
	p := planetest.Start(t, t.TempDir(), "n1")
	_, n := link(t, p, &records{})
	s, hello := p.Accept(t)
	if got := hello.GetNode(); got.GetName() != "n1" || got.GetKernel() != "6.12" || got.GetTier() != "full" || got.GetProgramDigest() != "sha256:pp" {
		t.Errorf("hello says of the node %v", got)
	}
	if !slices.Equal(hello.GetSessionIds(), []string{"s1", "s2"}) || string(hello.GetSpoolKey()) != "key" {
		t.Errorf("hello: %v", hello)
	}
	next(t, n.connected)
	good := p.Envelope(t, "s1", "n1", 3, spec)
	s.Desire(7,
		&keyholev1.Grant{SessionId: "s1", Envelope: good, Watched: true},
		&keyholev1.Grant{SessionId: "s2", Envelope: good},
		&keyholev1.Grant{SessionId: "s3", Envelope: p.Envelope(t, "s3", "n2", 3, spec)},
		&keyholev1.Grant{SessionId: "s4", Envelope: []byte("{}"), Stop: true, StoppedBy: "revoked"},
		&keyholev1.Grant{SessionId: "s1", Envelope: []byte("{}"), Stop: true},
	)
	d := next(t, n.desired)
	if d.Revision != 7 || len(d.Sessions) != 4 {
		t.Fatalf("desired: %+v; want revision 7 and 4 sessions", d)
	}
	if w := d.Sessions[0]; w.Refused != nil || w.Grant.Revision != 3 || w.Grant.Spec.Function != "main.f" || !w.Watched || w.Stop {
		t.Errorf("a good grant became %+v (refused: %v)", w.Grant, w.Refused)
	}
	for i, want := range []string{1: "for session s1", 2: "node n2", 3: "holds"} {
		if want == "" {
			continue
		}
		if w := d.Sessions[i]; w.Refused == nil || w.Grant != nil || w.Refused.Code != problem.PermissionDenied || !strings.Contains(w.Refused.Message, want) {
			t.Errorf("%s: refused: %v; want a refusal that says %q", w.SessionID, w.Refused, want)
		}
	}
	if w := d.Sessions[3]; !w.Stop || w.StoppedBy != "revoked" {
		t.Errorf("to stop needs no grant that is believed: stop %t by %q", w.Stop, w.StoppedBy)
	}
	s.Desire(8, &keyholev1.Grant{SessionId: "s1", Envelope: good, Stop: true})
	if w := next(t, n.desired).Sessions[0]; w.Refused != nil || !w.Stop || w.Watched {
		t.Errorf("the same grant with other wishes: refused %v, stop %t, watched %t", w.Refused, w.Stop, w.Watched)
	}
}

func TestQuestions(t *testing.T) {
	p := planetest.Start(t, t.TempDir(), "n1")
	_, n := link(t, p, &records{})
	release := make(chan struct{})
	n.explain = func(ctx context.Context, s *probe.Spec) (*Explanation, error) {
		if s.Function == "main.slow" {
			select {
			case <-release:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return nil, problem.New(problem.FailedPrecondition, "cannot")
	}
	s, _ := p.Accept(t)
	functions := func(pattern string) *keyholev1.Question {
		return &keyholev1.Question{Ask: &keyholev1.Question_Functions{Functions: &keyholev1.ListFunctionsRequest{
			Target: wire.ToSelector(spec.Target), Pattern: pattern, Limit: 5,
		}}}
	}
	s.Ask("q1", functions("f"))
	if a := s.Receive().GetAnswer(); a.GetQuestionId() != "q1" || a.GetFunctions().GetMatched() != 6 || a.GetFunctions().GetExecutable() != "10" ||
		a.GetFunctions().GetFunctions()[0].GetParameters()[0].GetType() != "int" {
		t.Errorf("answer: %v", a)
	}
	s.Ask("q2", functions("nothing"))
	if a := s.Receive().GetAnswer(); a.GetProblem().GetCode() != "NOT_FOUND" || !slices.Equal(a.GetProblem().GetCandidates(), []string{"main.f"}) {
		t.Errorf("answer: %v", a)
	}
	s.Ask("q3", &keyholev1.Question{Ask: &keyholev1.Question_Explain{Explain: &keyholev1.Spec{}}})
	if a := s.Receive().GetAnswer(); a.GetProblem().GetCode() != "INVALID_ARGUMENT" {
		t.Errorf("a question that makes no sense: %v", a)
	}
	s.Ask("q4", &keyholev1.Question{})
	if a := s.Receive().GetAnswer(); a.GetProblem().GetCode() != "UNIMPLEMENTED" {
		t.Errorf("a question of tomorrow: %v", a)
	}
	slow := spec
	slow.Function = "main.slow"
	for i := range questionLimit {
		s.Ask(fmt.Sprintf("slow%d", i), &keyholev1.Question{Ask: &keyholev1.Question_Explain{Explain: wire.ToSpec(&slow)}})
	}
	s.Ask("q5", functions("f"))
	if a := s.Receive().GetAnswer(); a.GetQuestionId() != "q5" || a.GetProblem().GetCode() != "RESOURCE_EXHAUSTED" {
		t.Errorf("one question too many: %v", a)
	}
	close(release)
	for range questionLimit {
		if a := s.Receive().GetAnswer(); a.GetProblem().GetCode() != "FAILED_PRECONDITION" {
			t.Errorf("answer: %v", a)
		}
	}
}

func TestSpoolIsHandedOverOnce(t *testing.T) {
	p := planetest.Start(t, t.TempDir(), "n1")
	spool := &records{}
	const n = 2*batchRecords + 3
	for i := range n {
		spool.all = append(spool.all, fmt.Appendf(nil, "record %d", i+1))
	}
	link(t, p, spool)
	s, _ := p.Accept(t)
	if got := s.Receive().GetSpool().GetRecords(); len(got) != batchRecords || string(got[0]) != "record 1" {
		t.Fatalf("%d records came first", len(got))
	}
	// The stream breaks before the receipt: the same records come again on the next.
	s.End(status.Error(codes.Unavailable, "restart"))
	s, _ = p.Accept(t)
	var got int
	for got < n {
		m := s.Receive().GetSpool().GetRecords()
		for _, r := range m {
			got++
			if string(r) != fmt.Sprintf("record %d", got) {
				t.Fatalf("record %d is %q", got, r)
			}
		}
		s.Receipt(uint64(got))
	}
	// All is acknowledged: a new stream begins with nothing of it.
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		spool.mu.Lock()
		acked := spool.acked
		spool.mu.Unlock()
		if acked == n {
			break
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%d of %d are acknowledged", acked, n)
		}
	}
	s.End(nil)
	s, _ = p.Accept(t)
	spool.mu.Lock()
	spool.all = append(spool.all, []byte("new"))
	spool.mu.Unlock()
	s.Ask("q", &keyholev1.Question{})
	var words []string
	for range 2 {
		m := s.Receive()
		for _, r := range m.GetSpool().GetRecords() {
			words = append(words, string(r))
		}
	}
	if !slices.Equal(words, []string{"new"}) {
		t.Errorf("the next stream hands over %q", words)
	}
}

func TestReconnect(t *testing.T) {
	p := planetest.Start(t, t.TempDir(), "n1")
	l, n := link(t, p, &records{})
	s, _ := p.Accept(t)
	next(t, n.connected)
	s.End(status.Error(codes.Internal, "bug"))
	// What is reported while a stream breaks may go with it; the state machine says it again. What is reported after that may not.
	for open := true; open; time.Sleep(time.Millisecond) {
		l.out.mu.Lock()
		open = l.out.open
		l.out.mu.Unlock()
	}
	l.Report(&Report{SessionID: "s1", State: Ended, EndedBy: "deadline", Problem: problem.New(problem.Internal, "broke")})
	s, _ = p.Accept(t)
	next(t, n.connected)
	if got := s.Receive().GetReport().GetSession(); got.GetId() != "s1" || got.GetSummary().GetEndedBy() != "deadline" || got.GetErrorCode() != "INTERNAL" || got.GetNode() != "n1" {
		t.Errorf("reported: %v", got)
	}
}

// TestClose: what was said before leaves, and its receipt is taken.
func TestClose(t *testing.T) {
	p := planetest.Start(t, t.TempDir(), "n1")
	spool := &records{}
	l, n := link(t, p, spool)
	s, _ := p.Accept(t)
	next(t, n.connected)
	spool.mu.Lock()
	spool.all = [][]byte{[]byte("detached")}
	spool.mu.Unlock()
	l.Report(&Report{SessionID: "s1", State: Ended, EndedBy: "agent_lost"})
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		l.Close(10 * time.Second)
	}()
	var words []string
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.GetSpool() != nil {
			words = append(words, "spool")
			s.Receipt(1)
		} else {
			words = append(words, m.GetReport().GetSession().GetSummary().GetEndedBy())
		}
	}
	s.End(nil)
	next(t, closed)
	slices.Sort(words)
	if !slices.Equal(words, []string{"agent_lost", "spool"}) || spool.acked != 1 {
		t.Errorf("before it closed the agent said %q, and %d records are acknowledged", words, spool.acked)
	}
}

// TestCloseWithoutStream does not wait for a control plane that is away.
func TestCloseWithoutStream(t *testing.T) {
	p := planetest.Start(t, t.TempDir(), "n1")
	p.Address = "127.0.0.1:1"
	l, _ := link(t, p, &records{})
	begun := time.Now()
	l.Close(10 * time.Second)
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
}

// TestNotesReachWhoAsked: what could not be read, or was left out, is said in the answer.
func TestNotesReachWhoAsked(t *testing.T) {
	note := "no debug information describes this function"
	if got := toExplanation("n1", &Explanation{Target: &target.Target{Notes: []string{note}}}).GetNotes(); len(got) != 1 || got[0] != note {
		t.Errorf("the notes are %q, want %q", got, note)
	}
}

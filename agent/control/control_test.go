// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var spec = probe.Spec{
	Target: probe.Selector{Kind: probe.SelectPID, PID: 10}, Function: "main.f", Reason: "a test",
}.WithDefaults()

// A plane is a control plane that a test plays: it hands out each stream that an agent opens.
type plane struct {
	keyholev1.UnimplementedAgentServiceServer
	streams chan *agentStream
	address string
	roots   *x509.CertPool
	key     ed25519.PrivateKey // of grants
	signer  note.Signer        // of the log
	log     note.Verifier
}

type agentStream struct {
	grpc.BidiStreamingServer[keyholev1.ConnectRequest, keyholev1.ConnectResponse]
	t    *testing.T
	over chan error
}

func (p *plane) Connect(s grpc.BidiStreamingServer[keyholev1.ConnectRequest, keyholev1.ConnectResponse]) error {
	a := &agentStream{BidiStreamingServer: s, over: make(chan error, 1)}
	select {
	case p.streams <- a:
	case <-s.Context().Done():
		return nil
	}
	select {
	case err := <-a.over:
		return err
	case <-s.Context().Done():
		return nil
	}
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plane"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(nil, template, template, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, public, err := note.GenerateKey(nil, "test/log")
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{streams: make(chan *agentStream), roots: x509.NewCertPool(), key: key}
	if p.signer, err = note.NewSigner(private); err != nil {
		t.Fatal(err)
	}
	if p.log, err = note.NewVerifier(public); err != nil {
		t.Fatal(err)
	}
	p.roots.AddCert(cert)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = l.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})))
	keyholev1.RegisterAgentServiceServer(server, p)
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(l) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return p
}

// accept waits for the agent's next stream and its hello.
func (p *plane) accept(t *testing.T) (*agentStream, *keyholev1.Hello) {
	t.Helper()
	select {
	case s := <-p.streams:
		s.t = t
		hello := s.receive().GetHello()
		if hello == nil {
			t.Fatal("the agent's first word is not hello")
		}
		return s, hello
	case <-time.After(10 * time.Second):
		t.Fatal("no agent connects")
		return nil, nil
	}
}

func (s *agentStream) receive() *keyholev1.ConnectRequest {
	s.t.Helper()
	m, err := s.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *agentStream) send(m *keyholev1.ConnectResponse) {
	s.t.Helper()
	if err := s.Send(m); err != nil {
		s.t.Fatal(err)
	}
}

func (s *agentStream) desire(revision int64, grants ...*keyholev1.Grant) {
	s.t.Helper()
	s.send(&keyholev1.ConnectResponse{Message: &keyholev1.ConnectResponse_Desired{
		Desired: &keyholev1.DesiredSet{Revision: revision, Grants: grants},
	}})
}

// envelope makes a grant with its proof: a log of one leaf.
func (p *plane) envelope(t *testing.T, session, node string) []byte {
	t.Helper()
	leaf, err := json.Marshal(map[string]any{
		"kind": "granted", "sessionId": session, "node": node, "details": map[string]string{grant.SpecDigest: spec.Digest()},
	})
	if err != nil {
		t.Fatal(err)
	}
	root := rfc6962.DefaultHasher.HashLeaf(leaf)
	checkpoint, err := note.Sign(&note.Note{Text: fmt.Sprintf("test/log\n1\n%s\n", base64.StdEncoding.EncodeToString(root))}, p.signer)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := grant.Sign(grant.Grant{
		SessionID: session, Revision: 3, Node: node, Requester: "ada", Spec: spec, Rules: *redact.Shipped(), TTL: time.Minute,
		PolicyDigest: redact.Shipped().Digest(), Issued: time.Now(), Intent: grant.Intent{Leaf: leaf, Checkpoint: checkpoint},
	}, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

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
func link(t *testing.T, p *plane, spool Spool) (*Link, *node) {
	t.Helper()
	n := &node{connected: make(chan struct{}, 8), desired: make(chan Desired, 8)}
	l := New(Config{
		Address: p.address,
		TLS:     func() (*tls.Config, error) { return &tls.Config{RootCAs: p.roots}, nil },
		Node:    Node{Name: "n1", Version: "v1", Kernel: "6.12", Arch: "amd64", Tier: "full", ProgramDigest: "sha256:pp"},
		Grants:  grant.Verifier{Keys: []ed25519.PublicKey{p.key.Public().(ed25519.PublicKey)}, LogKey: p.log, Node: "n1"}, SpoolKey: []byte("key"),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
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
	p := newPlane(t)
	_, n := link(t, p, &records{})
	s, hello := p.accept(t)
	if got := hello.GetNode(); got.GetName() != "n1" || got.GetKernel() != "6.12" || got.GetTier() != "full" || got.GetProgramDigest() != "sha256:pp" {
		t.Errorf("hello says of the node %v", got)
	}
	if !slices.Equal(hello.GetSessionIds(), []string{"s1", "s2"}) || string(hello.GetSpoolKey()) != "key" {
		t.Errorf("hello: %v", hello)
	}
	next(t, n.connected)
	good := p.envelope(t, "s1", "n1")
	s.desire(7,
		&keyholev1.Grant{SessionId: "s1", Envelope: good, Watched: true},
		&keyholev1.Grant{SessionId: "s2", Envelope: good},
		&keyholev1.Grant{SessionId: "s3", Envelope: p.envelope(t, "s3", "n2")},
		&keyholev1.Grant{SessionId: "s4", Envelope: []byte("{}"), Stop: true, StoppedBy: "revoked"},
		&keyholev1.Grant{SessionId: "s1", Envelope: []byte("{}"), Stop: true},
	)
	d := next(t, n.desired)
	if d.Revision != 7 || len(d.Sessions) != 4 {
		t.Fatalf("desired: %+v; want revision 7 and 4 sessions", d)
	}
	if w := d.Sessions[0]; w.Refused != nil || w.Grant.Revision != 3 || w.Grant.Spec.Function != "main.f" || !w.Watched || w.Stop {
		t.Errorf("a good grant became %+v (%v)", w, w.Refused)
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
		t.Errorf("stop does not need a grant that is believed: %+v", w)
	}
	s.desire(8, &keyholev1.Grant{SessionId: "s1", Envelope: good, Stop: true})
	if w := next(t, n.desired).Sessions[0]; w.Refused != nil || !w.Stop || w.Watched {
		t.Errorf("the same grant with other wishes became %+v", w)
	}
}

func TestQuestions(t *testing.T) {
	p := newPlane(t)
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
	s, _ := p.accept(t)
	ask := func(id string, q *keyholev1.Question) {
		q.Id = id
		s.send(&keyholev1.ConnectResponse{Message: &keyholev1.ConnectResponse_Question{Question: q}})
	}
	functions := func(pattern string) *keyholev1.Question {
		return &keyholev1.Question{Ask: &keyholev1.Question_Functions{Functions: &keyholev1.ListFunctionsRequest{
			Target: wire.ToSelector(spec.Target), Pattern: pattern, Limit: 5,
		}}}
	}
	ask("q1", functions("f"))
	if a := s.receive().GetAnswer(); a.GetQuestionId() != "q1" || a.GetFunctions().GetMatched() != 6 || a.GetFunctions().GetExecutable() != "10" ||
		a.GetFunctions().GetFunctions()[0].GetParameters()[0].GetType() != "int" {
		t.Errorf("answer: %v", a)
	}
	ask("q2", functions("nothing"))
	if a := s.receive().GetAnswer(); a.GetProblem().GetCode() != "NOT_FOUND" || !slices.Equal(a.GetProblem().GetCandidates(), []string{"main.f"}) {
		t.Errorf("answer: %v", a)
	}
	ask("q3", &keyholev1.Question{Ask: &keyholev1.Question_Explain{Explain: &keyholev1.Spec{}}})
	if a := s.receive().GetAnswer(); a.GetProblem().GetCode() != "INVALID_ARGUMENT" {
		t.Errorf("a question that makes no sense: %v", a)
	}
	ask("q4", &keyholev1.Question{})
	if a := s.receive().GetAnswer(); a.GetProblem().GetCode() != "UNIMPLEMENTED" {
		t.Errorf("a question of tomorrow: %v", a)
	}
	slow := spec
	slow.Function = "main.slow"
	for i := range questionLimit {
		ask(fmt.Sprintf("slow%d", i), &keyholev1.Question{Ask: &keyholev1.Question_Explain{Explain: wire.ToSpec(&slow)}})
	}
	ask("q5", functions("f"))
	if a := s.receive().GetAnswer(); a.GetQuestionId() != "q5" || a.GetProblem().GetCode() != "RESOURCE_EXHAUSTED" {
		t.Errorf("one question too many: %v", a)
	}
	close(release)
	for range questionLimit {
		if a := s.receive().GetAnswer(); a.GetProblem().GetCode() != "FAILED_PRECONDITION" {
			t.Errorf("answer: %v", a)
		}
	}
}

func TestSpoolIsHandedOverOnce(t *testing.T) {
	p := newPlane(t)
	spool := &records{}
	const n = 2*batchRecords + 3
	for i := range n {
		spool.all = append(spool.all, fmt.Appendf(nil, "record %d", i+1))
	}
	link(t, p, spool)
	s, _ := p.accept(t)
	if got := s.receive().GetSpool().GetRecords(); len(got) != batchRecords || string(got[0]) != "record 1" {
		t.Fatalf("%d records came first", len(got))
	}
	// The stream breaks before the receipt: the same records come again on the next.
	s.over <- status.Error(codes.Unavailable, "restart")
	s, _ = p.accept(t)
	var got int
	for got < n {
		m := s.receive().GetSpool().GetRecords()
		for _, r := range m {
			got++
			if string(r) != fmt.Sprintf("record %d", got) {
				t.Fatalf("record %d is %q", got, r)
			}
		}
		s.send(&keyholev1.ConnectResponse{Message: &keyholev1.ConnectResponse_SpoolReceipt{SpoolReceipt: &keyholev1.SpoolReceipt{Records: uint64(got)}}})
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
	s.over <- nil
	s, _ = p.accept(t)
	spool.mu.Lock()
	spool.all = append(spool.all, []byte("new"))
	spool.mu.Unlock()
	s.send(&keyholev1.ConnectResponse{Message: &keyholev1.ConnectResponse_Question{Question: &keyholev1.Question{}}})
	var words []string
	for range 2 {
		m := s.receive()
		for _, r := range m.GetSpool().GetRecords() {
			words = append(words, string(r))
		}
	}
	if !slices.Equal(words, []string{"new"}) {
		t.Errorf("the next stream hands over %q", words)
	}
}

func TestReconnect(t *testing.T) {
	p := newPlane(t)
	l, n := link(t, p, &records{})
	s, _ := p.accept(t)
	next(t, n.connected)
	s.over <- status.Error(codes.Internal, "bug")
	// What is reported while a stream breaks may go with it; the state machine says it again. What is reported after that may not.
	for open := true; open; time.Sleep(time.Millisecond) {
		l.out.mu.Lock()
		open = l.out.open
		l.out.mu.Unlock()
	}
	l.Report(&Report{SessionID: "s1", State: Ended, EndedBy: "deadline", Problem: problem.New(problem.Internal, "broke")})
	s, _ = p.accept(t)
	next(t, n.connected)
	if got := s.receive().GetReport().GetSession(); got.GetId() != "s1" || got.GetSummary().GetEndedBy() != "deadline" || got.GetErrorCode() != "INTERNAL" || got.GetNode() != "n1" {
		t.Errorf("reported: %v", got)
	}
}

// TestClose: what was said before leaves, and its receipt is taken.
func TestClose(t *testing.T) {
	p := newPlane(t)
	spool := &records{}
	l, n := link(t, p, spool)
	s, _ := p.accept(t)
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
			s.send(&keyholev1.ConnectResponse{Message: &keyholev1.ConnectResponse_SpoolReceipt{SpoolReceipt: &keyholev1.SpoolReceipt{Records: 1}}})
		} else {
			words = append(words, m.GetReport().GetSession().GetSummary().GetEndedBy())
		}
	}
	s.over <- nil
	next(t, closed)
	slices.Sort(words)
	if !slices.Equal(words, []string{"agent_lost", "spool"}) || spool.acked != 1 {
		t.Errorf("before it closed the agent said %q, and %d records are acknowledged", words, spool.acked)
	}
}

// TestCloseWithoutStream does not wait for a control plane that is away.
func TestCloseWithoutStream(t *testing.T) {
	p := newPlane(t)
	p.address = "127.0.0.1:1"
	l, _ := link(t, p, &records{})
	begun := time.Now()
	l.Close(10 * time.Second)
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
}

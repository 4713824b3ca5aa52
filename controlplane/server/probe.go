// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyhole-dev/keyhole/controlplane/registry"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// answerTime is how long a node has to explain a request or to list functions.
const answerTime = 20 * time.Second

// proofTime is how long a session waits for the proof that its intent is on record.
const proofTime = 5 * time.Second

type probeService struct {
	keyholev1.UnimplementedProbeServiceServer
	s *Server
}

func (p probeService) CreateSession(ctx context.Context, request *keyholev1.CreateSessionRequest) (*keyholev1.CreateSessionResponse, error) {
	caller := callerOf(ctx).String()
	spec, err := wire.FromSpec(request.GetSpec())
	if err != nil {
		return nil, err
	}
	if earlier, err := p.s.Registry.Requested(ctx, caller, request.GetRequestId()); err != nil || earlier != nil {
		return p.earlier(earlier, err)
	}
	node, err := p.s.pickNode(spec.Target.Node)
	if err != nil {
		return nil, err
	}
	id := newSessionID()
	if _, err := p.s.record(ctx, audit.Record{
		Kind: audit.Requested, SessionID: id, Actor: caller, Node: node, Details: details(spec),
	}); err != nil {
		return nil, err
	}
	envelope, index, err := p.s.grant(ctx, id, caller, node, spec)
	if err != nil {
		return nil, err
	}
	session := &keyholev1.Session{
		Id: id, Spec: wire.ToSpec(spec), Requester: caller, Node: node, State: keyholev1.SessionState_SESSION_STATE_GRANTED,
		Created: timestamppb.Now(), PolicyDigest: p.s.Rules.Digest(),
	}
	earlier, err := p.s.Registry.Create(ctx, session, envelope, index, request.GetRequestId())
	if err != nil || earlier != nil {
		return p.earlier(earlier, err) // the same request at the same time; the grant above is given to nobody
	}
	return &keyholev1.CreateSessionResponse{Session: session, AuditIndex: index}, nil
}

func (p probeService) earlier(e *registry.Earlier, err error) (*keyholev1.CreateSessionResponse, error) {
	if err != nil {
		return nil, err
	}
	session, err := p.s.Registry.Session(e.SessionID)
	if err != nil {
		return nil, err
	}
	return &keyholev1.CreateSessionResponse{Session: session, AuditIndex: e.AuditIndex}, nil
}

// grant puts the intent on record, awaits the proof of it, and signs the grant that carries the proof.
func (s *Server) grant(ctx context.Context, id, caller, node string, spec *probe.Spec) (envelope []byte, index uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, proofTime)
	defer cancel()
	now := time.Now()
	g := grant.Grant{
		SessionID: id, Revision: 1, Node: node, Requester: caller, Spec: *spec, Rules: *s.Rules, TTL: spec.Limits.TTL, PolicyDigest: s.Rules.Digest(), Issued: now,
	}
	d := details(spec)
	maps.Copy(d, g.Evidence())
	proof, err := s.Log.AppendProved(ctx, &audit.Record{
		Kind: audit.Granted, Time: now, SessionID: id, Actor: caller, Node: node, Details: d,
	})
	if err != nil {
		return nil, 0, problem.New(problem.Internal, "the request could not be put on record, so nothing is granted: %v", err)
	}
	g.Intent = grant.Intent{Index: proof.Index, Leaf: proof.Record, Proof: proof.Hashes, Checkpoint: proof.Checkpoint}
	envelope, err = grant.Sign(g, s.GrantKey)
	return envelope, proof.Index, err
}

// details say what a request asks for, and why.
func details(spec *probe.Spec) map[string]string {
	d := map[string]string{
		"target": spec.Target.String(), "function": spec.Function, "reason": spec.Reason, "ttl": spec.Limits.TTL.String(),
	}
	if len(spec.Arguments) > 0 {
		d["arguments"] = cut(strings.Join(spec.Arguments, " "))
	}
	if spec.Where != "" {
		d["where"] = cut(spec.Where)
	}
	return d
}

// newSessionID returns an ID that nobody guesses: 80 random bits.
func newSessionID() string {
	const letters = 16
	return "s-" + strings.ToLower(rand.Text()[:letters])
}

// pickNode returns the node that a request is for.
func (s *Server) pickNode(name string) (string, error) {
	var names []string
	for _, n := range s.Registry.Nodes() {
		names = append(names, n.GetName())
		if n.GetName() == name {
			return name, nil
		}
	}
	switch {
	case name != "":
		p := problem.New(problem.NotFound, "no node %s is connected", name)
		p.Candidates = names
		return "", p
	case len(names) == 1:
		return names[0], nil
	case len(names) == 0:
		return "", problem.New(problem.Unavailable, "no node is connected: start an agent")
	}
	p := problem.New(problem.InvalidArgument, "%d nodes are connected: name one", len(names))
	p.Candidates = names
	return "", p
}

func (p probeService) WatchSession(request *keyholev1.WatchSessionRequest, stream grpc.ServerStreamingServer[keyholev1.WatchSessionResponse]) error {
	ctx, cancel := p.s.until(stream.Context())
	defer cancel(nil)
	session, err := p.s.Registry.Session(request.GetSessionId())
	if err != nil {
		return err
	}
	if _, err := p.s.record(ctx, audit.Record{
		Kind: audit.Read, SessionID: session.GetId(), Actor: callerOf(ctx).String(), Node: session.GetNode(),
	}); err != nil {
		return err
	}
	watcher, err := p.s.Registry.Watch(request.GetSessionId())
	if err != nil {
		return err
	}
	defer watcher.Close()
	for {
		m, err := watcher.Next(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		if m.GetSummary() != nil {
			return nil
		}
	}
}

func (p probeService) GetSession(_ context.Context, request *keyholev1.GetSessionRequest) (*keyholev1.GetSessionResponse, error) {
	session, err := p.s.Registry.Session(request.GetSessionId())
	return &keyholev1.GetSessionResponse{Session: session}, err
}

func (p probeService) ListSessions(_ context.Context, request *keyholev1.ListSessionsRequest) (*keyholev1.ListSessionsResponse, error) {
	return &keyholev1.ListSessionsResponse{Sessions: p.s.Registry.Sessions(request.GetAll())}, nil
}

func (p probeService) StopSession(ctx context.Context, request *keyholev1.StopSessionRequest) (*keyholev1.StopSessionResponse, error) {
	var sessions []*keyholev1.Session
	if id := request.GetSessionId(); id != "" {
		session, err := p.s.Registry.Session(id)
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, session)
	} else {
		for _, session := range p.s.Registry.Sessions(false) {
			if request.GetAll() || session.GetNode() == request.GetNode() {
				sessions = append(sessions, session)
			}
		}
		// A name that was mistyped must not look like a node where all has been stopped.
		if name := request.GetNode(); name != "" && len(sessions) == 0 {
			if _, err := p.s.pickNode(name); err != nil {
				return nil, err
			}
		}
	}
	caller := callerOf(ctx).String()
	for i, session := range sessions {
		if session.GetState() == keyholev1.SessionState_SESSION_STATE_ENDED {
			continue
		}
		if _, err := p.s.record(ctx, audit.Record{
			Kind: audit.StopRequested, SessionID: session.GetId(), Actor: caller, Node: session.GetNode(),
		}); err != nil {
			return nil, err
		}
		by := event.EndStopped
		if session.GetRequester() != caller {
			by = event.EndRevoked
		}
		if err := p.s.Registry.Stop(ctx, session.GetId(), by); err != nil {
			return nil, err
		}
		if now, err := p.s.Registry.Session(session.GetId()); err == nil {
			sessions[i] = now
		}
	}
	return &keyholev1.StopSessionResponse{Sessions: sessions}, nil
}

func (p probeService) Explain(ctx context.Context, request *keyholev1.ExplainRequest) (*keyholev1.ExplainResponse, error) {
	spec, err := wire.FromSpec(request.GetSpec())
	if err != nil {
		return nil, err
	}
	answer, err := p.s.ask(ctx, spec.Target.Node, &keyholev1.Question{Ask: &keyholev1.Question_Explain{Explain: wire.ToSpec(spec)}})
	return answer.GetExplain(), err
}

func (p probeService) ListFunctions(ctx context.Context, request *keyholev1.ListFunctionsRequest) (*keyholev1.ListFunctionsResponse, error) {
	selector, err := wire.FromSelector(request.GetTarget())
	if err != nil {
		return nil, err
	}
	answer, err := p.s.ask(ctx, selector.Node, &keyholev1.Question{Ask: &keyholev1.Question_Functions{Functions: request}})
	return answer.GetFunctions(), err
}

// ask puts a question to a node and returns its answer. What the node has against it is the error.
func (s *Server) ask(ctx context.Context, node string, q *keyholev1.Question) (*keyholev1.Answer, error) {
	node, err := s.pickNode(node)
	if err != nil {
		return nil, err
	}
	if q.Redaction, err = json.Marshal(s.Rules); err != nil {
		return nil, err
	}
	q.Id = rand.Text()
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	answer, err := s.Registry.Ask(ctx, node, q)
	if err != nil {
		return nil, err
	}
	if p := wire.FromProblem(answer.GetProblem()); p != nil {
		return nil, p
	}
	return answer, nil
}

func (p probeService) ListNodes(context.Context, *keyholev1.ListNodesRequest) (*keyholev1.ListNodesResponse, error) {
	return &keyholev1.ListNodesResponse{Nodes: p.s.Registry.Nodes()}, nil
}

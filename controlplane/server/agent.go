// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/keyhole-dev/keyhole/controlplane/registry"
	"github.com/keyhole-dev/keyhole/controlplane/store"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

type agentService struct {
	keyholev1.UnimplementedAgentServiceServer
	s *Server
}

type agentStream = grpc.BidiStreamingServer[keyholev1.ConnectRequest, keyholev1.ConnectResponse]

// Connect is one agent's stream.
func (a agentService) Connect(stream agentStream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return problem.New(problem.InvalidArgument, "an agent's first word is hello")
	}
	caller := callerOf(stream.Context())
	if hello.GetNode().GetName() != caller.Name {
		return problem.New(problem.PermissionDenied, "the certificate is that of node %s, and the agent says that it is %.253q", caller.Name, hello.GetNode().GetName())
	}
	spool, err := a.s.openSpool(stream.Context(), caller.Name, hello.GetSpoolKey())
	if err != nil {
		return err
	}
	ctx, cancel := a.s.until(stream.Context())
	defer cancel(nil)
	c := &agentConnection{
		Connection: a.s.Registry.Connect(hello.GetNode(), func() {
			cancel(problem.New(problem.Aborted, "node %s has opened another stream", caller.Name))
		}),
		s: a.s, stream: stream, spool: spool, batches: make(chan [][]byte), receipts: make(chan uint64),
	}
	defer c.Close()
	over := make(chan error, 2) // of both, though only the first is read
	for _, part := range []func(context.Context) error{c.receive, c.takeOver} {
		a.s.work.Go(func() {
			var err error
			defer func() { over <- a.s.survive(recover(), err) }()
			err = part(ctx)
		})
	}
	return c.send(ctx, over)
}

// An agentConnection is one agent's stream. One goroutine takes what arrives, one sends what leaves, and one takes audit records
// over into the log, so that events do not wait for that.
type agentConnection struct {
	*registry.Connection
	s        *Server
	stream   agentStream
	spool    *nodeSpool
	batches  chan [][]byte
	receipts chan uint64
}

// send sends until the stream ends, or either of the other two does.
func (c *agentConnection) send(ctx context.Context, over <-chan error) error {
	for {
		m := &keyholev1.ConnectResponse{}
		select {
		case <-c.Poked():
			m.Message = &keyholev1.ConnectResponse_Desired{Desired: c.Desired()}
		case q := <-c.Questions():
			m.Message = &keyholev1.ConnectResponse_Question{Question: q}
		case n := <-c.receipts:
			m.Message = &keyholev1.ConnectResponse_SpoolReceipt{SpoolReceipt: &keyholev1.SpoolReceipt{Records: n}}
		case err := <-over:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := c.stream.Send(m); err != nil {
			return err
		}
	}
}

// receive takes what the agent says until it ends its stream.
func (c *agentConnection) receive(ctx context.Context) error {
	for {
		request, err := c.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := request.GetMessage().(type) {
		case *keyholev1.ConnectRequest_Report:
			err = c.s.Registry.Report(ctx, c.spool.node, m.Report.GetSession())
			if p, ok := errors.AsType[*problem.Error](err); ok && (p.Code == problem.NotFound || p.Code == problem.PermissionDenied) {
				err = nil // of a session that is not kept any longer, or never was its own: there is nothing to say about it
			}
		case *keyholev1.ConnectRequest_Events:
			c.s.Registry.Deliver(c.spool.node, m.Events.GetEvents())
		case *keyholev1.ConnectRequest_Counts:
			c.s.Registry.DeliverCounts(c.spool.node, m.Counts)
		case *keyholev1.ConnectRequest_Answer:
			c.Answered(m.Answer)
		case *keyholev1.ConnectRequest_Spool:
			select {
			case c.batches <- m.Spool.GetRecords():
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		default:
			err = problem.New(problem.InvalidArgument, "a message that is out of place on this stream")
		}
		if err != nil {
			return err
		}
	}
}

// takeOver takes the node's audit records over into the log and answers each batch with a receipt.
func (c *agentConnection) takeOver(ctx context.Context) error {
	for {
		select {
		case records := <-c.batches:
			upTo, err := c.spool.take(ctx, records)
			if err != nil {
				return err
			}
			select {
			case c.receipts <- upTo:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A nodeSpool takes a node's own audit records over into the log.
type nodeSpool struct {
	s     *Server
	node  string
	state spoolState
	value store.Value
}

// spoolState is what the store keeps of a node's spool.
type spoolState struct {
	Key  []byte     `json:"key"`
	Head audit.Head `json:"head"` // of what is in the log
}

// openSpool reads how far a node's records are in the log. A key that the node did not have before goes on record, and begins
// a new chain.
func (s *Server) openSpool(ctx context.Context, node string, key []byte) (*nodeSpool, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, problem.New(problem.InvalidArgument, "the agent's audit key has %d bytes; want an Ed25519 public key", len(key))
	}
	n := &nodeSpool{s: s, node: node}
	if err := n.load(ctx); err != nil {
		return nil, err
	}
	if string(n.state.Key) == string(key) {
		return n, nil
	}
	details := map[string]string{audit.AuditKey: hex.EncodeToString(key)}
	if len(n.state.Key) > 0 {
		details["instead"] = hex.EncodeToString(n.state.Key)
	}
	if _, err := s.record(ctx, audit.Record{Kind: audit.Credential, Actor: callerOf(ctx).String(), Node: node, Details: details}); err != nil {
		return nil, err
	}
	n.state = spoolState{Key: key}
	return n, n.save(ctx)
}

// load reads what is known of the spool; nothing is of a new node's.
func (n *nodeSpool) load(ctx context.Context) error {
	var err error
	n.state = spoolState{}
	n.value, err = n.s.Store.Read(ctx, "spools/"+n.node)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(n.value.Data, &n.state); err != nil {
		return fmt.Errorf("read what is known of the spool of node %s: %w", n.node, err)
	}
	return nil
}

func (n *nodeSpool) save(ctx context.Context) error {
	var err error
	if n.value.Data, err = json.Marshal(n.state); err != nil {
		return err
	}
	n.value.Revision, err = n.s.Store.Write(ctx, 0, n.value)
	return err
}

// take makes records durable in the log, in their order, and returns the number of the last one that is. Those that are in
// the log already are skipped; one that does not follow or is not signed ends the stream and goes on record.
func (n *nodeSpool) take(ctx context.Context, records [][]byte) (uint64, error) {
	for {
		upTo, err := n.takeOnce(ctx, records)
		if !errors.Is(err, store.ErrConflict) {
			return upTo, err
		}
		// An earlier stream of this node was not quite over.
		key := n.state.Key
		if err := n.load(ctx); err != nil {
			return 0, err
		}
		if string(n.state.Key) != string(key) {
			return 0, problem.New(problem.Aborted, "node %s has begun another spool", n.node)
		}
	}
}

// own says that a record is about a session of another node, as far as that is still known.
func (n *nodeSpool) own(r *audit.Record) error {
	if session, err := n.s.Registry.Session(r.SessionID); err == nil && session.GetNode() != n.node {
		return fmt.Errorf("a record about session %s, which is another node's", r.SessionID)
	}
	return nil
}

func (n *nodeSpool) takeOnce(ctx context.Context, records [][]byte) (uint64, error) {
	head := n.state.Head
	var fresh [][]byte
	for _, data := range records {
		r, err := audit.Parse(data)
		if err == nil && r.Chain != nil && (r.Chain.Sequence < head.Sequence || head.Is(data)) {
			continue
		}
		var next audit.Head
		if err == nil {
			err = n.own(r)
		}
		if err == nil {
			_, next, err = head.Follow(data, n.state.Key, n.node)
		}
		if err != nil {
			_, recorded := n.s.record(ctx, audit.Record{
				Kind: audit.Refused, Actor: callerOf(ctx).String(), Node: n.node, Details: map[string]string{"why": cut(err.Error())},
			})
			return 0, errors.Join(problem.New(problem.PermissionDenied, "audit records of node %s: %v", n.node, err), recorded)
		}
		fresh, head = append(fresh, data), next
	}
	if len(fresh) == 0 {
		return head.Sequence, nil
	}
	if err := n.s.Log.AppendAll(ctx, fresh); err != nil {
		return 0, err
	}
	n.state.Head = head
	// They are in the log now, even if the agent is gone.
	return head.Sequence, n.save(context.WithoutCancel(ctx))
}

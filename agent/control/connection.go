// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// A connection is one stream. Two goroutines carry it: run sends, receive receives; questions have one each.
type connection struct {
	link      *Link
	stream    grpc.BidiStreamingClient[keyholev1.ConnectRequest, keyholev1.ConnectResponse]
	receipt   chan uint64   // the newest receipt
	questions chan struct{} // one token for each question that is being answered

	work sync.WaitGroup
}

// run says hello and sends what there is to send until the stream breaks. cancel ends the stream.
func (c *connection) run(ctx context.Context, cancel context.CancelCauseFunc) error {
	defer c.work.Wait()
	defer cancel(nil)
	if err := c.stream.Send(c.link.hello()); err != nil {
		return c.broken(err)
	}
	c.link.out.setOpen(true)
	defer c.link.out.setOpen(false)
	c.link.config.Log.Info("control plane: connected", "address", c.link.config.Address)
	c.link.handler.Connected()
	c.work.Go(func() { cancel(c.receive(ctx)) })
	return c.send(ctx)
}

// broken returns why a Send failed, which only the receiving side is told.
func (c *connection) broken(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	for {
		if _, err := c.stream.Recv(); err != nil {
			return err
		}
	}
}

func (c *connection) send(ctx context.Context) error {
	spool := spooler{spool: c.link.spool}
	for {
		m, err := spool.next()
		if err != nil {
			return err
		}
		if m == nil {
			m = c.link.out.next()
		}
		if m != nil {
			if err := c.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
				return err
			} else if err != nil {
				<-ctx.Done() // receive has the reason, or soon will
				return context.Cause(ctx)
			}
			continue
		}
		closing := c.link.closing
		if spool.waiting {
			closing = nil // after the receipt
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.link.out.wake:
		case upTo := <-c.receipt:
			if err := spool.acknowledge(upTo); err != nil {
				return err
			}
		case <-closing:
			if err := c.stream.CloseSend(); err != nil {
				return err
			}
			<-ctx.Done() // the control plane has read everything, and ends the stream
			return nil
		}
	}
}

func (c *connection) receive(ctx context.Context) error {
	for {
		m, err := c.stream.Recv()
		if err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *keyholev1.ConnectResponse_Desired:
			c.link.desired(m.Desired)
		case *keyholev1.ConnectResponse_Question:
			c.question(ctx, m.Question)
		case *keyholev1.ConnectResponse_SpoolReceipt:
			select {
			case <-c.receipt: // an older one
			default:
			}
			c.receipt <- m.SpoolReceipt.GetRecords()
		}
	}
}

// question has one question answered, unless too many are.
func (c *connection) question(ctx context.Context, q *keyholev1.Question) {
	select {
	case c.questions <- struct{}{}:
	default:
		c.link.out.answer(problemAnswer(q.GetId(), problem.New(problem.ResourceExhausted, "this node answers %d questions already: ask again", questionLimit)))
		return
	}
	c.work.Go(func() {
		defer func() { <-c.questions }()
		ctx, cancel := context.WithTimeout(ctx, questionTime)
		defer cancel()
		a, err := c.link.answer(ctx, q)
		if errors.Is(err, context.DeadlineExceeded) {
			err = problem.New(problem.DeadlineExceeded, "this node did not find the answer within %v", questionTime)
		}
		if err != nil {
			a = problemAnswer(q.GetId(), problem.Of(err))
		}
		c.link.out.answer(a)
	})
}

func problemAnswer(id string, p *problem.Error) *keyholev1.Answer {
	return &keyholev1.Answer{QuestionId: id, Result: &keyholev1.Answer_Problem{Problem: wire.ToProblem(p)}}
}

func (l *Link) answer(ctx context.Context, q *keyholev1.Question) (*keyholev1.Answer, error) {
	switch ask := q.GetAsk().(type) {
	case *keyholev1.Question_Explain:
		spec, err := wire.FromSpec(ask.Explain)
		if err != nil {
			return nil, problem.New(problem.InvalidArgument, "%v", err)
		}
		rules := redact.Shipped()
		if len(q.GetRedaction()) > 0 {
			d := json.NewDecoder(bytes.NewReader(q.GetRedaction()))
			if err := d.Decode(rules); err != nil {
				return nil, fmt.Errorf("read the question's redaction rules: %w", err)
			}
		}
		e, err := l.handler.Explain(ctx, spec, rules)
		if err != nil {
			return nil, err
		}
		return &keyholev1.Answer{QuestionId: q.GetId(), Result: &keyholev1.Answer_Explain{Explain: toExplanation(l.config.Node.Name, e)}}, nil
	case *keyholev1.Question_Functions:
		s, err := wire.FromSelector(ask.Functions.GetTarget())
		if err != nil {
			return nil, problem.New(problem.InvalidArgument, "%v", err)
		}
		list, err := l.handler.Functions(ctx, s, ask.Functions.GetPattern(), int(ask.Functions.GetLimit()))
		if err != nil {
			return nil, err
		}
		return &keyholev1.Answer{QuestionId: q.GetId(), Result: &keyholev1.Answer_Functions{Functions: toListing(list)}}, nil
	}
	return nil, problem.New(problem.Unimplemented, "this node's agent does not know this question: it is older than the control plane")
}

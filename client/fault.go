// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/wire"
)

// Unreachable is a problem of code UNAVAILABLE that is about the control plane itself, not about a node: it is not there, or the
// way to it is lost.
type Unreachable struct{ Problem *problem.Error }

func (u *Unreachable) Error() string { return u.Problem.Message }

// Unwrap returns the problem.
func (u *Unreachable) Unwrap() error { return u.Problem }

func (c *Client) unreachable(format string, args ...any) error {
	return &Unreachable{problem.New(problem.Unavailable, format, args...)}
}

// explain turns an error of a call into the *problem.Error that says what to do. io.EOF is no error of a call.
func (c *Client) explain(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	s := status.Convert(err)
	said := slices.ContainsFunc(s.Details(), func(d any) bool {
		info, ok := d.(*errdetails.ErrorInfo)
		return ok && info.GetDomain() == wire.Domain
	})
	switch {
	case s.Code() == codes.DeadlineExceeded && !said:
		return c.unreachable("the control plane at %s did not answer in time", c.context.ControlPlane)
	case s.Code() != codes.Unavailable || said:
		return wire.FromStatus(err)
	}
	if refused := c.witness.refusal(); refused != nil {
		return problem.New(problem.Unauthenticated, "the control plane at %s and this client do not accept each other's certificates: %v; "+
			"the client's is %s, its authorities %s", c.context.ControlPlane, refused, c.context.Certificate, c.context.CA)
	}
	why := s.Message()
	if err := c.witness.unreached(); err != nil {
		why = err.Error()
	}
	return c.unreachable("no control plane answers at %s: %s; `keyhole dev` starts one on this machine, --control-plane names another",
		c.context.ControlPlane, why)
}

func (c *Client) unary(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return c.explain(invoke(ctx, method, request, reply, conn, options...))
}

func (c *Client) stream(ctx context.Context, description *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, description, conn, method, options...)
	if err != nil {
		return nil, c.explain(err)
	}
	return &explained{s, c}, nil
}

// explained is a stream whose errors are explained.
type explained struct {
	grpc.ClientStream
	client *Client
}

func (s *explained) SendMsg(m any) error { return s.client.explain(s.ClientStream.SendMsg(m)) }
func (s *explained) RecvMsg(m any) error { return s.client.explain(s.ClientStream.RecvMsg(m)) }

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
	if s.Code() != codes.Unavailable || said {
		return wire.FromStatus(err)
	}
	if refused := c.witness.refusal(); refused != nil {
		return problem.New(problem.Unauthenticated, "the control plane at %s and this client do not accept each other's certificates: %v; "+
			"the client's is %s, its authorities %s", c.context.ControlPlane, refused, c.context.Certificate, c.context.CA)
	}
	return problem.New(problem.Unavailable, "no control plane can be reached at %s: %s", c.context.ControlPlane, s.Message())
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

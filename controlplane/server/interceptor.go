// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/controlplane/authn"
	"github.com/keyhole-dev/keyhole/controlplane/authz"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/wire"
)

type callerKey struct{}

// callerOf is who the interceptors proved.
func callerOf(ctx context.Context) identity.Identity {
	caller, _ := ctx.Value(callerKey{}).(identity.Identity)
	return caller
}

// admit proves and authorizes the caller of a method.
func admit(ctx context.Context, method string) (context.Context, error) {
	caller, err := authn.Caller(ctx)
	if err != nil {
		return ctx, err
	}
	ctx = context.WithValue(ctx, callerKey{}, caller)
	return ctx, authz.Allow(caller, method)
}

func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
	defer func() { err = s.finish(ctx, info.FullMethod, recover(), err) }()
	if ctx, err = admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

func (s *Server) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx := stream.Context()
	defer func() { err = s.finish(ctx, info.FullMethod, recover(), err) }()
	if ctx, err = admit(ctx, info.FullMethod); err != nil {
		return err
	}
	return handler(server, admitted{stream, ctx})
}

// admitted is a stream whose context knows the caller.
type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

func (a admitted) Context() context.Context { return a.ctx }

// finish turns what became of a call into what its caller sees, and puts on record what was refused: who was turned away, and what
// was asked for that is not there.
func (s *Server) finish(ctx context.Context, method string, panicked any, err error) error {
	if panicked != nil {
		s.Logger.Error("panic in a handler", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		err = problem.New(problem.Internal, "the control plane failed; its log says why")
	}
	err = wire.ToStatus(err)
	switch code := status.Code(err); code {
	case codes.OK, codes.Canceled, codes.Unavailable, codes.DeadlineExceeded:
	default:
		s.recorder.deny(callerOf(ctx).String(), audit.Record{
			Kind: audit.Denied, Actor: callerOf(ctx).String(),
			Details: map[string]string{"method": method, "code": code.String(), "why": cut(status.Convert(err).Message())},
		})
	}
	return err
}

func (s *Server) handshakeRefused(from string, why error) {
	s.Logger.Warn("handshake refused", "from", from, "error", why)
	s.recorder.deny("handshake", audit.Record{
		Kind: audit.Denied, Details: map[string]string{"from": from, "code": codes.Unauthenticated.String(), "why": cut(fmt.Sprint(why))},
	})
}

// cut bounds text from outside before it goes on record.
func cut(text string) string {
	const most = 512
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/controlplane/authn"
	"github.com/keyhole-dev/keyhole/controlplane/authz"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

type callerKey struct{}

// callerOf is who the interceptors proved.
func callerOf(ctx context.Context) identity.Identity {
	caller, _ := ctx.Value(callerKey{}).(identity.Identity)
	return caller
}

// admit proves and authorizes the caller of a method. The context that it returns ends when the caller's certificate does.
func admit(ctx context.Context, method string) (context.Context, context.CancelFunc, error) {
	caller, until, err := authn.Caller(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := authz.Allow(caller, method); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithDeadlineCause(context.WithValue(ctx, callerKey{}, caller), until, authn.Expired(caller, until))
	return ctx, cancel, nil
}

func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (response any, err error) {
	defer func() { err = toStatus(s.survive(recover(), err)) }()
	ctx, cancel, err := admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return handler(ctx, request)
}

func (s *Server) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() { err = toStatus(s.survive(recover(), err)) }()
	ctx, cancel, err := admit(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer cancel()
	return handler(server, admitted{stream, ctx})
}

// admitted is a stream whose context knows the caller.
type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

func (a admitted) Context() context.Context { return a.ctx }

// survive makes an error of what recover returned, so that one call's fault ends that call only.
func (s *Server) survive(panicked any, err error) error {
	if panicked == nil {
		return err
	}
	s.Logger.Error("panic in a handler", "panic", panicked, "stack", string(debug.Stack()))
	return problem.New(problem.Internal, "the control plane failed; its log says why")
}

// unknown answers calls of methods that are not served, those that no table of methods has either.
func unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return problem.New(problem.Unimplemented, "there is no method %s", method)
}

// endings puts on record which calls did not end well: who was turned away, what was malformed, what was asked for that is not
// there. It is told of each call, also of those whose messages are too large or cannot be read and so never reach a handler.
type endings struct{ s *Server }

type methodKey struct{}

func (endings) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, methodKey{}, info.FullMethodName)
}

func (e endings) HandleRPC(ctx context.Context, s stats.RPCStats) {
	end, ok := s.(*stats.End)
	if !ok {
		return
	}
	code := status.Code(end.Error)
	if code == codes.OK || code == codes.Canceled || code == codes.Unavailable && e.s.isClosing() {
		return
	}
	method, _ := ctx.Value(methodKey{}).(string)
	caller, _, _ := authn.Caller(ctx) // one that proves nothing is nobody, and that is what is recorded
	e.s.recorder.deny(caller.String(), audit.Record{
		Kind: audit.Denied, Actor: caller.String(),
		Details: map[string]string{"method": cut(method), "code": code.String(), "why": cut(status.Convert(end.Error).Message())},
	})
}

func (endings) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (endings) HandleConn(context.Context, stats.ConnStats) {}

func (s *Server) handshakeRefused(from string, why error) {
	s.Logger.Warn("handshake refused", "from", from, "error", why)
	s.recorder.deny("handshake", audit.Record{
		Kind: audit.Denied, Details: map[string]string{"from": from, "code": codes.Unauthenticated.String(), "why": cut(why.Error())},
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

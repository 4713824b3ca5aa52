// SPDX-License-Identifier: Apache-2.0

// Package server answers the RPCs: it proves callers and authorizes them, puts on record what they ask for, signs grants
// and speaks to the agents.
package server

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	protovalidate_middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/keyhole-dev/keyhole/audit/tlog"
	"github.com/keyhole-dev/keyhole/controlplane/authn"
	"github.com/keyhole-dev/keyhole/controlplane/registry"
	"github.com/keyhole-dev/keyhole/controlplane/store"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

const (
	maxMessage    = 4 << 20 // of what callers send; an agent's listing of functions is the largest
	maxStreams    = 256     // for each connection
	buffer        = 8 << 10 // of each connection and direction, so that many agents fit
	stopTime      = 2 * time.Second
	handshakeTime = 10 * time.Second
)

// A Config is what a server works with. All fields are needed.
type Config struct {
	CA, Cert, Key string // files in PEM: whose certificates are believed, and the control plane's own
	GrantKey      ed25519.PrivateKey
	Rules         *redact.Ruleset // the owner's
	Log           *tlog.Log
	Store         *store.Store
	Registry      *registry.Registry
	Logger        *slog.Logger
}

// A Server is a control plane's front.
type Server struct {
	Config
	recorder *recorder
	grpc     *grpc.Server
	health   *health.Server
	closing  chan struct{}
	work     sync.WaitGroup // goroutines of streams, which may outlive their handlers
}

// New makes a server.
func New(c Config) (*Server, error) {
	s := &Server{Config: c, health: health.NewServer(), closing: make(chan struct{})}
	creds, err := authn.Credentials(c.CA, c.Cert, c.Key, s.handshakeRefused)
	if err != nil {
		return nil, err
	}
	if s.grpc, err = s.newGRPC(creds); err != nil {
		return nil, err
	}
	s.recorder = newRecorder(c.Log, c.Logger)
	keyholev1.RegisterProbeServiceServer(s.grpc, probeService{s: s})
	keyholev1.RegisterAgentServiceServer(s.grpc, agentService{s: s})
	keyholev1.RegisterAuditServiceServer(s.grpc, auditService{s: s})
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s, nil
}

// newGRPC makes the gRPC server. The order of its interceptors is the order of what is asked: who is it, may they, is the
// message valid.
func (s *Server) newGRPC(creds credentials.TransportCredentials) (*grpc.Server, error) {
	validator, err := protovalidate.New()
	if err != nil {
		return nil, err
	}
	return grpc.NewServer(
		grpc.Creds(creds),
		grpc.ChainUnaryInterceptor(s.unary, protovalidate_middleware.UnaryServerInterceptor(validator)),
		grpc.ChainStreamInterceptor(s.stream, protovalidate_middleware.StreamServerInterceptor(validator)),
		grpc.UnknownServiceHandler(unknown), // by way of the interceptors too
		grpc.StatsHandler(endings{s}),
		grpc.WaitForHandlers(true), // what they stand on is closed next
		grpc.ReadBufferSize(buffer),
		grpc.WriteBufferSize(buffer),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	), nil
}

// Serve answers on a listener, which it closes, until ctx is done.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() {
		close(s.closing) // streams end by themselves
		s.health.Shutdown()
		force := time.AfterFunc(stopTime, s.grpc.Stop)
		defer force.Stop()
		s.grpc.GracefulStop()
	})
	defer stop()
	err := s.grpc.Serve(l)
	s.work.Wait()
	s.recorder.close()
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// record makes a fact durable in the log. If it cannot be, what it is about must not happen.
func (s *Server) record(ctx context.Context, r audit.Record) (uint64, error) {
	r.Time = time.Now()
	return s.Log.Append(ctx, &r)
}

// until returns a context that also ends when the server closes.
func (s *Server) until(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	s.work.Go(func() {
		select {
		case <-s.closing:
			cancel(problem.New(problem.Unavailable, "the control plane closes"))
		case <-ctx.Done():
		}
	})
	return ctx, cancel
}

func (s *Server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

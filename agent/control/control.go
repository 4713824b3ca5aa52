// SPDX-License-Identifier: Apache-2.0

// Package control is the agent's end of the stream to the control plane. It keeps one stream up, says who the node is, hands on
// what the control plane wants as grants that it has checked itself, carries questions in and answers, reports, live
// copies of events and the spool's audit records out.
//
// Nothing here decides what happens to a session, and nothing waits for the control plane: while it is away sessions go
// on until their deadlines, reports are folded into the newest, live copies are lost and counted, and the spool keeps
// its records.
package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/internal/doctor"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// Reconnecting: each attempt waits a random part of a bound that doubles, so that a thousand agents do not come back at once.
const (
	firstBackoff = 200 * time.Millisecond
	maxBackoff   = 10 * time.Second
	// healthy is how long a stream must have stood for the next attempt to begin with the first bound again.
	healthy = 5 * time.Second
	// A connection that is silent is asked after silence for a sign of life, and given up after patience. The server has to
	// allow this by its keepalive.EnforcementPolicy: by default it ends a connection that asks more than once in five minutes.
	silence  = 15 * time.Second
	patience = 5 * time.Second
	// questionLimit is how many questions are answered at once; questionTime is what one may take.
	questionLimit = 8
	questionTime  = 30 * time.Second
)

// A Config says where the control plane is and who this node is.
type Config struct {
	Address string // host:port
	// TLS makes the configuration of one connection, so that a certificate renewed on disk is used by the next.
	TLS  func() (*tls.Config, error)
	Node Node
	// SpoolKey is the public key that the spool's records are signed with.
	SpoolKey []byte
	// Grants judges the grants that arrive.
	Grants grant.Verifier
	Log    *slog.Logger
}

// A Node is what `keyhole nodes` shows of this one.
type Node struct {
	Name, Version, Kernel, Arch string
	Tier                        string // full, refused
	Why                         string // what is missing
	ProgramDigest               string
	// Report is what the node found out about itself; nil: nothing.
	Report *doctor.Report
}

// A Handler is the agent behind the stream. Its methods are called one at a time and must not block, but for
// Explain and Functions, which are called concurrently and may take their time.
type Handler interface {
	// Connected is called when a new stream is up, before anything else of it.
	Connected()
	// Desired is called with each desired set.
	Desired(Desired)
	// Live returns the sessions that are carried out at this moment.
	Live() []string
	// Explain says what a session of this request would do, under the owner's rules. Nothing is attached.
	Explain(ctx context.Context, spec *probe.Spec, rules *redact.Ruleset) (*Explanation, error)
	// Functions lists what can be probed in a target.
	Functions(ctx context.Context, s probe.Selector, pattern string, limit int) (*Listing, error)
}

// Desired is all that this node should carry out.
type Desired struct {
	Revision int64
	Sessions []Wanted
}

// A Wanted is one session of a desired set.
type Wanted struct {
	SessionID string
	Grant     *grant.Grant // nil if Refused
	Envelope  []byte
	Refused   *problem.Error // why the grant is not believed
	Stop      bool
	StoppedBy string
	Watched   bool
}

// A Link is the stream to the control plane, present or to come.
type Link struct {
	config  Config
	handler Handler
	spool   Spool
	out     *outbox
	grants  map[string]Wanted // as judged; by session
	closing chan struct{}     // closed by Close
	over    chan struct{}     // closed when Run returns
}

// New returns a link that Run brings up.
func New(c Config, h Handler, s Spool) *Link {
	return &Link{config: c, handler: h, spool: s, out: newOutbox(), grants: make(map[string]Wanted), closing: make(chan struct{}), over: make(chan struct{})}
}

// Run keeps a stream up until ctx is done, or Close is called. Whatever goes wrong with one, it tries again.
func (l *Link) Run(ctx context.Context) {
	defer close(l.over)
	bound := firstBackoff
	for {
		begun := time.Now()
		err := l.connect(ctx)
		if ctx.Err() != nil || l.isClosing() {
			return
		}
		if time.Since(begun) >= healthy {
			bound = firstBackoff
		}
		wait := rand.N(bound) //nolint:gosec // spreads attempts, protects nothing
		l.config.Log.Warn("control plane: no stream", "address", l.config.Address, "error", describe(err), "retry", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return
		case <-l.closing:
			return
		case <-time.After(wait):
		}
		bound = min(2*bound, maxBackoff)
	}
}

// Close ends the stream, if one is up, when everything that waits has left on it, and waits for Run to return; it gives up
// after patience, and then the stream is still up. It is called once.
func (l *Link) Close(patience time.Duration) {
	close(l.closing)
	select {
	case <-l.over:
	case <-time.After(patience):
	}
}

func (l *Link) isClosing() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// describe leaves out gRPC's own framing of an error.
func describe(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Code().String() + ": " + s.Message()
	}
	return err.Error()
}

// connect brings up one stream and carries it until it breaks.
func (l *Link) connect(ctx context.Context) error {
	config, err := l.config.TLS()
	if err != nil {
		return fmt.Errorf("load credentials: %w", err)
	}
	conn, err := grpc.NewClient(l.config.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: patience}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: silence, Timeout: patience}),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := keyholev1.NewAgentServiceClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	c := &connection{link: l, stream: stream, receipt: make(chan uint64, 1), questions: make(chan struct{}, questionLimit)}
	return c.run(ctx, cancel)
}

// Report says what a session's state is now. It never blocks; a report that could not be sent yet gives way to a newer one.
func (l *Link) Report(r *Report) { l.out.report(toSession(l.config.Node.Name, r)) }

// Offer hands over live copies of events. It never blocks; what there is no room for is lost, and counted in the session's
// reports.
func (l *Link) Offer(copies []Copy) {
	events := make([]*keyholev1.Event, len(copies))
	for i := range copies {
		events[i] = toEvent(&copies[i])
	}
	l.out.offer(events)
}

// OfferAggregate hands over a live copy of what a session has counted. It never blocks; counts that could not be sent yet give way
// to newer ones.
func (l *Link) OfferAggregate(a *event.Aggregate) { l.out.count(wire.ToAggregate(a)) }

// SpoolGrew says that the spool has something to hand over.
func (l *Link) SpoolGrew() { l.out.signal() }

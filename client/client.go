// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

const (
	// connectTime is how long one attempt to reach the control plane may take.
	connectTime = 5 * time.Second
	// A connection on which nothing comes is asked after silence for a sign of life, and given up after patience.
	silence  = 20 * time.Second
	patience = 10 * time.Second
	// maxMessage bounds one answer: a page of the audit log, or the functions of a large program.
	maxMessage = 64 << 20
	// recordsPage is how many audit records are asked for at once.
	recordsPage = 1000
)

// A Client is a connection to one control plane. Its services' methods return errors that are or wrap a *problem.Error,
// or io.EOF at the end of a stream, and no others. It is safe for use by several goroutines.
type Client struct {
	Probe keyholev1.ProbeServiceClient
	Audit keyholev1.AuditServiceClient

	context   Context
	requester string
	conn      *grpc.ClientConn
	witness   *witness
}

// Dial prepares the connection to a context's control plane; the first call makes it. The error is a *problem.Error: of code
// UNAUTHENTICATED if the requester's own files are no good.
func Dial(c Context) (*Client, error) {
	config, requester, err := credentialsOf(&c)
	if err != nil {
		return nil, problem.New(problem.Unauthenticated, "%v", err)
	}
	client := &Client{context: c, requester: requester, witness: newWitness(config)}
	client.conn, err = grpc.NewClient("passthrough:///"+c.ControlPlane,
		grpc.WithTransportCredentials(client.witness),
		grpc.WithUnaryInterceptor(client.unary),
		grpc.WithStreamInterceptor(client.stream),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTime}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: silence, Timeout: patience}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithContextDialer(client.witness.dial), // without HTTP proxies
	)
	if err != nil {
		return nil, problem.New(problem.InvalidArgument, "control plane %q: %v", c.ControlPlane, err)
	}
	client.Probe = keyholev1.NewProbeServiceClient(client.conn)
	client.Audit = keyholev1.NewAuditServiceClient(client.conn)
	return client, nil
}

// credentialsOf reads who the requester is, and makes the configuration that proves it and believes a control plane only.
func credentialsOf(c *Context) (*tls.Config, string, error) {
	bundle, err := x509bundle.Load(identity.Domain, c.CA)
	if err != nil {
		return nil, "", fmt.Errorf("read certificate authorities: %w", err)
	}
	svid, err := x509svid.Load(c.Certificate, c.Key)
	if err != nil {
		return nil, "", fmt.Errorf("read client certificate: %w", err)
	}
	if ended := svid.Certificates[0].NotAfter; time.Now().After(ended) {
		return nil, "", fmt.Errorf("the client certificate %s expired at %s", c.Certificate, ended.Format(time.RFC3339))
	}
	controlPlane := identity.Identity{Kind: identity.ControlPlane}.ID()
	config := tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeID(controlPlane))
	config.MinVersion = tls.VersionTLS13
	return config, svid.ID.String(), nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Context is what the client was made from.
func (c *Client) Context() Context { return c.context }

// Requester is the identity that the requester's certificate states.
func (c *Client) Requester() string { return c.requester }

// Watch yields what the control plane says of a session: its state whenever it changes, its events, and last its summary.
// The sequence ends behind the summary, or with an error.
func (c *Client) Watch(ctx context.Context, sessionID string) iter.Seq2[*keyholev1.WatchSessionResponse, error] {
	return func(yield func(*keyholev1.WatchSessionResponse, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.Probe.WatchSession(ctx, &keyholev1.WatchSessionRequest{SessionId: sessionID})
		if err != nil {
			yield(nil, err)
			return
		}
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				err = c.unreachable("the control plane ended the stream of session %s before its summary", sessionID)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(m, nil) || m.GetSummary() != nil {
				return
			}
		}
	}
}

// Records yields the audit records from start on, those of one session if it names one, with their places in the log.
func (c *Client) Records(ctx context.Context, start uint64, sessionID string) iter.Seq2[*keyholev1.AuditRecord, error] {
	return func(yield func(*keyholev1.AuditRecord, error) bool) {
		for {
			page, err := c.Audit.ListRecords(ctx, &keyholev1.ListRecordsRequest{Start: start, Limit: recordsPage, SessionId: sessionID})
			if err != nil {
				yield(nil, err)
				return
			}
			for _, r := range page.GetRecords() {
				if !yield(r, nil) {
					return
				}
				start = r.GetIndex() + 1
			}
			if len(page.GetRecords()) == 0 || start >= page.GetSize() {
				return
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package authn proves who is at the other end of a connection: mutual TLS 1.3 with X.509-SVIDs of our trust domain, and
// nothing else.
package authn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/problem"
)

// Credentials are a control plane's: its certificate and key, and whose certificates it believes, all files in PEM. Each
// connection that is turned away is told to refused.
func Credentials(ca, cert, key string, refused func(from string, why error)) (credentials.TransportCredentials, error) {
	bundle, err := x509bundle.Load(identity.Domain, ca)
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	svid, err := x509svid.Load(cert, key)
	if err != nil {
		return nil, fmt.Errorf("read the control plane's certificate: %w", err)
	}
	config := tlsconfig.MTLSServerConfig(svid, bundle, func(id spiffeid.ID, _ [][]*x509.Certificate) error {
		_, err := identity.Of(id)
		return err
	})
	config.MinVersion = tls.VersionTLS13
	config.SessionTicketsDisabled = true // each connection proves itself anew
	return recorded{credentials.NewTLS(config), refused}, nil
}

// recorded tells of handshakes that fail.
type recorded struct {
	credentials.TransportCredentials
	refused func(from string, why error)
}

func (r recorded) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := r.TransportCredentials.ServerHandshake(raw)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		r.refused(raw.RemoteAddr().String(), err)
	}
	return conn, info, err
}

func (r recorded) Clone() credentials.TransportCredentials {
	return recorded{r.TransportCredentials.Clone(), r.refused}
}

// Caller is who made an RPC, and until when its certificate proves that: a connection may be older than that, since the handshake
// looks at the clock once. The error is a *problem.Error of code UNAUTHENTICATED.
func Caller(ctx context.Context) (caller identity.Identity, until time.Time, err error) {
	p, _ := peer.FromContext(ctx)
	var info credentials.TLSInfo
	if p != nil {
		info, _ = p.AuthInfo.(credentials.TLSInfo)
	}
	// The handshake has verified the certificate; without one there is no connection.
	if len(info.State.PeerCertificates) == 0 {
		return caller, until, problem.New(problem.Unauthenticated, "the connection proves no identity")
	}
	cert := info.State.PeerCertificates[0]
	id, err := x509svid.IDFromCert(cert)
	if err != nil {
		return caller, until, problem.New(problem.Unauthenticated, "%v", err)
	}
	if caller, err = identity.Of(id); err != nil {
		return caller, until, problem.New(problem.Unauthenticated, "%v", err)
	}
	if !time.Now().Before(cert.NotAfter) {
		return caller, until, Expired(caller, cert.NotAfter)
	}
	return caller, cert.NotAfter, nil
}

// Expired says that a caller's certificate proves nothing any longer.
func Expired(caller identity.Identity, since time.Time) *problem.Error {
	return problem.New(problem.Unauthenticated, "the certificate of %s expired at %s; connect with a new one", caller, since.UTC().Format(time.RFC3339))
}

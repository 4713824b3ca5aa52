// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// witness is transport credentials that remember why the last connection was not made. gRPC reports every failure to
// connect as UNAVAILABLE with a text; a certificate that is not accepted is something else than a control plane that
// is not there, and in TLS 1.3 the client hears of it only when it reads.
type witness struct {
	credentials.TransportCredentials
	last    *atomic.Pointer[error] // about identities
	network *atomic.Pointer[error]
}

func newWitness(c *tls.Config) *witness {
	return &witness{credentials.NewTLS(c), new(atomic.Pointer[error]), new(atomic.Pointer[error])}
}

// dial makes the connection below.
func (w *witness) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	w.network.Store(&err)
	return conn, err
}

// unreached is why the network did not reach the control plane; nil if it did.
func (w *witness) unreached() error {
	if err := w.network.Load(); err != nil {
		return *err
	}
	return nil
}

// refusal is why one side did not believe the other's certificate; nil if that is not what happened last.
func (w *witness) refusal() error {
	if err := w.last.Load(); err != nil {
		return *err
	}
	return nil
}

func (w *witness) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	w.last.Store(nil)
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		w.note(err)
		return nil, nil, err
	}
	return &witnessed{conn, w}, info, nil
}

func (w *witness) Clone() credentials.TransportCredentials {
	return &witness{w.TransportCredentials.Clone(), w.last, w.network}
}

// note keeps err if it is about identities, not about the network.
func (w *witness) note(err error) {
	network, ok := errors.AsType[*net.OpError](err)
	_, otherProtocol := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case ok && network.Op != "remote error": // so crypto/tls names the other side's alert
	case otherProtocol, errors.Is(err, io.EOF), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	default:
		w.last.Store(&err)
	}
}

// witnessed is a connection whose other side may yet refuse our certificate.
type witnessed struct {
	net.Conn
	witness *witness
}

func (c *witnessed) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if alert, ok := errors.AsType[*net.OpError](err); ok {
		c.witness.note(alert)
	}
	return n, err
}

// Write looks, where it fails, for the alert that the other side may have sent before it closed the connection: gRPC writes
// first and reads only what it could write to.
func (c *witnessed) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil && c.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		_, _ = c.Read(make([]byte, 1)) // Read takes note
	}
	return n, err
}

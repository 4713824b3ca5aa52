// SPDX-License-Identifier: Apache-2.0

// Package planetest is a control plane that a test plays: it speaks to an agent over the real stream, with real
// identities and grants that prove themselves, and does only what the test says.
package planetest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// A Plane listens on loopback until its test ends.
type Plane struct {
	Address string
	// Files that an agent of the node is given.
	CA, Cert, Key, GrantKeys, LogKey string
	// Pinned is what is in the last two.
	Pinned grant.Verifier

	streams chan *Stream
	grants  ed25519.PrivateKey
	log     note.Signer
}

// Start starts a control plane that knows one node and writes the files for it into dir.
func Start(t testing.TB, dir, node string) *Plane {
	t.Helper()
	ca := newAuthority(t)
	p := &Plane{
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "node.pem"), Key: filepath.Join(dir, "node.key"),
		GrantKeys: filepath.Join(dir, "grant-keys.pem"), LogKey: filepath.Join(dir, "log-key"), streams: make(chan *Stream),
	}
	write(t, p.CA, block("CERTIFICATE", ca.cert.Raw))
	cert, key := ca.issue(t, "/node/"+node)
	write(t, p.Cert, block("CERTIFICATE", cert))
	write(t, p.Key, block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t)))
	var public ed25519.PublicKey
	public, p.grants = newKey(t)
	write(t, p.GrantKeys, block("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(public))(t)))
	private, logKey, err := note.GenerateKey(rand.Reader, "test/log")
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.LogKey, []byte(logKey))
	p.log = must(note.NewSigner(private))(t)
	p.Pinned = must(grant.Pinned(p.GrantKeys, p.LogKey, node))(t)
	p.serve(t, ca)
	return p
}

func (p *Plane) serve(t testing.TB, ca *authority) {
	cert, key := ca.issue(t, "/control-plane")
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	p.Address = listener.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ca.pool(), MinVersion: tls.VersionTLS13,
	})))
	keyholev1.RegisterAgentServiceServer(server, service{p: p})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
}

// TLS is what an agent of the node connects with.
func (p *Plane) TLS() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(p.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(data)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13}, nil
}

// Accept waits for the agent's next stream and its hello.
func (p *Plane) Accept(t testing.TB) (*Stream, *keyholev1.Hello) {
	t.Helper()
	select {
	case s := <-p.streams:
		s.t = t
		hello := s.Receive().GetHello()
		if hello == nil {
			t.Fatal("the agent's first word is not hello")
		}
		return s, hello
	case <-time.After(patience):
		t.Fatal("no agent connects")
		return nil, nil
	}
}

// Envelope signs a grant for a session of this request on a node, with the proof that it is on record in a log of one leaf.
func (p *Plane) Envelope(t testing.TB, session, node string, revision int64, spec probe.Spec) []byte {
	t.Helper()
	g := grant.Grant{
		SessionID: session, Revision: revision, Node: node, Requester: "spiffe://keyhole.dev/user/ada", Spec: spec, Rules: *redact.Shipped(),
		TTL: spec.WithDefaults().Limits.TTL, PolicyDigest: redact.Shipped().Digest(), Issued: time.Now(),
	}
	record := audit.Record{Kind: audit.Granted, Time: time.Now(), SessionID: session, Node: node, Actor: g.Requester, Details: g.Evidence()}
	leaf := must(record.Marshal())(t)
	root := rfc6962.DefaultHasher.HashLeaf(leaf)
	text := fmt.Sprintf("%s\n1\n%s\n", p.log.Name(), base64.StdEncoding.EncodeToString(root))
	checkpoint := must(note.Sign(&note.Note{Text: text}, p.log))(t)
	g.Intent = grant.Intent{Leaf: leaf, Checkpoint: checkpoint}
	return must(grant.Sign(g, p.grants))(t)
}

type service struct {
	keyholev1.UnimplementedAgentServiceServer
	p *Plane
}

func (s service) Connect(stream grpc.BidiStreamingServer[keyholev1.ConnectRequest, keyholev1.ConnectResponse]) error {
	a := &Stream{stream: stream, over: make(chan error, 1)}
	select {
	case s.p.streams <- a:
	case <-stream.Context().Done():
		return nil
	}
	select {
	case err := <-a.over:
		return err
	case <-stream.Context().Done():
		return nil
	}
}

// A Stream is one that an agent opened. What goes wrong on it fails the test.
type Stream struct {
	stream grpc.BidiStreamingServer[keyholev1.ConnectRequest, keyholev1.ConnectResponse]
	t      testing.TB
	over   chan error
}

// Recv waits for the agent's next message, or the end of the stream.
func (s *Stream) Recv() (*keyholev1.ConnectRequest, error) { return s.stream.Recv() }

// Receive waits for the agent's next message.
func (s *Stream) Receive() *keyholev1.ConnectRequest {
	s.t.Helper()
	m, err := s.stream.Recv()
	if err != nil {
		s.t.Fatalf("receive from the agent: %v", err)
	}
	return m
}

// Desire sends a desired set.
func (s *Stream) Desire(revision int64, grants ...*keyholev1.Grant) {
	s.t.Helper()
	s.send(&keyholev1.ConnectResponse{Message: &keyholev1.ConnectResponse_Desired{
		Desired: &keyholev1.DesiredSet{Revision: revision, Grants: grants},
	}})
}

// Ask sends a question.
func (s *Stream) Ask(id string, q *keyholev1.Question) {
	s.t.Helper()
	q.Id = id
	s.send(&keyholev1.ConnectResponse{Message: &keyholev1.ConnectResponse_Question{Question: q}})
}

// Receipt says that all audit records up to a number are durable.
func (s *Stream) Receipt(upTo uint64) {
	s.t.Helper()
	s.send(&keyholev1.ConnectResponse{Message: &keyholev1.ConnectResponse_SpoolReceipt{SpoolReceipt: &keyholev1.SpoolReceipt{Records: upTo}}})
}

func (s *Stream) send(m *keyholev1.ConnectResponse) {
	s.t.Helper()
	if err := s.stream.Send(m); err != nil {
		s.t.Fatalf("send to the agent: %v", err)
	}
}

// End ends the stream from the control plane's side. The first End counts.
func (s *Stream) End(err error) {
	select {
	case s.over <- err:
	default:
	}
}

// An authority issues SPIFFE identities.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	public, key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{{Scheme: "spiffe", Host: "keyhole.dev"}},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, public, key))(t)
	return &authority{cert: must(x509.ParseCertificate(der))(t), key: key}
}

func (a *authority) issue(t testing.TB, path string) ([]byte, ed25519.PrivateKey) {
	public, key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "keyhole.dev", Path: path}},
	}
	return must(x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key))(t), key
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func newKey(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, key
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// must turns a result with an error into one that fails the test instead.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/keyhole-dev/keyhole/controlplane/ca"
	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var (
	user         = identity.Identity{Kind: identity.User, Name: "ada"}
	controlPlane = identity.Identity{Kind: identity.ControlPlane}
)

// A files is a directory with an authority and what it issued.
type files struct {
	t         *testing.T
	dir       string
	authority *ca.Authority
}

func newFiles(t *testing.T) *files {
	t.Helper()
	dir := t.TempDir()
	authority, err := ca.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &files{t, dir, authority}
}

func (f *files) issue(id identity.Identity, life time.Duration) (cert, key string) {
	f.t.Helper()
	cert, key = filepath.Join(f.dir, "cert"+time.Now().Format("150405.000000000")), filepath.Join(f.dir, "key"+time.Now().Format("150405.000000000"))
	if err := f.authority.Issue(id, life, cert, key); err != nil {
		f.t.Fatal(err)
	}
	return cert, key
}

func (f *files) ca() string { return filepath.Join(f.dir, "ca.pem") }

// server answers as a control plane would, under any identity.
type server struct {
	keyholev1.UnimplementedProbeServiceServer
	keyholev1.UnimplementedAuditServiceServer
	watch   []*keyholev1.WatchSessionResponse
	err     error
	records int
}

func (s *server) ListNodes(context.Context, *keyholev1.ListNodesRequest) (*keyholev1.ListNodesResponse, error) {
	return &keyholev1.ListNodesResponse{}, s.err
}

func (s *server) WatchSession(_ *keyholev1.WatchSessionRequest, stream grpc.ServerStreamingServer[keyholev1.WatchSessionResponse]) error {
	for _, m := range s.watch {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return s.err
}

func (s *server) ListRecords(_ context.Context, r *keyholev1.ListRecordsRequest) (*keyholev1.ListRecordsResponse, error) {
	page := &keyholev1.ListRecordsResponse{Size: uint64(s.records)}
	for i := int(r.GetStart()); i < min(int(r.GetStart())+700, s.records); i++ { // fewer than asked for
		page.Records = append(page.Records, &keyholev1.AuditRecord{Index: uint64(i)})
	}
	return page, s.err
}

func (f *files) serve(s *server, id identity.Identity, believes string) string {
	f.t.Helper()
	cert, key := f.issue(id, time.Hour)
	svid, err := x509svid.Load(cert, key)
	if err != nil {
		f.t.Fatal(err)
	}
	bundle, err := x509bundle.Load(identity.Domain, believes)
	if err != nil {
		f.t.Fatal(err)
	}
	config := tlsconfig.MTLSServerConfig(svid, bundle, tlsconfig.AuthorizeAny())
	config.MinVersion = tls.VersionTLS13
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	keyholev1.RegisterProbeServiceServer(g, s)
	keyholev1.RegisterAuditServiceServer(g, s)
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	f.t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			f.t.Error(err)
		}
	})
	return listener.Addr().String()
}

func dial(t *testing.T, c Context) *Client {
	t.Helper()
	client, err := Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func TestCall(t *testing.T) {
	f := newFiles(t)
	cert, key := f.issue(user, time.Hour)
	c := dial(t, Context{ControlPlane: f.serve(&server{}, controlPlane, f.ca()), CA: f.ca(), Certificate: cert, Key: key})
	if _, err := c.Probe.ListNodes(t.Context(), &keyholev1.ListNodesRequest{}); err != nil {
		t.Error(err)
	}
	if c.Requester() != "spiffe://keyhole.dev/user/ada" {
		t.Errorf("the requester is %s", c.Requester())
	}
}

// TestStrangers: a certificate that one of both does not believe is UNAUTHENTICATED, with the files to look at, whoever it is.
func TestStrangers(t *testing.T) {
	ours, theirs := newFiles(t), newFiles(t)
	cert, key := ours.issue(user, time.Hour)
	foreignCert, foreignKey := theirs.issue(user, time.Hour)
	address := ours.serve(&server{}, controlPlane, ours.ca())
	for name, c := range map[string]Context{
		"the control plane does not believe the client": {ControlPlane: address, CA: ours.ca(), Certificate: foreignCert, Key: foreignKey},
		"the client does not believe the control plane": {ControlPlane: address, CA: theirs.ca(), Certificate: cert, Key: key},
		"a node that plays the control plane": {
			ControlPlane: ours.serve(&server{}, identity.Identity{Kind: identity.Node, Name: "n"}, ours.ca()), CA: ours.ca(), Certificate: cert, Key: key,
		},
	} {
		_, err := dial(t, c).Probe.ListNodes(t.Context(), &keyholev1.ListNodesRequest{})
		p, ok := errors.AsType[*problem.Error](err)
		if !ok || p.Code != problem.Unauthenticated || !strings.Contains(p.Message, c.Certificate) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	f := newFiles(t)
	cert, key := f.issue(user, time.Hour)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	other, err := net.Listen("tcp", "127.0.0.1:0") // something that is no control plane
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("SSH-2.0-nothing of ours\r\n"))
			conn.Close()
		}
	}()
	for _, address := range []string{address, other.Addr().String()} {
		_, err := dial(t, Context{ControlPlane: address, CA: f.ca(), Certificate: cert, Key: key}).Probe.ListNodes(t.Context(), &keyholev1.ListNodesRequest{})
		if _, ok := errors.AsType[*Unreachable](err); !ok || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "keyhole dev") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestOwnFilesAreNoGood(t *testing.T) {
	f := newFiles(t)
	cert, key := f.issue(user, time.Hour)
	expired, expiredKey := f.issue(user, time.Nanosecond)
	garbage := filepath.Join(f.dir, "garbage")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Context{
		"expired":      {CA: f.ca(), Certificate: expired, Key: expiredKey},
		"missing":      {CA: f.ca(), Certificate: cert + "x", Key: key},
		"another key":  {CA: f.ca(), Certificate: cert, Key: expiredKey},
		"no authority": {CA: garbage, Certificate: cert, Key: key},
	} {
		c.ControlPlane = "127.0.0.1:1"
		_, err := Dial(c)
		if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != problem.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrorsArePassedOn(t *testing.T) {
	f := newFiles(t)
	cert, key := f.issue(user, time.Hour)
	want := &problem.Error{Code: problem.Unavailable, Message: "node n is not connected", Candidates: []string{"m"}}
	c := dial(t, Context{ControlPlane: f.serve(&server{err: wire.ToStatus(want)}, controlPlane, f.ca()), CA: f.ca(), Certificate: cert, Key: key})
	_, err := c.Probe.ListNodes(t.Context(), &keyholev1.ListNodesRequest{})
	var streamed error
	for _, streamed = range c.Watch(t.Context(), "s-1") {
	}
	for name, err := range map[string]error{"call": err, "stream": streamed} {
		p, ok := errors.AsType[*problem.Error](err)
		if !ok || p.Code != want.Code || p.Message != want.Message || len(p.Candidates) != 1 {
			t.Errorf("%s: %+v", name, err)
		}
		if _, away := errors.AsType[*Unreachable](err); away {
			t.Errorf("%s: what the control plane says of a node is taken for its own absence", name)
		}
	}
}

func TestWatch(t *testing.T) {
	f := newFiles(t)
	cert, key := f.issue(user, time.Hour)
	s := &server{watch: []*keyholev1.WatchSessionResponse{
		{Update: &keyholev1.WatchSessionResponse_Session{Session: &keyholev1.Session{Id: "s-1"}}},
		{Update: &keyholev1.WatchSessionResponse_Event{Event: &keyholev1.Event{}}},
		{Update: &keyholev1.WatchSessionResponse_Summary{Summary: &keyholev1.Summary{Hits: 1}}},
	}}
	c := dial(t, Context{ControlPlane: f.serve(s, controlPlane, f.ca()), CA: f.ca(), Certificate: cert, Key: key})
	var got int
	for m, err := range c.Watch(t.Context(), "s-1") {
		if err != nil {
			t.Fatal(err)
		}
		if got++; got == 3 && m.GetSummary().GetHits() != 1 {
			t.Errorf("the last message is %v", m)
		}
	}
	if got != 3 {
		t.Errorf("got %d messages", got)
	}
	s.watch = s.watch[:2]
	var last error
	for _, last = range c.Watch(t.Context(), "s-1") {
	}
	if _, away := errors.AsType[*Unreachable](last); !away {
		t.Errorf("a stream that ends without a summary ends with %v", last)
	}
}

func TestRecordsAreReadPageByPage(t *testing.T) {
	f := newFiles(t)
	cert, key := f.issue(user, time.Hour)
	c := dial(t, Context{ControlPlane: f.serve(&server{records: 2500}, controlPlane, f.ca()), CA: f.ca(), Certificate: cert, Key: key})
	next := uint64(3)
	for r, err := range c.Records(t.Context(), 3, "") {
		if err != nil {
			t.Fatal(err)
		}
		if r.GetIndex() != next {
			t.Fatalf("record %d comes where %d is due", r.GetIndex(), next)
		}
		next++
	}
	if next != 2500 {
		t.Errorf("the records ended before %d", next)
	}
}

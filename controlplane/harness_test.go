// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
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
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const patience = 20 * time.Second

// A plane is a control plane that runs until its test ends.
type plane struct {
	t         *testing.T
	dir       string
	address   string
	authority *ca.Authority
	stop      func()
}

func start(t *testing.T) *plane {
	t.Helper()
	dir, err := os.MkdirTemp("", "kh") // short: a socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &plane{t: t, dir: dir}
	p.begin()
	return p
}

// begin makes the authority and runs the control plane.
func (p *plane) begin() {
	p.t.Helper()
	var err error
	if p.authority, err = ca.Open(p.path("ca")); err != nil {
		p.t.Fatal(err)
	}
	p.issue(identity.Identity{Kind: identity.ControlPlane}, "plane", time.Hour)
	p.run()
}

// run runs it, again if it has run before.
func (p *plane) run() {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, over := make(chan string, 1), make(chan error, 1)
	go func() {
		over <- Run(ctx, Config{
			Listen: "127.0.0.1:0", StateDir: filepath.Join(p.dir, "state"), CA: p.path("ca/ca.pem"), Cert: p.path("plane.pem"), Key: p.path("plane.key"),
			Logger: slog.New(slog.DiscardHandler), Ready: func(address string) { ready <- address },
		})
	}()
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-over:
			if err != nil {
				p.t.Errorf("control plane: %v", err)
			}
		case <-time.After(patience):
			p.t.Error("the control plane does not end")
		}
	}
	p.t.Cleanup(func() { p.stop() })
	select {
	case p.address = <-ready:
	case err := <-over:
		stopped = true
		p.t.Fatalf("control plane: %v", err)
	case <-time.After(patience):
		p.t.Fatal("the control plane is not ready")
	}
}

func (p *plane) path(name string) string { return filepath.Join(p.dir, name) }

func (p *plane) issue(id identity.Identity, name string, life time.Duration) {
	p.t.Helper()
	if err := p.authority.Issue(id, life, p.path(name+".pem"), p.path(name+".key")); err != nil {
		p.t.Fatal(err)
	}
}

// dial connects with the certificate of this name.
func (p *plane) dial(name string) *grpc.ClientConn {
	p.t.Helper()
	svid, err := x509svid.Load(p.path(name+".pem"), p.path(name+".key"))
	if err != nil {
		p.t.Fatal(err)
	}
	bundle, err := x509bundle.Load(identity.Domain, p.path("ca/ca.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	config := tlsconfig.MTLSClientConfig(svid, bundle, tlsconfig.AuthorizeMemberOf(identity.Domain))
	return p.connect(credentials.NewTLS(config))
}

func (p *plane) connect(creds credentials.TransportCredentials) *grpc.ClientConn {
	p.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+p.address, grpc.WithTransportCredentials(creds))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

func (p *plane) user(name string) keyholev1.ProbeServiceClient {
	p.t.Helper()
	p.issue(identity.Identity{Kind: identity.User, Name: name}, name, time.Hour)
	return keyholev1.NewProbeServiceClient(p.dial(name))
}

// An agent is a node's stream that a test speaks on.
type agent struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[keyholev1.ConnectRequest, keyholev1.ConnectResponse]
}

var spoolKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

func (p *plane) agent(ctx context.Context, certificate, name string) *agent {
	p.t.Helper()
	p.issue(identity.Identity{Kind: identity.Node, Name: certificate}, certificate, time.Hour)
	stream, err := keyholev1.NewAgentServiceClient(p.dial(certificate)).Connect(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	a := &agent{p.t, stream}
	a.send(&keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Hello{Hello: &keyholev1.Hello{
		Node: &keyholev1.Node{Name: name}, SpoolKey: spoolKey.Public().(ed25519.PublicKey),
	}}})
	return a
}

func (a *agent) send(m *keyholev1.ConnectRequest) {
	a.t.Helper()
	if err := a.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		a.t.Fatal(err)
	}
}

func (a *agent) report(m *keyholev1.Session) {
	a.t.Helper()
	a.send(&keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Report{Report: &keyholev1.SessionReport{Session: m}}})
}

// desired waits for a desired set that is as wanted.
func (a *agent) desired(wanted func([]*keyholev1.Grant) bool) []*keyholev1.Grant {
	a.t.Helper()
	for {
		m, err := a.stream.Recv()
		if err != nil {
			a.t.Fatalf("no desired set as wanted: %v", err)
		}
		if set := m.GetDesired(); set != nil && wanted(set.GetGrants()) {
			return set.GetGrants()
		}
	}
}

func one(grants []*keyholev1.Grant) bool { return len(grants) == 1 }

func request() *keyholev1.CreateSessionRequest {
	return &keyholev1.CreateSessionRequest{Spec: wire.ToSpec(&probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: 4711}, Function: "main.f", Reason: "why not",
	})}
}

func codeOf(err error) string {
	if err == nil {
		return "OK"
	}
	return wire.FromStatus(err).Code
}

// connected waits until a node is.
func (p *plane) connected(user keyholev1.ProbeServiceClient) {
	p.t.Helper()
	p.await("a connected node", func() bool {
		nodes, err := user.ListNodes(p.t.Context(), &keyholev1.ListNodesRequest{})
		return err == nil && len(nodes.GetNodes()) > 0
	})
}

func readKey(t *testing.T, p *plane) string {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(p.dir, "state", LogKey))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(key))
}

// kinds are the kinds of the records about a session, or of all if none is named.
func (p *plane) kinds(session string) []string {
	p.t.Helper()
	list, err := keyholev1.NewAuditServiceClient(p.dial("ada")).ListRecords(p.t.Context(), &keyholev1.ListRecordsRequest{SessionId: session})
	if err != nil {
		p.t.Fatal(err)
	}
	var kinds []string
	for _, r := range list.GetRecords() {
		record, err := audit.Parse(r.GetData())
		if err != nil {
			p.t.Fatal(err)
		}
		kinds = append(kinds, string(record.Kind))
	}
	return kinds
}

func (p *plane) denials() int {
	p.t.Helper()
	n := 0
	for _, kind := range p.kinds("") {
		if kind == string(audit.Denied) {
			n++
		}
	}
	return n
}

// await waits until something is so.
func (p *plane) await(what string, so func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited for %s", what)
		}
	}
}

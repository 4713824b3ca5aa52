// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/client"
	"github.com/keyhole-dev/keyhole/controlplane/ca"
	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// A pass is a certificate with its key, in files.
type pass struct{ cert, key string }

// issue makes a certificate.
func issue(t *testing.T, authority string, id identity.Identity, life time.Duration) pass {
	t.Helper()
	a, err := ca.Open(authority)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := pass{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	if err := a.Issue(id, life, p.cert, p.key); err != nil {
		t.Fatal(err)
	}
	return p
}

// dial connects with a certificate, whatever the client's own checks would say of it.
func dial(t *testing.T, address string, p pass) *grpc.ClientConn {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{
		MinVersion:           tls.VersionTLS13,
		InsecureSkipVerify:   true, // it is the server's check that is tested
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestCertificates comes with certificates that are no good, or good for something else. Each is refused and on record, and the
// session beside all this goes on.
func TestCertificates(t *testing.T) {
	d := devtest.Start(t, nil)
	vault := startVault(t)
	bystander := d.Trace(fmt.Sprintf("pid/%d", vault.PID()), "main.Open", "--for", "2m")
	authority := filepath.Join(d.Dir, "ca")
	user := identity.Identity{Kind: identity.User, Name: "dev"}
	node := identity.Identity{Kind: identity.Node, Name: "dev"}

	for _, c := range []struct {
		name string
		pass pass
		code []codes.Code // a refused handshake is a connection that was lost
	}{
		{"expired", issue(t, authority, user, -time.Second), []codes.Code{codes.Unavailable}},
		{"of another authority", issue(t, t.TempDir(), user, time.Hour), []codes.Code{codes.Unavailable}},
		{"of a node", issue(t, authority, node, time.Hour), []codes.Code{codes.PermissionDenied}},
		{"of a control plane", issue(t, authority, identity.Identity{Kind: identity.ControlPlane}, time.Hour), []codes.Code{codes.PermissionDenied, codes.Unavailable}},
	} {
		t.Run("requester's certificate "+c.name, func(t *testing.T) {
			known := len(audited(t, d))
			_, err := keyholev1.NewProbeServiceClient(dial(t, d.Address, c.pass)).ListNodes(t.Context(), &keyholev1.ListNodesRequest{})
			requireCode(t, err, c.code...)
			requireDenied(t, awaitRecord(t, d, known))

			// The command says it clearly.
			r := d.RunWith(withCertificate(t, d, c.pass), "nodes")
			if r.Status != 3 || !strings.Contains(r.Stderr, "certificate") && !strings.Contains(r.Stderr, "may not") {
				t.Errorf("status %d; want 3 and a word about the certificate\n%s", r.Status, r.Stderr)
			}
		})
	}

	for _, c := range []struct {
		name string
		pass pass
		code []codes.Code
	}{
		{"another node's certificate", issue(t, authority, identity.Identity{Kind: identity.Node, Name: "elsewhere"}, time.Hour), []codes.Code{codes.PermissionDenied}},
		{"a user's certificate", issue(t, authority, user, time.Hour), []codes.Code{codes.PermissionDenied}},
		{"an expired certificate", issue(t, authority, node, -time.Second), []codes.Code{codes.Unavailable}},
	} {
		t.Run("agent with "+c.name, func(t *testing.T) {
			known := len(audited(t, d))
			stream, err := keyholev1.NewAgentServiceClient(dial(t, d.Address, c.pass)).Connect(t.Context())
			if err == nil {
				_ = stream.Send(&keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Hello{Hello: &keyholev1.Hello{Node: &keyholev1.Node{Name: "dev"}}}})
				_, err = stream.Recv() // what Send fails with is told here
			}
			requireCode(t, err, c.code...)
			requireDenied(t, awaitRecord(t, d, known))
			if out := d.MustRun("nodes"); strings.Contains(out, "elsewhere") {
				t.Errorf("the node is listed: %s", out)
			}
		})
	}

	t.Run("agent process with another node's certificate", func(t *testing.T) {
		p := issue(t, authority, identity.Identity{Kind: identity.Node, Name: "elsewhere"}, time.Hour)
		agent := testkit.StartCommand(t, exec.Command(testkit.BuildGo(t, "cmd/keyhole-agent"),
			"--control-plane", d.Address, "--node", "dev", "--dir", t.TempDir(), "--ca", filepath.Join(d.Dir, "ca.pem"), "--cert", p.cert, "--key", p.key,
			"--grant-key", filepath.Join(d.Dir, "control-plane/keys/grant-keys.pem"), "--log-key", filepath.Join(d.Dir, "control-plane/keys/log.key.pub")))
		for deadline := time.Now().Add(15 * time.Second); !strings.Contains(agent.Stderr(), "the certificate is that of node elsewhere"); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the agent does not say what is wrong:\n%s", agent.Stderr())
			}
		}
	})

	vault.Send("call 10")
	vault.Expect("called", 10*time.Second)
	d.MustRun("stop", "--all")
	if _, sum := bystander.Finish(10 * time.Second); sum.Hits != 10 || sum.EndedBy != "stopped" {
		t.Errorf("the session beside all this counts %+v", sum)
	}
}

// TestOversizedRequests sends what no command lets through.
func TestOversizedRequests(t *testing.T) {
	d := devtest.Start(t, nil)
	config, err := client.Load(d.Config)
	if err != nil {
		t.Fatal(err)
	}
	requester, err := client.Dial(config.Contexts[0])
	if err != nil {
		t.Fatal(err)
	}
	defer requester.Close()
	spec := func() *keyholev1.Spec {
		return &keyholev1.Spec{
			Target:   &keyholev1.Selector{Target: &keyholev1.Selector_Pid{Pid: int32(d.PID())}},
			Function: "main.main", Reason: "end-to-end test",
		}
	}
	many, long, path, none := spec(), spec(), spec(), spec()
	for i := range 10_000 {
		many.Arguments = append(many.Arguments, fmt.Sprintf("a%d", i))
	}
	long.Arguments = []string{strings.Repeat("a.", 1<<19)}
	path.Target = &keyholev1.Selector{Target: &keyholev1.Selector_Exe{Exe: "/" + strings.Repeat("a", 1<<20)}}
	none.Reason = ""
	for name, s := range map[string]*keyholev1.Spec{
		"10,000 arguments": many, "an argument of 1 MiB": long, "a path of 1 MiB": path, "no reason": none, "nothing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			known := len(audited(t, d))
			_, err := requester.Probe.CreateSession(t.Context(), &keyholev1.CreateSessionRequest{Spec: s})
			if refusal, ok := errors.AsType[*problem.Error](err); !ok || refusal.Code != problem.InvalidArgument {
				t.Errorf("answered %.300v; want %s", err, problem.InvalidArgument)
			}
			requireDenied(t, awaitRecord(t, d, known))
			if len(d.Sessions()) != 0 || len(d.PIDs("kh-holder")) != 0 {
				t.Error("there is a session")
			}
		})
	}
}

// withCertificate is the file of a configuration that differs from the user's own in the certificate.
func withCertificate(t *testing.T, d *devtest.Dev, p pass) string {
	t.Helper()
	config, err := client.Load(d.Config)
	if err != nil {
		t.Fatal(err)
	}
	config.Contexts[0].Certificate, config.Contexts[0].Key = p.cert, p.key
	path := filepath.Join(t.TempDir(), "client.yaml")
	if err := config.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func requireCode(t *testing.T, err error, want ...codes.Code) {
	t.Helper()
	for _, c := range want {
		if grpcstatus.Code(err) == c {
			return
		}
	}
	t.Errorf("answered %v; want one of %v", err, want)
}

// requireDenied fails the test unless one of the records says that somebody was turned away.
func requireDenied(t *testing.T, records []map[string]any) {
	t.Helper()
	for _, r := range records {
		if r["kind"] == "denied" {
			return
		}
	}
	t.Errorf("no denial among the new records: %v", records)
}

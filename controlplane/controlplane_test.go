// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/keyhole-dev/keyhole/audit/tlog"
	"github.com/keyhole-dev/keyhole/controlplane/ca"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/grant"
	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestSessionFromRequestToSummary(t *testing.T) {
	p := start(t)
	user := p.user("ada")
	if _, err := user.CreateSession(t.Context(), request()); codeOf(err) != problem.Unavailable {
		t.Errorf("without a node: %v", err)
	}
	a := p.agent(t.Context(), "n1", "n1")
	p.connected(user)
	r := request()
	r.RequestId = "once"
	created, err := user.CreateSession(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	id := created.GetSession().GetId()
	if again, err := user.CreateSession(t.Context(), r); err != nil || again.GetSession().GetId() != id {
		t.Errorf("the same request again: %v, %v", again, err)
	}

	// What the node gets is a grant that it believes.
	g := a.desired(one)[0]
	pinned, err := grant.Pinned(filepath.Join(p.dir, "state", GrantKeys), filepath.Join(p.dir, "state", LogKey), "n1")
	if err != nil {
		t.Fatal(err)
	}
	granted, err := grant.Verify(g.GetEnvelope(), pinned)
	if err != nil {
		t.Fatal(err)
	}
	if granted.SessionID != id || granted.Requester != "spiffe://keyhole.dev/user/ada" || granted.TTL != probe.DefaultTTL || g.GetStop() || g.GetWatched() {
		t.Errorf("granted %+v", granted)
	}

	watch, err := user.WatchSession(t.Context(), &keyholev1.WatchSessionRequest{SessionId: id})
	if err != nil {
		t.Fatal(err)
	}
	a.desired(func(g []*keyholev1.Grant) bool { return one(g) && g[0].GetWatched() })
	a.report(&keyholev1.Session{Id: id, Requester: "forged", State: keyholev1.SessionState_SESSION_STATE_ATTACHED, HolderPid: 12})
	events := []*keyholev1.Event{{SessionId: id, Function: "main.f"}, {SessionId: "s-of-another", Function: "main.g"}}
	a.send(&keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Events{Events: &keyholev1.EventBatch{Events: events}}})
	if _, err := user.StopSession(t.Context(), &keyholev1.StopSessionRequest{Which: &keyholev1.StopSessionRequest_SessionId{SessionId: id}}); err != nil {
		t.Fatal(err)
	}
	stop := a.desired(func(g []*keyholev1.Grant) bool { return one(g) && g[0].GetStop() })
	if by := stop[0].GetStoppedBy(); by != "stopped" {
		t.Errorf("stopped by %q", by)
	}
	a.report(&keyholev1.Session{Id: id, State: keyholev1.SessionState_SESSION_STATE_ENDED, Summary: &keyholev1.Summary{Hits: 1, Emitted: 1, EndedBy: "stopped", CountsFinal: true}})
	var seen []string
	for {
		m, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case m.GetEvent() != nil:
			seen = append(seen, "event "+m.GetEvent().GetFunction())
		case m.GetSummary() != nil:
			seen = append(seen, "summary")
		case m.GetSession().GetRequester() != "spiffe://keyhole.dev/user/ada":
			t.Errorf("the node changed the requester to %q", m.GetSession().GetRequester())
		}
		if m.GetSummary() != nil {
			if m.GetSummary().GetEndedBy() != "stopped" || m.GetSummary().GetHits() != 1 {
				t.Errorf("summary %v", m.GetSummary())
			}
			break
		}
	}
	if got := strings.Join(seen, ", "); got != "event main.f, summary" {
		t.Errorf("watched: %s", got)
	}
	a.desired(func(g []*keyholev1.Grant) bool { return len(g) == 0 })

	// All of it is on record, and stays so when the control plane starts anew.
	p.stop()
	report, err := tlog.Verify(t.Context(), filepath.Join(p.dir, "state", LogDir), readKey(t, p))
	if err != nil || len(report.Findings) > 0 {
		t.Fatal(report, err)
	}
	p.run()
	user = keyholev1.NewProbeServiceClient(p.dial("ada"))
	if s, err := user.GetSession(t.Context(), &keyholev1.GetSessionRequest{SessionId: id}); err != nil || s.GetSession().GetState() != keyholev1.SessionState_SESSION_STATE_ENDED {
		t.Errorf("after a restart: %v, %v", s, err)
	}
	kinds := p.kinds(id)
	if got, want := strings.Join(kinds, " "), "requested granted read stop_requested"; got != want {
		t.Errorf("on record: %s, want %s", got, want)
	}
}

func TestNodeSpeaksForItselfOnly(t *testing.T) {
	p := start(t)
	user := p.user("ada")
	n1 := p.agent(t.Context(), "n1", "n1")
	p.connected(user)
	created, err := user.CreateSession(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	n1.desired(one)
	id := created.GetSession().GetId()

	impostor := p.agent(t.Context(), "n2", "n1")
	if _, err := impostor.stream.Recv(); codeOf(err) != problem.PermissionDenied {
		t.Errorf("another node's name: %v", err)
	}
	n2 := p.agent(t.Context(), "n2", "n2")
	n2.desired(func(g []*keyholev1.Grant) bool { return len(g) == 0 })
	n2.report(&keyholev1.Session{Id: id, State: keyholev1.SessionState_SESSION_STATE_ENDED})
	n2.send(&keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Spool{Spool: &keyholev1.SpoolBatch{Records: [][]byte{[]byte("{}")}}}})
	if _, err := n2.stream.Recv(); codeOf(err) != problem.PermissionDenied {
		t.Errorf("a record that is none: %v", err)
	}
	s, err := user.GetSession(t.Context(), &keyholev1.GetSessionRequest{SessionId: id})
	if err != nil || s.GetSession().GetState() == keyholev1.SessionState_SESSION_STATE_ENDED {
		t.Errorf("another node ended the session: %v, %v", s, err)
	}
}

func TestSpoolIsTakenOverOnce(t *testing.T) {
	p := start(t)
	p.user("ada")
	var head audit.Head
	var records [][]byte
	for _, kind := range []audit.Kind{audit.Refused, audit.Refused, audit.Refused} {
		var data []byte
		var err error
		if data, head, err = head.Extend(audit.Record{Kind: kind, Node: "n1", SessionID: "s-1"}, spoolKey); err != nil {
			t.Fatal(err)
		}
		records = append(records, data)
	}
	for _, batch := range [][][]byte{records[:2], records, records} {
		ctx, cancel := context.WithCancel(t.Context())
		a := p.agent(ctx, "n1", "n1")
		a.send(&keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Spool{Spool: &keyholev1.SpoolBatch{Records: batch}}})
		for {
			m, err := a.stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if r := m.GetSpoolReceipt(); r != nil {
				if r.GetRecords() != uint64(len(batch)) {
					t.Errorf("receipt for %d of %d records", r.GetRecords(), len(batch))
				}
				break
			}
		}
		cancel()
	}
	p.await("three records of the session", func() bool { return len(p.kinds("s-1")) >= 3 }) // a checkpoint follows a record
	if got := p.kinds("s-1"); len(got) != 3 {
		t.Errorf("in the log: %v", got)
	}
}

// TestGrid calls every method that is served, and one that is not, as every kind of identity.
func TestGrid(t *testing.T) {
	p := start(t)
	kinds := map[identity.Kind]string{identity.Node: "n1", identity.User: "ada", identity.ControlPlane: ""}
	for kind, name := range kinds {
		p.issue(identity.Identity{Kind: kind, Name: name}, string(kind), time.Hour)
	}
	methods := served(t, p.dial(string(identity.User)))
	if len(methods) < 15 {
		t.Fatalf("only %d methods are served: %v", len(methods), methods)
	}
	allowed := map[string][]identity.Kind{
		"keyhole.v1.ProbeService":                  {identity.User},
		"keyhole.v1.AuditService":                  {identity.User},
		"keyhole.v1.AgentService":                  {identity.Node},
		"grpc.health.v1.Health":                    {identity.User, identity.Node, identity.ControlPlane},
		"grpc.reflection.v1.ServerReflection":      {identity.User},
		"grpc.reflection.v1alpha.ServerReflection": {identity.User},
	}
	for kind := range kinds {
		conn := p.dial(string(kind))
		for _, method := range append(methods, "/keyhole.v1.ProbeService/NoSuchMethod", "/no.such.Service/Method") {
			err := firstAnswer(t, conn, method)
			service, _, _ := strings.Cut(method[1:], "/")
			want := slices.Contains(methods, method) && slices.Contains(allowed[service], kind)
			if got := codeOf(err) != problem.PermissionDenied; got != want {
				t.Errorf("%s calls %s: %v", kind, method, err)
			}
		}
	}
}

// firstAnswer calls a method, of whatever kind, with an empty message and returns the first thing that it says.
func firstAnswer(t *testing.T, conn *grpc.ClientConn, method string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// served lists the methods that a server says it has.
func served(t *testing.T, conn *grpc.ClientConn) []string {
	t.Helper()
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	response, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var methods []string
	for _, s := range response.GetListServicesResponse().GetService() {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(s.GetName()))
		if err != nil {
			t.Fatal(err)
		}
		list := found.(protoreflect.ServiceDescriptor).Methods()
		for i := range list.Len() {
			methods = append(methods, "/"+s.GetName()+"/"+string(list.Get(i).Name()))
		}
	}
	return methods
}

func TestStrangersAreTurnedAway(t *testing.T) {
	p := start(t)
	p.user("ada")
	p.issue(identity.Identity{Kind: identity.User, Name: "late"}, "late", -time.Second)
	foreign := &plane{t: t, dir: t.TempDir()}
	var err error
	if foreign.authority, err = ca.Open(foreign.path("ca")); err != nil {
		t.Fatal(err)
	}
	foreign.issue(identity.Identity{Kind: identity.User, Name: "ada"}, "foreign", time.Hour)
	foreignPair, err := tls.LoadX509KeyPair(foreign.path("foreign.pem"), foreign.path("foreign.key"))
	if err != nil {
		t.Fatal(err)
	}
	latePair, err := tls.LoadX509KeyPair(p.path("late.pem"), p.path("late.key"))
	if err != nil {
		t.Fatal(err)
	}
	goodPair, err := tls.LoadX509KeyPair(p.path("ada.pem"), p.path("ada.key"))
	if err != nil {
		t.Fatal(err)
	}
	believing := func(pairs ...tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: pairs, InsecureSkipVerify: true} // it is the server that judges
	}
	tls12 := believing(goodPair)
	tls12.MaxVersion = tls.VersionTLS12
	for name, creds := range map[string]credentials.TransportCredentials{
		"no TLS": insecure.NewCredentials(), "no certificate": credentials.NewTLS(believing()),
		"another authority's": credentials.NewTLS(believing(foreignPair)), "expired": credentials.NewTLS(believing(latePair)),
		"TLS 1.2": credentials.NewTLS(tls12),
	} {
		_, err := keyholev1.NewProbeServiceClient(p.connect(creds)).ListNodes(t.Context(), &keyholev1.ListNodesRequest{})
		if codeOf(err) != problem.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The test of the test: the same call with the good certificate is answered.
	if _, err := keyholev1.NewProbeServiceClient(p.connect(credentials.NewTLS(believing(goodPair)))).ListNodes(t.Context(), &keyholev1.ListNodesRequest{}); err != nil {
		t.Errorf("a good certificate: %v", err)
	}
	p.await("a record of each refusal", func() bool { return p.denials() >= 5 })
}

func TestBadRequestsAreRefusedAndRecorded(t *testing.T) {
	p := start(t)
	user := p.user("ada")
	p.agent(t.Context(), "n1", "n1")
	p.connected(user)
	for name, change := range map[string]func(*keyholev1.Spec){
		"no reason":       func(s *keyholev1.Spec) { s.Reason = "" },
		"10,000 paths":    func(s *keyholev1.Spec) { s.Arguments = make([]string, 10_000) },
		"a path of 1 MiB": func(s *keyholev1.Spec) { s.Arguments = []string{strings.Repeat("a", 1<<20)} },
		"no target":       func(s *keyholev1.Spec) { s.Target = nil },
		"a TTL of a year": func(s *keyholev1.Spec) { s.Limits.Ttl.Seconds = 365 * 86400 },
		"weird condition": func(s *keyholev1.Spec) { s.Where = "qty >" },
	} {
		r := request()
		change(r.GetSpec())
		if _, err := user.CreateSession(t.Context(), r); codeOf(err) != problem.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if sessions, err := user.ListSessions(t.Context(), &keyholev1.ListSessionsRequest{All: true}); err != nil || len(sessions.GetSessions()) != 0 {
		t.Errorf("sessions were made: %v, %v", sessions, err)
	}
	p.await("a record of each refusal", func() bool { return p.denials() == 6 })
}

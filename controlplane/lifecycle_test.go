// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/keyhole-dev/keyhole/audit/tlog"
	"github.com/keyhole-dev/keyhole/internal/audit"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/identity"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/wire"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestOneOfSeveralNodes(t *testing.T) {
	p := start(t)
	user := p.user("ada")
	for _, name := range []string{"n1", "n2"} {
		p.agent(t.Context(), name, name).desired(func([]*keyholev1.Grant) bool { return true })
	}
	_, err := user.CreateSession(t.Context(), request())
	if got := wire.FromStatus(err); got.Code != problem.InvalidArgument || !slices.Equal(got.Candidates, []string{"n1", "n2"}) {
		t.Errorf("no node is named: %+v", got)
	}
	r := request()
	r.Spec.Target.Node = "n3"
	_, err = user.CreateSession(t.Context(), r)
	if got := wire.FromStatus(err); got.Code != problem.NotFound || !slices.Equal(got.Candidates, []string{"n1", "n2"}) {
		t.Errorf("a node that is none: %+v", got)
	}
	r.Spec.Target.Node = "n2"
	r.RequestId = "once"
	created, err := user.CreateSession(t.Context(), r)
	if err != nil || created.GetSession().GetNode() != "n2" {
		t.Fatalf("a node that is there: %v, %v", created, err)
	}
	if again, err := user.CreateSession(t.Context(), r); err != nil || again.GetAuditIndex() != created.GetAuditIndex() || created.GetAuditIndex() == 0 {
		t.Errorf("a retry: %v, %v; want the index %d", again, err, created.GetAuditIndex())
	}
}

func TestQuestionsToANode(t *testing.T) {
	p := start(t)
	user := p.user("ada")
	a := p.agent(t.Context(), "n1", "n1")
	p.connected(user)
	answer := func(fill func(*keyholev1.Question) *keyholev1.Answer) {
		for {
			m, err := a.stream.Recv()
			if err != nil {
				t.Errorf("no question: %v", err)
				return
			}
			if q := m.GetQuestion(); q != nil {
				reply := fill(q)
				reply.QuestionId = q.GetId()
				a.send(&keyholev1.ConnectRequest{Message: &keyholev1.ConnectRequest_Answer{Answer: reply}})
				return
			}
		}
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		answer(func(q *keyholev1.Question) *keyholev1.Answer {
			var rules redact.Ruleset
			if err := json.Unmarshal(q.GetRedaction(), &rules); err != nil || rules.Digest() != redact.Shipped().Digest() {
				t.Errorf("rules in the question: %v", err)
			}
			return &keyholev1.Answer{Result: &keyholev1.Answer_Explain{Explain: &keyholev1.ExplainResponse{Function: q.GetExplain().GetFunction()}}}
		})
		answer(func(*keyholev1.Question) *keyholev1.Answer {
			no := &problem.Error{Code: problem.NotFound, Message: "no such function", Candidates: []string{"main.g"}}
			return &keyholev1.Answer{Result: &keyholev1.Answer_Problem{Problem: wire.ToProblem(no)}}
		})
	}()
	e, err := user.Explain(t.Context(), &keyholev1.ExplainRequest{Spec: request().GetSpec()})
	if err != nil || e.GetFunction() != "main.f" {
		t.Errorf("explain: %v, %v", e, err)
	}
	_, err = user.ListFunctions(t.Context(), &keyholev1.ListFunctionsRequest{Target: request().GetSpec().GetTarget(), Pattern: "f"})
	if got := wire.FromStatus(err); got.Code != problem.NotFound || !slices.Equal(got.Candidates, []string{"main.g"}) {
		t.Errorf("functions: %+v", got)
	}
	<-answered
	p.await("the question that had no good answer on record", func() bool { return p.denials() == 1 })
}

func TestCertificateExpiresOnAnOpenConnection(t *testing.T) {
	p := start(t)
	p.user("ada")
	p.issue(identity.Identity{Kind: identity.User, Name: "brief"}, "brief", 6*time.Second)
	user := keyholev1.NewProbeServiceClient(p.dial("brief"))
	list := func() string {
		_, err := user.ListNodes(t.Context(), &keyholev1.ListNodesRequest{})
		return codeOf(err)
	}
	a := p.agent(t.Context(), "n1", "n1")
	a.desired(func([]*keyholev1.Grant) bool { return true })
	created, err := user.CreateSession(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	watch, err := user.WatchSession(t.Context(), &keyholev1.WatchSessionRequest{SessionId: created.GetSession().GetId()})
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err = watch.Recv(); err != nil {
			break
		}
	}
	if codeOf(err) != problem.Unauthenticated || !strings.Contains(err.Error(), "expired") {
		t.Errorf("the stream ends with %v", err)
	}
	if code := list(); code != problem.Unauthenticated {
		t.Errorf("the connection is still good for calls: %s", code)
	}
}

// garbage is a codec that sends bytes as they are.
type garbage struct{ encoding.CodecV2 }

func (garbage) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func TestWhatCannotBeReadIsOnRecord(t *testing.T) {
	p := start(t)
	p.user("ada")
	conn := p.dial("ada")
	codec := grpc.ForceCodecV2(garbage{encoding.GetCodecV2("proto")})
	for name, test := range map[string]struct {
		message []byte
		code    string
	}{
		"5 MiB": {make([]byte, 5<<20), problem.ResourceExhausted},
		"noise": {[]byte{0xff, 0xff, 0xff}, problem.Internal},
	} {
		err := conn.Invoke(t.Context(), keyholev1.ProbeService_GetSession_FullMethodName, test.message, &keyholev1.GetSessionResponse{}, codec)
		if codeOf(err) != test.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.await("a record of each", func() bool { return p.denials() == 2 })
}

func TestEndsWithStreamsOpen(t *testing.T) {
	p := start(t)
	user := p.user("ada")
	a := p.agent(t.Context(), "n1", "n1")
	p.connected(user)
	created, err := user.CreateSession(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	a.desired(one)
	watch, err := user.WatchSession(t.Context(), &keyholev1.WatchSessionRequest{SessionId: created.GetSession().GetId()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	p.stop()
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("it took %v to end", took)
	}
	for {
		if _, err = watch.Recv(); err != nil {
			break
		}
	}
	if codeOf(err) != problem.Unavailable {
		t.Errorf("who watches is told %v", err)
	}
	report, err := tlog.Verify(t.Context(), filepath.Join(p.dir, "state", LogDir), readKey(t, p))
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("the log it leaves: %v, %v", report, err)
	}
}

func TestStateIsPrivate(t *testing.T) {
	dir := t.TempDir()
	loose := filepath.Join(dir, "state", LogDir)
	if err := os.MkdirAll(loose, 0o755); err != nil {
		t.Fatal(err)
	}
	p := &plane{t: t, dir: dir}
	p.begin()
	p.stop()
	err := filepath.WalkDir(p.path("state"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == p.path("state") {
			return err
		}
		if d.IsDir() && filepath.Dir(path) == p.path("state") {
			if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%s is %v (%v)", path, info.Mode(), err)
			}
		}
		if strings.HasSuffix(path, ".key") {
			if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s is %v (%v)", path, info.Mode(), err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEndsThatNoNodeTellsAreOnRecord(t *testing.T) {
	dir := t.TempDir()
	key, err := tlog.LoadKey(filepath.Join(dir, "key"), origin)
	if err != nil {
		t.Fatal(err)
	}
	log, err := tlog.Open(filepath.Join(dir, "log"), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, endedBy := range []string{event.EndNotAttached, event.EndAgentLost} {
		recordEnd(log, &keyholev1.Session{Id: "s-" + endedBy, Node: "n1", Summary: &keyholev1.Summary{EndedBy: endedBy}}, slog.New(slog.DiscardHandler))
	}
	if err := within(patience, log.Close); err != nil {
		t.Fatal(err)
	}
	for i, want := range []audit.Kind{audit.NotAttached, audit.AgentLost} {
		data, err := log.Record(context.WithoutCancel(t.Context()), uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		if r, err := audit.Parse(data); err != nil || r.Kind != want || r.SessionID != "s-"+string(want) {
			t.Errorf("record %d: %+v, %v", i, r, err)
		}
	}
}

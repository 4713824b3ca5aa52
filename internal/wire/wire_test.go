// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

func TestSpecRoundTrip(t *testing.T) {
	for _, target := range []probe.Selector{
		{Kind: probe.SelectPID, PID: 4711, Node: "n1"},
		{Kind: probe.SelectExe, Path: "/usr/bin/nginx"},
	} {
		spec := probe.Spec{
			Target: target, Function: "main.(*Cart).Checkout", Arguments: []string{"c.user.email", "qty"},
			Where: "qty > 10", Redact: []probe.Redaction{{Path: "qty", Action: "digest"}},
			Limits: probe.Limits{TTL: time.Minute, MaxHits: 7, Rate: 9, Sample: 10, MaxBytes: 1 << 20, ValueBytes: 64, Budget: 5, Duty: 20},
			Reason: "why not", Stack: true,
		}
		got, err := FromSpec(ToSpec(&spec))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*got, spec) {
			t.Errorf("got %+v, want %+v", *got, spec)
		}
	}
}

// TestPathsAreWrittenInOneWay: rules and redactions for u.tags speak of the length of u.tags, however it was asked for.
func TestPathsAreWrittenInOneWay(t *testing.T) {
	got, err := FromSpec(&keyholev1.Spec{
		Target: &keyholev1.Selector{Target: &keyholev1.Selector_Pid{Pid: 1}}, Function: "f", Reason: "r",
		Arguments: []string{"len(u.tags)", "n"}, Redact: []*keyholev1.Redaction{{Path: "len(u.tags)", Action: "drop"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"u.tags.len", "n"}; !reflect.DeepEqual(got.Arguments, want) || got.Redact[0].Path != want[0] {
		t.Errorf("got the paths %q and %q, want %q", got.Arguments, got.Redact[0].Path, want)
	}
	if _, err := FromSpec(&keyholev1.Spec{
		Target: &keyholev1.Selector{Target: &keyholev1.Selector_Pid{Pid: 1}}, Function: "f", Reason: "r", Arguments: []string{"len(a)", "a.len"},
	}); err == nil {
		t.Error("one value may be asked for twice, in two ways")
	}
}

func TestSpecIsValidated(t *testing.T) {
	valid := probe.Spec{Target: probe.Selector{Kind: probe.SelectPID, PID: 1}, Function: "f", Reason: "r"}
	for name, change := range map[string]func(*keyholev1.Spec){
		"no target":   func(m *keyholev1.Spec) { m.Target = nil },
		"no reason":   func(m *keyholev1.Spec) { m.Reason = "" },
		"no function": func(m *keyholev1.Spec) { m.Function = "" },
		"long TTL":    func(m *keyholev1.Spec) { m.Limits.Ttl.Seconds = 1 << 40 },
		"many paths":  func(m *keyholev1.Spec) { m.Arguments = make([]string, 10_000) },
	} {
		m := ToSpec(&valid)
		change(m)
		_, err := FromSpec(m)
		if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != problem.InvalidArgument {
			t.Errorf("%s: got %v, want an invalid argument", name, err)
		}
	}
	if _, err := FromSpec(nil); err == nil {
		t.Error("no spec at all is taken for a request")
	}
}

func TestStatusRoundTrip(t *testing.T) {
	for _, code := range []string{
		problem.Canceled, problem.Unknown, problem.InvalidArgument, problem.NotFound, problem.FailedPrecondition,
		problem.PermissionDenied, problem.Unavailable, problem.Unauthenticated, problem.Internal,
	} {
		want := &problem.Error{Code: code, Message: "no function Cart.Chekout", Candidates: []string{"main.(*Cart).Checkout", "b"}}
		if got := FromStatus(ToStatus(fmt.Errorf("explain: %w", want))); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got := FromProblem(ToProblem(want)); !reflect.DeepEqual(got, want) {
			t.Errorf("across the stream: got %+v, want %+v", got, want)
		}
	}
	if got := FromProblem(&keyholev1.Problem{Code: "HACKED"}).Code; got != problem.Unknown {
		t.Errorf("a code that is none became %q", got)
	}
}

func TestStatusOfOtherErrors(t *testing.T) {
	for _, test := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{context.Canceled, codes.Canceled},
		{fmt.Errorf("ask: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{errors.New("disk full"), codes.Internal},
		{status.Error(codes.PermissionDenied, "no"), codes.PermissionDenied},
	} {
		if got := status.Code(ToStatus(test.err)); got != test.want {
			t.Errorf("%v: got %v, want %v", test.err, got, test.want)
		}
	}
}

func TestEventKeepsWhatWasDecoded(t *testing.T) {
	e := event.Event{
		SessionID: "s-1", ProbeID: "p", Node: "n", Time: time.Unix(1, 2), Process: event.Process{PID: 3, TID: 4, Comm: "shop"},
		GoroutineID: 5, Function: "main.f", AttachPoint: "entry", PolicyDigest: "sha256:1",
		Arguments: []event.Value{
			{Name: "qty", Type: "int", Kind: event.KindInt, Value: "-1"},
			{Name: "card", Type: "string", Kind: event.KindString, Missing: event.Redacted, Redaction: &event.Redaction{Action: "drop", Rule: "names/identifier"}},
		},
	}
	m := ToEvent(&e)
	if got := m.GetTime().AsTime(); !got.Equal(e.Time) {
		t.Errorf("time %v, want %v", got, e.Time)
	}
	if got := m.GetProcess(); got.GetPid() != 3 || got.GetTid() != 4 || got.GetComm() != "shop" || m.GetGoroutineId() != 5 {
		t.Errorf("process %v, goroutine %d", got, m.GetGoroutineId())
	}
	if got := m.GetArguments()[0]; got.GetValue() != "-1" || got.GetRedaction() != nil {
		t.Errorf("a kept value became %v", got)
	}
	if got := m.GetArguments()[1].GetRedaction(); got.GetRule() != "names/identifier" || got.GetAction() != "drop" {
		t.Errorf("a redaction became %v", got)
	}
}

func TestSummaryAddsUp(t *testing.T) {
	m := ToSummary(event.Counts{Hits: 21, Emitted: 1, Filtered: 2, SampledOut: 3, Throttled: 4, OverLimit: 5, Lost: 6, Final: true}, "deadline")
	if m.GetHits() != m.GetEmitted()+m.GetFiltered()+m.GetSampledOut()+m.GetThrottled()+m.GetOverLimit()+m.GetLost() {
		t.Errorf("%v does not add up", m)
	}
	if m.Missed != nil || !m.GetCountsFinal() || m.GetEndedBy() != "deadline" || m.GetCalls() != 21 {
		t.Errorf("got %v", m)
	}
	if strings.Contains(m.String(), "missed") {
		t.Error("missed is a number where the kernel gives none")
	}
}

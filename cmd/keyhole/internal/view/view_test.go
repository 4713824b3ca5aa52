// SPDX-License-Identifier: Apache-2.0

package view

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyhole-dev/keyhole/cmd/keyhole/internal/table"
	"github.com/keyhole-dev/keyhole/internal/audit"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// now is when all of this happens.
var now = time.Date(2026, 11, 23, 9, 31, 2, 0, time.UTC)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

func golden(t *testing.T, name string, lines []table.Line) {
	t.Helper()
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.String() + "\n")
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, b.String(), want)
	}
}

// fields are those of a checkout: one of each kind of thing that can become of a value.
func fields() []*keyholev1.Field {
	return []*keyholev1.Field{
		{Path: "qty", Type: "int", Kind: "int", Action: "keep", Rule: "default/scalar", Reads: "rcx", MaxBytes: 8},
		{Path: "total", Type: "float64", Kind: "float", Missing: "float register", Detail: "the kernel does not show XMM to a probe"},
		{Path: "c.user.email", Type: "string", Kind: "string", Action: "digest", Rule: "default/string", Reads: "rax → +0x18 → +0x40", MaxBytes: 256},
		{Path: "c.user.password", Type: "string", Kind: "string", Action: "drop", Rule: "names/secret", Missing: "redacted"},
		{Path: "card", Type: "string", Kind: "string", Action: "suffix:4", Rule: "payments/card", Detail: "strictest of 2", Reads: "rdi, rsi", MaxBytes: 4},
		{Path: "c.note", Type: "string", Kind: "string", Action: "keep", Rule: "shop/note", Reads: "rax → +0x60", MaxBytes: 256},
		{Path: "c.items", Type: "[]shop.Item", Kind: "length", Action: "keep", Rule: "default/scalar", Reads: "rax → +0x50", MaxBytes: 8},
	}
}

func session() *keyholev1.Session {
	return &keyholev1.Session{
		Id: "s-7f3k", Requester: "spiffe://keyhole.dev/user/dev", Node: "dev", State: keyholev1.SessionState_SESSION_STATE_ATTACHED,
		Spec: &keyholev1.Spec{
			Target: &keyholev1.Selector{Target: &keyholev1.Selector_Pid{Pid: 4711}}, Function: "Cart.Checkout", Reason: "INC-4211", Where: "qty > 0",
			Limits: &keyholev1.Limits{Ttl: durationpb.New(2 * time.Minute), Rate: 50, MaxBytes: 8 << 20, MaxHits: 100},
		},
		Created: timestamppb.New(now.Add(-time.Second)), Attached: timestamppb.New(now), Deadline: timestamppb.New(now.Add(2 * time.Minute)),
		Function: "main.(*Cart).Checkout", Process: "shop[4711]", Fields: fields(), HolderPid: 4800, BuildId: "7d9d3a0b4c5e6f708192a3b4",
		Sites:   []*keyholev1.Site{{Pid: 4711, Address: 0x49f8af, FileOffset: 0x9f8af, Bytes: []byte{0x48, 0x89, 0xe5}, Where: "after the stack check"}},
		Summary: &keyholev1.Summary{}, PlanDigest: "sha256:" + strings.Repeat("5be1", 16), PolicyDigest: "sha256:" + strings.Repeat("3c1f", 16),
	}
}

func values(qty, digest, card, note string) []*keyholev1.Value {
	return []*keyholev1.Value{
		{Name: "qty", Type: "int", Kind: "int", Value: qty},
		{Name: "total", Type: "float64", Kind: "float", Missing: "float register"},
		{Name: "c.user.email", Type: "string", Kind: "digest", Value: digest, Redaction: &keyholev1.RedactionApplied{Action: "digest", Rule: "default/string"}},
		{Name: "c.user.password", Type: "string", Kind: "string", Missing: "redacted", Redaction: &keyholev1.RedactionApplied{Action: "drop", Rule: "names/secret"}},
		{Name: "card", Type: "string", Kind: "string", Value: card, Redaction: &keyholev1.RedactionApplied{Action: "suffix:4", Rule: "payments/card"}},
		{Name: "c.note", Type: "string", Kind: "string", Value: note, Truncated: len(note) > 60},
		{Name: "c.items", Type: "[]shop.Item", Kind: "length", Value: "3"},
	}
}

func hit(at time.Duration, arguments []*keyholev1.Value) *keyholev1.Event {
	return &keyholev1.Event{
		SessionId: "s-7f3k", Time: timestamppb.New(now.Add(at)), Function: "main.(*Cart).Checkout", Arguments: arguments, SpanId: "00f067aa0ba902b7",
	}
}

func TestTrace(t *testing.T) {
	long := strings.Repeat("leave it at the door ", 20)
	for _, width := range []int{0, 120, 40} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			tr := NewTrace(width)
			var lines []table.Line
			waiting := session()
			waiting.State, waiting.Attached, waiting.Deadline = keyholev1.SessionState_SESSION_STATE_GRANTED, nil, nil
			lines = append(lines, tr.Session(waiting, now)...)
			lines = append(lines, tr.Status(now))
			lines = append(lines, tr.Session(session(), now)...)
			lines = append(lines, tr.Event(hit(114*time.Millisecond, values("1", "1a2b3c4d5e6f7081", "4242", "ring twice")), now)...)
			lines = append(lines, tr.Event(hit(131*time.Millisecond, values("12", "00000000000000ff", "1881", "")), now)...)
			lines = append(lines, tr.Event(hit(160*time.Millisecond, values("-123456789", "1a2b3c4d5e6f7081", "0005", "\x1b[2J\x1b]0;owned\x07\nTIME")), now)...)
			lines = append(lines, tr.Event(hit(2*time.Second, values("3", "1a2b3c4d5e6f7081", "5", long)), now.Add(2*time.Second))...)
			nilUser := values("0", "", "", "")
			nilUser[2] = &keyholev1.Value{Name: "c.user.email", Missing: "nil pointer", Redaction: nilUser[2].GetRedaction()}
			lines = append(lines, tr.Event(hit(3*time.Second, nilUser), now.Add(3*time.Second))...)
			if again := tr.Session(session(), now); again != nil {
				t.Errorf("the header came twice: %v", again)
			}
			later := session()
			later.Summary = &keyholev1.Summary{Hits: 9064, Emitted: 1100}
			tr.Session(later, now.Add(4*time.Second))
			lines = append(lines, tr.Status(now.Add(4*time.Second)))
			ended := session()
			ended.State, ended.Ended = keyholev1.SessionState_SESSION_STATE_ENDED, timestamppb.New(now.Add(22*time.Second))
			tr.Session(ended, now.Add(22*time.Second))
			lines = append(lines, tr.Summary(&keyholev1.Summary{
				Hits: 9064, Calls: 9064, Emitted: 1100, Throttled: 7951, Filtered: 10, SampledOut: 1, OverLimit: 1, Lost: 1, Delivered: 1090, LostToClient: 10,
				CountsFinal: true, EndedBy: "stopped",
			})...)
			golden(t, fmt.Sprintf("trace-%d", width), lines)
		})
	}
}

// TestEventBeforeItsSession: an event may overtake the word that the session is attached.
func TestEventBeforeItsSession(t *testing.T) {
	tr := NewTrace(0)
	waiting := session()
	waiting.State, waiting.Attached, waiting.Deadline, waiting.Fields, waiting.Sites = keyholev1.SessionState_SESSION_STATE_ATTACHING, nil, nil, nil, nil
	tr.Session(waiting, now)
	first := hit(0, values("1", "1a2b3c4d5e6f7081", "4242", "x"))
	first.Process = &keyholev1.Process{Pid: 4711, Comm: "shop"}
	lines := tr.Event(first, now)
	if late := tr.Session(session(), now); late != nil {
		t.Errorf("the header came twice: %v", late)
	}
	golden(t, "overtaken", append(lines, tr.Event(first, now)...))
}

// TestCallers shows them below their call, and nothing of a name but what can be read.
func TestCallers(t *testing.T) {
	tr := NewTrace(80)
	tr.Session(session(), now)
	e := hit(0, nil)
	e.Stack = []string{"main.(*Cart).Checkout /src/cart.go:41", "main.\x1b[2Jserve /src/shop.go:9 (inlined)", "(cut)"}
	lines := tr.Event(e, now)
	var got []string
	for _, l := range lines[len(lines)-3:] {
		got = append(got, l.String())
	}
	if want := []string{"    main.(*Cart).Checkout /src/cart.go:41", `    main.\x1b[2Jserve /src/shop.go:9 (inlined)`, "    (cut)"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestSummaryOfOtherEnds(t *testing.T) {
	var lines []table.Line
	for _, endedBy := range []string{"deadline", "max_hits", "target_gone", "holder_lost", "revoked", "some_day"} {
		tr := NewTrace(0)
		s := session()
		s.Fields = s.GetFields()[:1]
		tr.Session(s, now)
		sum := &keyholev1.Summary{Hits: 5, Emitted: 5, CountsFinal: endedBy != "holder_lost", EndedBy: endedBy}
		if endedBy == "some_day" {
			sum.Missed = proto.Uint64(3)
		}
		lines = append(append(lines, tr.Summary(sum)...), nil)
	}
	// One that was stopped while it was being prepared.
	tr := NewTrace(0)
	s := session()
	s.State, s.Attached, s.Deadline, s.Fields, s.Sites = keyholev1.SessionState_SESSION_STATE_ENDED, nil, nil, nil, nil
	tr.Session(s, now)
	lines = append(append(lines, tr.Summary(&keyholev1.Summary{EndedBy: "stopped"})...), nil)
	// One that was over before somebody looked.
	tr = NewTrace(0)
	s = session()
	s.State = keyholev1.SessionState_SESSION_STATE_ENDED
	lines = append(lines, tr.Session(s, now)...)
	golden(t, "ends", lines)
}

func TestQuiet(t *testing.T) {
	for name, sum := range map[string]*keyholev1.Summary{
		"no call": {}, "condition": {Hits: 412, Filtered: 412}, "sample": {Hits: 9, SampledOut: 9}, "rate": {Hits: 9, Throttled: 9},
	} {
		tr := NewTrace(0)
		s := session()
		s.Summary = sum
		tr.Session(s, now)
		if said := tr.Quiet(now.Add(quietTime - time.Second)); said != nil {
			t.Errorf("%s: said too early: %v", name, said)
		}
		golden(t, "quiet-"+strings.ReplaceAll(name, " ", "-"), tr.Quiet(now.Add(quietTime)))
		if again := tr.Quiet(now.Add(2 * quietTime)); again != nil {
			t.Errorf("%s: said twice: %v", name, again)
		}
	}
	tr := NewTrace(0)
	tr.Session(session(), now)
	tr.Event(hit(0, nil), now)
	if said := tr.Quiet(now.Add(quietTime)); said != nil {
		t.Errorf("said after an event: %v", said)
	}
}

func TestExplain(t *testing.T) {
	e := &keyholev1.ExplainResponse{
		Node: "dev", Function: "main.(*Cart).Checkout", Signature: "func (c *Cart) Checkout(card string, qty int, total float64) error",
		File: "/src/shop/cart/checkout.go", Line: 88, Process: "shop[4711]", Executable: "/usr/bin/shop", BuildId: "7d9d3a0b4c5e6f708192a3b4",
		Language: "go1.26.8", Arch: "amd64", Sites: session().GetSites(), Fields: fields(),
		InlinedAt: []string{"cart.go:41 (main.total)"}, InlinedSum: 3, OtherProcesses: 1,
		Limits:       &keyholev1.Limits{Ttl: durationpb.New(5 * time.Minute), Rate: 50, MaxBytes: 8 << 20, Sample: 10, MaxHits: 7},
		PolicyDigest: session().GetPolicyDigest(), PlanDigest: session().GetPlanDigest(), RecordBytes: 352, Conditions: []string{"qty > 10", "c.note == \"x\""},
		Listing: "main.(*Cart).Checkout  at 0x49f8af\n   0  s0 = r8\n   1  only if s0 > 10\n      -- at most 50/s --\n  10  emit 8 bytes of s0\n",
	}
	golden(t, "explain", Explain(e))
	e.Fields, e.Conditions, e.InlinedSum, e.InlinedAt, e.OtherProcesses, e.Signature = nil, nil, 0, nil, 0, ""
	golden(t, "explain-no-parameters", Explain(e))
	e.Notes = []string{"no debug information describes this function: its calls can be seen, its arguments cannot"}
	golden(t, "explain-no-debug-information", Explain(e))
	e.Fields, e.Notes = fields(), []string{"3 more values were left out: name what to capture with --arg"}
	golden(t, "explain-left-out", Explain(e))
}

func TestLists(t *testing.T) {
	granted := &keyholev1.Session{
		Id: "s-1", State: keyholev1.SessionState_SESSION_STATE_GRANTED, Node: "dev", Requester: "spiffe://keyhole.dev/user/dev",
		Spec: &keyholev1.Spec{Function: "f", Target: &keyholev1.Selector{Target: &keyholev1.Selector_Exe{Exe: "/usr/bin/nginx"}}},
	}
	refused := session()
	refused.State, refused.Ended, refused.Error = keyholev1.SessionState_SESSION_STATE_ENDED, timestamppb.New(now), "no function \"x\""
	refused.Summary.EndedBy = "not_attached"
	golden(t, "sessions", Sessions([]*keyholev1.Session{session(), granted, refused}, now.Add(10*time.Second)))
	golden(t, "session", append(Session(session(), now.Add(10*time.Second)), Session(refused, now.Add(10*time.Second))...))
	golden(t, "stopped", Stopped([]*keyholev1.Session{session(), granted}))
	golden(t, "functions", Functions(&keyholev1.ListFunctionsResponse{Functions: []*keyholev1.FunctionInfo{
		{Name: "main.(*Cart).Checkout", File: "/src/shop/cart.go", Line: 88, Parameters: []*keyholev1.Parameter{{Name: "c", Type: "*main.Cart"}, {Name: "card", Type: "string"}}},
		{Name: "main.total", File: "/src/shop/cart.go", Line: 41, Refused: "no instruction after the stack check is safe"},
	}}))
	golden(t, "nodes", Nodes([]*keyholev1.Node{
		{Name: "dev", Connected: true, Tier: "full", Kernel: "6.12.0", Arch: "amd64", Sessions: 2, Version: "v0.1.0"},
		{Name: "old", LastSeen: timestamppb.New(now.Add(-time.Minute)), Tier: "refused", Kernel: "5.10.0", Arch: "amd64", Why: "the kernel has no uprobe_multi"},
	}, now))
}

func TestDoctor(t *testing.T) {
	golden(t, "doctor", Doctor([]*keyholev1.Node{
		{Name: "dev", Kernel: "6.18.44", Arch: "amd64", Version: "v0.1.0", Findings: []*keyholev1.Finding{
			{Subject: "sessions", State: "good", Text: "this node takes sessions"},
			{Subject: "BTF", State: "missing", Text: "the kernel does not describe its types", Advice: "another kernel"},
			{Subject: "bpffs", State: "fact", Text: "not mounted"},
		}},
		{Name: "old", Kernel: "5.10.0", Arch: "arm64", Version: "v0.0.9"},
	}))
	forked := session()
	forked.ForkedChildren, forked.ForkedSum = []int32{17, 18}, 5
	golden(t, "forked", Session(forked, now))
}

func TestRecords(t *testing.T) {
	list := []Entry{
		{0, audit.Record{Kind: audit.Requested, Time: now, SessionID: "s-1", Actor: "spiffe://keyhole.dev/user/dev", Details: map[string]string{"reason": "INC-4211", "specDigest": "sha256:1"}}},
		{1, audit.Record{Kind: audit.Attached, Time: now.Add(1234 * time.Millisecond), SessionID: "s-1", Actor: "spiffe://keyhole.dev/node/dev", Node: "dev"}},
		{2, audit.Record{Kind: audit.Denied, Time: now.Add(time.Hour), SessionID: "s-1", Actor: "nobody\x1b[2J", Details: map[string]string{"error": strings.Repeat("long ", 50)}}},
	}
	golden(t, "records", Records(list))
	golden(t, "story", Story(list))
}

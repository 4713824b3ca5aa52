// SPDX-License-Identifier: Apache-2.0

package export_test

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/keyhole-dev/keyhole/agent/export"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/otlptest"
	"github.com/keyhole-dev/keyhole/telemetry"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var checkout = event.Event{
	SessionID: "s1", ProbeID: "p1", Node: "n1", Time: time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC),
	Process: event.Process{PID: 10, TID: 11, Comm: "shop"}, GoroutineID: 35, Function: "main.(*Cart).Checkout", AttachPoint: "entry",
	PolicyDigest: "sha256:aa",
	Arguments: []event.Value{
		{Name: "qty", Type: "int", Kind: "int", Value: "-3"},
		{Name: "amount", Type: "uint64", Kind: "uint", Value: "18446744073709551615"},
		{Name: "ok", Type: "bool", Kind: "bool", Value: "true"},
		{Name: "sku", Type: "string", Kind: "string", Value: "A\xff1", Truncated: true},
		{Name: "card", Type: "string", Kind: "string", Value: "4242", Redaction: &event.Redaction{Action: "suffix:4", Rule: "payments/card"}},
		{Name: "password", Type: "string", Kind: "string", Missing: event.Redacted, Redaction: &event.Redaction{Action: "drop", Rule: "names/secret"}},
		{Name: "c.user", Type: "*main.User", Kind: "pointer", Missing: event.NilPointer},
	},
}

func TestSpan(t *testing.T) {
	r, err := otlptest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, v := range r.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	spans, err := telemetry.StartSpans(t.Context(), telemetry.Service{Name: "keyhole-agent", Version: "v0", Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	ids, other := export.Span(spans.Tracer(), &checkout), export.Span(spans.Tracer(), &checkout)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := spans.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	got := r.Spans()
	if len(got) != 2 {
		t.Fatalf("%d spans arrived; want 2", len(got))
	}
	span := got[0]
	if hex.EncodeToString(span.GetTraceId()) != ids.Trace || hex.EncodeToString(span.GetSpanId()) != ids.Span {
		t.Errorf("span %x of trace %x arrived; the event was told %+v", span.GetSpanId(), span.GetTraceId(), ids)
	}
	if ids.Trace == other.Trace || len(span.GetParentSpanId()) > 0 {
		t.Error("two hits share a trace")
	}
	if at := uint64(checkout.Time.UnixNano()); span.GetStartTimeUnixNano() != at || span.GetEndTimeUnixNano() != at {
		t.Errorf("from %d to %d; want the event's time %d", span.GetStartTimeUnixNano(), span.GetEndTimeUnixNano(), at)
	}
	if span.GetName() != checkout.Function || span.GetKind() != 1 {
		t.Errorf("name %q, kind %v; want the function's name, internal", span.GetName(), span.GetKind())
	}
	want := map[string]string{
		"code.function.name": "main.(*Cart).Checkout", "keyhole.session.id": "s1", "keyhole.probe.id": "p1", "keyhole.policy.digest": "sha256:aa",
		"process.pid": "10", "thread.id": "11", "process.executable.name": "shop", "keyhole.attach_point": "entry", "keyhole.goroutine.id": "35",
		"keyhole.arg.qty": "-3", "keyhole.arg.amount": "18446744073709551615", "keyhole.arg.ok": "true",
		"keyhole.arg.sku": "A\uFFFD1", "keyhole.arg.sku.truncated": "true",
		"keyhole.arg.card": "4242", "keyhole.arg.card.redaction": "suffix:4 payments/card",
		"keyhole.arg.password.missing": "redacted", "keyhole.arg.password.redaction": "drop names/secret",
		"keyhole.arg.c.user.missing": "nil pointer",
	}
	for _, a := range span.GetAttributes() {
		text, _ := otlptest.Attribute(span.GetAttributes(), a.GetKey())
		if w, ok := want[a.GetKey()]; !ok || w != text {
			t.Errorf("%s = %q; want %q", a.GetKey(), text, w)
		}
		delete(want, a.GetKey())
	}
	for key := range want {
		t.Errorf("no attribute %s", key)
	}
	if v := span.GetAttributes(); v[9].GetKey() != "keyhole.arg.qty" || v[9].GetValue().GetIntValue() != -3 {
		t.Errorf("an int arrived as %v; want a number", v[9])
	}
}

// TestSpanOfACall: with its return a call is one span, from entry to return, which failed if its error is not nil.
func TestSpanOfACall(t *testing.T) {
	r, err := otlptest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, v := range r.Environment() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	spans, err := telemetry.StartSpans(t.Context(), telemetry.Service{Name: "keyhole-agent"})
	if err != nil {
		t.Fatal(err)
	}
	call := checkout
	call.Duration = 1_234_567 * time.Nanosecond
	call.Results = []event.Value{{Name: "err", Kind: event.KindError, Value: event.AnError}, {Name: "total", Kind: "int", Value: "7"}}
	export.Span(spans.Tracer(), &call)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := spans.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	got := r.Spans()
	if len(got) != 1 {
		t.Fatalf("%d spans arrived; want 1", len(got))
	}
	span := got[0]
	if took := span.GetEndTimeUnixNano() - span.GetStartTimeUnixNano(); took != 1_234_567 || span.GetStartTimeUnixNano() != uint64(call.Time.UnixNano()) {
		t.Errorf("it begins at %d and takes %d ns", span.GetStartTimeUnixNano(), took)
	}
	if span.GetStatus().GetCode() != tracev1.Status_STATUS_CODE_ERROR {
		t.Errorf("status %v", span.GetStatus())
	}
	if total, _ := otlptest.Attribute(span.GetAttributes(), "keyhole.ret.total"); total != "7" {
		t.Errorf("keyhole.ret.total = %q", total)
	}
}

func TestSpanWithoutExporter(t *testing.T) {
	spans, err := telemetry.StartSpans(t.Context(), telemetry.Service{Name: "keyhole-agent"})
	if err != nil {
		t.Fatal(err)
	}
	if ids := export.Span(spans.Tracer(), &checkout); ids != (export.IDs{}) {
		t.Errorf("a span that nobody gets has the IDs %+v", ids)
	}
}

// SPDX-License-Identifier: Apache-2.0

package telemetry_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/keyhole-dev/keyhole/internal/testkit"
	"github.com/keyhole-dev/keyhole/internal/testkit/otlptest"
	"github.com/keyhole-dev/keyhole/telemetry"
)

func TestMain(m *testing.M) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "OTEL_") {
			os.Unsetenv(name)
		}
	}
	testkit.Main(m)
}

var service = telemetry.Service{Name: "keyhole-agent", Version: "v0", Node: "n1"}

func receiver(t *testing.T) *otlptest.Receiver {
	t.Helper()
	r, err := otlptest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func setenv(t *testing.T, environment []string) {
	t.Helper()
	for _, v := range environment {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

func shutdown(t *testing.T, s interface {
	Shutdown(context.Context) error
}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func TestNothingIsExportedWithoutVariables(t *testing.T) {
	for name, environment := range map[string][]string{
		"no variables": nil,
		"none":         {"OTEL_TRACES_EXPORTER=none", "OTEL_LOGS_EXPORTER=none", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9"},
		"disabled":     {"OTEL_SDK_DISABLED=true", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9"},
		"the other":    {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://127.0.0.1:9"},
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, environment)
			spans, err := telemetry.StartSpans(t.Context(), service)
			if err != nil {
				t.Fatal(err)
			}
			copies, err := telemetry.StartAuditCopies(t.Context(), service)
			if err != nil {
				t.Fatal(err)
			}
			_, span := spans.Tracer().Start(t.Context(), "main.f")
			if span.IsRecording() || span.SpanContext().IsValid() {
				t.Error("a span is recorded")
			}
			span.End()
			copies.Export(telemetry.AuditCopy{Kind: "attached"})
			shutdown(t, spans)
			shutdown(t, copies)
			if n := spans.Lost() + copies.Lost(); n > 0 {
				t.Errorf("%d are said to be lost", n)
			}
		})
	}
}

func TestWrongVariableIsSaid(t *testing.T) {
	setenv(t, []string{"OTEL_TRACES_EXPORTER=pigeon", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL=smoke"})
	if _, err := telemetry.StartSpans(t.Context(), service); err == nil || !strings.Contains(err.Error(), "OTEL_") {
		t.Errorf("StartSpans with an exporter that nobody knows: %v", err)
	}
	if _, err := telemetry.StartAuditCopies(t.Context(), service); err == nil || !strings.Contains(err.Error(), "OTEL_") {
		t.Errorf("StartAuditCopies with a protocol that nobody knows: %v", err)
	}
}

func TestSpansArrive(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			r := receiver(t)
			setenv(t, r.Environment())
			if protocol != "grpc" {
				setenv(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + r.HTTP, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol})
			}
			spans, err := telemetry.StartSpans(t.Context(), service)
			if err != nil {
				t.Fatal(err)
			}
			_, span := spans.Tracer().Start(t.Context(), "main.f", trace.WithNewRoot())
			id := span.SpanContext().SpanID()
			span.End()
			shutdown(t, spans)
			got := r.Spans()
			if len(got) != 1 {
				t.Fatalf("%d spans arrived; want 1", len(got))
			}
			if string(got[0].GetSpanId()) != string(id[:]) || got[0].GetName() != "main.f" {
				t.Errorf("span %x %q arrived; want %s main.f", got[0].GetSpanId(), got[0].GetName(), id)
			}
			for key, want := range map[string]string{"service.name": "keyhole-agent", "service.version": "v0", "host.name": "n1"} {
				if text, _ := otlptest.Attribute(got[0].Resource.GetAttributes(), key); text != want {
					t.Errorf("resource: %s = %q; want %q", key, text, want)
				}
			}
			if n := spans.Lost(); n > 0 {
				t.Errorf("%d spans are said to be lost", n)
			}
		})
	}
}

func TestAuditCopiesArrive(t *testing.T) {
	r := receiver(t)
	setenv(t, append(r.Environment(), "OTEL_SERVICE_NAME=mine"))
	copies, err := telemetry.StartAuditCopies(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)
	copies.Export(telemetry.AuditCopy{
		Kind: "about_to_attach", Time: at, SessionID: "s1", Actor: "node/n1", Node: "n1", Index: 41, Checkpoint: "log\n42\nroot\n",
		Record: `{"kind":"about_to_attach"}`,
	})
	copies.Export(telemetry.AuditCopy{Kind: "refused", Time: at, Index: 42, Adverse: true})
	shutdown(t, copies)
	got := r.LogRecords()
	if len(got) != 2 {
		t.Fatalf("%d log records arrived; want 2", len(got))
	}
	first := got[0]
	if first.GetEventName() != "keyhole.audit.about_to_attach" || first.GetTimeUnixNano() != uint64(at.UnixNano()) ||
		first.GetBody().GetStringValue() != `{"kind":"about_to_attach"}` || first.GetSeverityNumber() != 9 {
		t.Errorf("arrived: %v", first.LogRecord)
	}
	for key, want := range map[string]string{
		"keyhole.audit.index": "41", "keyhole.audit.checkpoint": "log\n42\nroot\n", "keyhole.session.id": "s1",
		"keyhole.audit.actor": "node/n1", "keyhole.audit.node": "n1",
	} {
		if text, _ := otlptest.Attribute(first.GetAttributes(), key); text != want {
			t.Errorf("%s = %q; want %q", key, text, want)
		}
	}
	if text, _ := otlptest.Attribute(first.Resource.GetAttributes(), "service.name"); text != "mine" {
		t.Errorf("service.name = %q: OTEL_SERVICE_NAME does not win", text)
	}
	if _, there := otlptest.Attribute(got[1].GetAttributes(), "keyhole.session.id"); there || got[1].GetSeverityNumber() != 13 {
		t.Errorf("arrived: %v", got[1].LogRecord)
	}
}

// TestLossesAreCounted ends more spans than fit while the collector accepts and never answers.
func TestLossesAreCounted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	setenv(t, []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + l.Addr().String(), "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_BSP_MAX_QUEUE_SIZE=16", "OTEL_BSP_SCHEDULE_DELAY=10", "OTEL_BLRP_MAX_QUEUE_SIZE=16", "OTEL_BLRP_SCHEDULE_DELAY=10",
	})
	spans, err := telemetry.StartSpans(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	copies, err := telemetry.StartAuditCopies(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	begun := time.Now()
	for i := range n {
		_, span := spans.Tracer().Start(t.Context(), fmt.Sprintf("main.f%d", i))
		span.End()
		copies.Export(telemetry.AuditCopy{Kind: "attached", Index: uint64(i)})
	}
	if d := time.Since(begun); d > time.Second {
		t.Errorf("a collector that hangs held up %d spans for %v", n, d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := spans.Shutdown(ctx); err == nil {
		t.Error("Shutdown says that the last spans were exported")
	}
	if err := copies.Shutdown(ctx); err == nil {
		t.Error("Shutdown says that the last audit copies were exported")
	}
	if spans.Lost() != n || copies.Lost() != n {
		t.Errorf("lost: %d spans and %d copies; want all %d of each", spans.Lost(), copies.Lost(), n)
	}
}

// TestLossesAddUp has a collector that answers, and a queue that is too short.
func TestLossesAddUp(t *testing.T) {
	r := receiver(t)
	setenv(t, append(r.Environment(), "OTEL_BSP_MAX_QUEUE_SIZE=16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=4"))
	spans, err := telemetry.StartSpans(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	const n = 5000
	for range n {
		_, span := spans.Tracer().Start(t.Context(), "main.f")
		span.End()
	}
	shutdown(t, spans)
	got := uint64(len(r.Spans()))
	if got+spans.Lost() != n {
		t.Errorf("%d arrived and %d are said to be lost; together they should be %d", got, spans.Lost(), n)
	}
	if got == 0 || spans.Lost() == 0 {
		t.Errorf("%d arrived, %d were lost: the test shows nothing", got, spans.Lost())
	}
}

func TestFiles(t *testing.T) {
	if files := telemetry.Files(); len(files) > 0 {
		t.Errorf("without variables it wants to read %q", files)
	}
	setenv(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=https://collector:4317", "OTEL_EXPORTER_OTLP_CERTIFICATE=/creds/ca.pem"})
	for _, want := range []string{"/etc/resolv.conf", "/creds/ca.pem"} {
		if files := telemetry.Files(); !slices.Contains(files, want) {
			t.Errorf("%s is not among %q", want, files)
		}
	}
}

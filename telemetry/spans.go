// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"fmt"
	"os"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// spanDelay is how long a span waits for others unless OTEL_BSP_SCHEDULE_DELAY says: people look at a probe while it runs.
const spanDelay = time.Second

// Spans exports spans. It is safe for concurrent use.
type Spans struct {
	provider *sdktrace.TracerProvider // nil: nothing is exported
	gate     *gate
}

// StartSpans makes the exporter that the environment asks for; without variables one that exports nothing. Its error
// says which variable is wrong. A collector that is away is no error: spans are lost and counted until it is there.
func StartSpans(ctx context.Context, s Service) (*Spans, error) {
	spans := &Spans{gate: newGate(queueSize("OTEL_BSP_MAX_QUEUE_SIZE"))}
	if !configured("TRACES") {
		return spans, nil
	}
	quietly()
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the span exporter that OTEL_* variables name: %w", err)
	}
	if autoexport.IsNoneSpanExporter(exporter) {
		return spans, nil
	}
	res, err := s.resource(ctx)
	if err != nil {
		return nil, err
	}
	options := []sdktrace.BatchSpanProcessorOption{sdktrace.WithMaxQueueSize(spans.gate.size)}
	if os.Getenv("OTEL_BSP_SCHEDULE_DELAY") == "" {
		options = append(options, sdktrace.WithBatchTimeout(spanDelay))
	}
	batches := sdktrace.NewBatchSpanProcessor(countedSpans{exporter, spans.gate}, options...)
	spans.provider = sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithSpanProcessor(gatedSpans{batches, spans.gate}))
	return spans, nil
}

// Tracer returns what makes the spans. If nothing is exported its spans have no IDs.
func (s *Spans) Tracer() trace.Tracer {
	if s.provider == nil {
		return noop.NewTracerProvider().Tracer(scope)
	}
	return s.provider.Tracer(scope)
}

// Lost counts the spans that were ended and did not, or perhaps did not, reach the collector.
func (s *Spans) Lost() uint64 { return s.gate.count() }

// Shutdown exports what waits, until ctx is done. What still waits then is lost.
func (s *Spans) Shutdown(ctx context.Context) error {
	if s.provider == nil {
		return nil
	}
	if err := s.gate.shutdown(ctx, s.provider.Shutdown); err != nil {
		return fmt.Errorf("export the last spans: %w", err)
	}
	return nil
}

// gatedSpans lets a span into the batch queue only if there is room.
type gatedSpans struct {
	sdktrace.SpanProcessor
	gate *gate
}

func (p gatedSpans) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() && p.gate.enter() {
		p.SpanProcessor.OnEnd(s)
	}
}

// countedSpans tells the gate what became of each batch.
type countedSpans struct {
	sdktrace.SpanExporter
	gate *gate
}

func (e countedSpans) ExportSpans(ctx context.Context, batch []sdktrace.ReadOnlySpan) error {
	return e.gate.export(ctx, len(batch), func(ctx context.Context) error { return e.SpanExporter.ExportSpans(ctx, batch) })
}

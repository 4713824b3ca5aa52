// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
)

// An AuditCopy is one audit record with its place in the log. The log holds the truth; a reader of copies sees by
// their indexes if one is missing, and fetches it from the log.
type AuditCopy struct {
	Kind       string // about_to_attach
	Time       time.Time
	SessionID  string // empty for a record of no session
	Actor      string
	Node       string
	Index      uint64
	Checkpoint string // signed; covers the leaf at Index
	Record     string // the leaf's very bytes: JSON
	Adverse    bool   // somebody was turned away, or something went wrong
}

// AuditCopies exports log records. It is safe for concurrent use.
type AuditCopies struct {
	provider *sdklog.LoggerProvider // nil: nothing is exported
	logger   log.Logger
	gate     *gate
}

// StartAuditCopies makes the exporter that the environment asks for, as StartSpans does.
func StartAuditCopies(ctx context.Context, s Service) (*AuditCopies, error) {
	copies := &AuditCopies{gate: newGate(queueSize("OTEL_BLRP_MAX_QUEUE_SIZE"))}
	if !configured("LOGS") {
		return copies, nil
	}
	quietly()
	exporter, err := autoexport.NewLogExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the log exporter that OTEL_* variables name: %w", err)
	}
	if autoexport.IsNoneLogExporter(exporter) {
		return copies, nil
	}
	res, err := s.resource(ctx)
	if err != nil {
		return nil, err
	}
	batches := sdklog.NewBatchProcessor(countedLogs{exporter, copies.gate}, sdklog.WithMaxQueueSize(copies.gate.size))
	copies.provider = sdklog.NewLoggerProvider(sdklog.WithResource(res), sdklog.WithProcessor(gatedLogs{batches, copies.gate}))
	copies.logger = copies.provider.Logger(scope)
	return copies, nil
}

// Export hands one copy over and returns at once.
func (a *AuditCopies) Export(c AuditCopy) {
	if a.provider == nil {
		return
	}
	var r log.Record
	r.SetEventName(AuditEvent + c.Kind)
	r.SetTimestamp(c.Time)
	r.SetObservedTimestamp(time.Now())
	r.SetSeverity(log.SeverityInfo)
	if c.Adverse {
		r.SetSeverity(log.SeverityWarn)
	}
	r.SetBody(attribute.StringValue(c.Record))
	attributes := []attribute.KeyValue{AuditIndex.Int64(int64(c.Index)), AuditCheckpoint.String(c.Checkpoint)}
	for _, a := range []attribute.KeyValue{SessionID.String(c.SessionID), AuditActor.String(c.Actor), AuditNode.String(c.Node)} {
		if a.Value.AsString() != "" {
			attributes = append(attributes, a)
		}
	}
	r.AddAttributes(attributes...)
	a.logger.Emit(context.Background(), r)
}

// Lost counts the copies that did not, or perhaps did not, reach the collector.
func (a *AuditCopies) Lost() uint64 { return a.gate.count() }

// Shutdown exports what waits, until ctx is done. What still waits then is lost.
func (a *AuditCopies) Shutdown(ctx context.Context) error {
	if a.provider == nil {
		return nil
	}
	if err := a.gate.shutdown(ctx, a.provider.Shutdown); err != nil {
		return fmt.Errorf("export the last audit copies: %w", err)
	}
	return nil
}

// gatedLogs lets a record into the batch queue only if there is room.
type gatedLogs struct {
	*sdklog.BatchProcessor
	gate *gate
}

func (p gatedLogs) OnEmit(ctx context.Context, r *sdklog.Record) error {
	if !p.gate.enter() {
		return nil
	}
	return p.BatchProcessor.OnEmit(ctx, r)
}

// countedLogs tells the gate what became of each batch.
type countedLogs struct {
	sdklog.Exporter
	gate *gate
}

func (e countedLogs) Export(ctx context.Context, batch []sdklog.Record) error {
	return e.gate.export(ctx, len(batch), func(ctx context.Context) error { return e.Exporter.Export(ctx, batch) })
}

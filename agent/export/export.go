// SPDX-License-Identifier: Apache-2.0

// Package export turns events into spans.
package export

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/telemetry"
)

// IDs name the span that an event became, in hex. They are empty if it is not exported.
type IDs struct{ Trace, Span string }

// Span ends a span for the event and returns its IDs. The span is the root of a trace of its own. A hit of an
// entry probe is a moment: it starts and ends at the event's time; a call lasts from its entry to its return, and its status is an error
// if a result of type error says so.
func Span(tracer trace.Tracer, e *event.Event) IDs {
	_, span := tracer.Start(context.Background(), valid(e.Function),
		trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindInternal), trace.WithTimestamp(e.Time))
	defer span.End(trace.WithTimestamp(e.Time.Add(e.Duration)))
	if !span.IsRecording() {
		return IDs{}
	}
	span.SetAttributes(attributes(e)...)
	if slices.ContainsFunc(e.Results, event.Value.Failed) {
		span.SetStatus(codes.Error, "")
	}
	c := span.SpanContext()
	if !c.IsSampled() {
		return IDs{}
	}
	return IDs{Trace: c.TraceID().String(), Span: c.SpanID().String()}
}

func attributes(e *event.Event) []attribute.KeyValue {
	list := []attribute.KeyValue{
		telemetry.Function.String(valid(e.Function)),
		telemetry.AttachPoint.String(e.AttachPoint),
		telemetry.SessionID.String(e.SessionID),
		telemetry.ProbeID.String(e.ProbeID),
		telemetry.PolicyDigest.String(e.PolicyDigest),
		telemetry.ProcessID.Int(e.Process.PID),
		telemetry.ThreadID.Int(e.Process.TID),
		telemetry.ProcessName.String(valid(e.Process.Comm)),
	}
	if e.GoroutineID != 0 {
		list = append(list, telemetry.GoroutineID.Int64(int64(e.GoroutineID)))
	}
	if lines := e.StackLines(); len(lines) > 0 {
		list = append(list, telemetry.Stack.String(valid(strings.Join(lines, "\n"))))
	}
	for i := range e.Arguments {
		list = appendValue(list, telemetry.Argument(valid(e.Arguments[i].Name)), &e.Arguments[i])
	}
	for i := range e.Results {
		list = appendValue(list, telemetry.Result(valid(e.Results[i].Name)), &e.Results[i])
	}
	return list
}

// appendValue adds what is known of one value: the value, or why there is none, and what was done to it by which rule.
func appendValue(list []attribute.KeyValue, key attribute.Key, v *event.Value) []attribute.KeyValue {
	if v.Missing != "" {
		list = append(list, telemetry.Missing(key).String(v.Missing))
	} else {
		list = append(list, attribute.KeyValue{Key: key, Value: value(v)})
	}
	if v.Truncated {
		list = append(list, telemetry.Truncated(key).Bool(true))
	}
	if r := v.Redaction; r != nil {
		list = append(list, telemetry.Redaction(key).String(r.Action+" "+r.Rule))
	}
	return list
}

// value keeps the type of numbers and booleans, so that a backend can compare them; all else is text. A number that its
// attribute type cannot hold is text too.
func value(v *event.Value) attribute.Value {
	switch v.Kind {
	case "int", "uint", "length":
		if n, err := strconv.ParseInt(v.Value, 10, 64); err == nil {
			return attribute.Int64Value(n)
		}
	case "bool":
		if b, err := strconv.ParseBool(v.Value); err == nil {
			return attribute.BoolValue(b)
		}
	case "float":
		if f, err := strconv.ParseFloat(v.Value, 64); err == nil {
			return attribute.Float64Value(f)
		}
	}
	return attribute.StringValue(valid(v.Value))
}

// valid replaces what is not UTF-8: one such byte in a string that a target wrote would make OTLP refuse a whole batch.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// SPDX-License-Identifier: Apache-2.0

package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/keyhole-dev/keyhole/internal/event"
)

// The metrics of what sessions count. Both are cumulative over one session.
const (
	callsMetric = "keyhole.calls"
	valueMetric = "keyhole.value"
	// durationMetric is in nanoseconds: a bucket of powers of two of them has no equal among those of seconds.
	durationMetric = "keyhole.call.duration"
)

// Metrics exports what sessions have counted in the kernel: the same numbers that people are shown. It is safe for concurrent use.
type Metrics struct {
	provider *sdkmetric.MeterProvider // nil: nothing is exported
	counted  *counted
}

// StartMetrics makes the exporter that the environment asks for; without variables one that exports nothing. Its error says which
// variable is wrong.
func StartMetrics(ctx context.Context, s Service) (*Metrics, error) {
	m := &Metrics{counted: &counted{sessions: make(map[string]*sessionCounts)}}
	if !configured("METRICS") {
		return m, nil
	}
	if slices.Contains(strings.Split(os.Getenv("OTEL_METRICS_EXPORTER"), ","), "prometheus") {
		return nil, errors.New("OTEL_METRICS_EXPORTER=prometheus would listen on a port, and an agent listens nowhere: use otlp")
	}
	quietly()
	autoexport.WithFallbackMetricProducer(func(context.Context) (sdkmetric.Producer, error) { return m.counted, nil })
	reader, err := autoexport.NewMetricReader(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the metric exporter that OTEL_* variables name: %w", err)
	}
	if autoexport.IsNoneMetricReader(reader) {
		return m, nil
	}
	res, err := s.resource(ctx)
	if err != nil {
		return nil, err
	}
	m.provider = sdkmetric.NewMeterProvider(sdkmetric.WithResource(res), sdkmetric.WithReader(reader))
	return m, nil
}

// Update takes what a session has counted so far. It keeps a.
func (m *Metrics) Update(a *event.Aggregate) {
	if m.provider != nil {
		m.counted.update(a)
	}
}

// End exports the last counts of a session, without waiting for it, and forgets them.
func (m *Metrics) End(session string) {
	if m.provider == nil || !m.counted.has(session) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastCounts)
		defer cancel()
		_ = m.provider.ForceFlush(ctx) // the SDK has said what went wrong
		m.counted.forget(session)
	}()
}

// lastCounts is how long the last counts of a session may take on their way.
const lastCounts = 10 * time.Second

// Shutdown exports what there is, until ctx is done.
func (m *Metrics) Shutdown(ctx context.Context) error {
	if m.provider == nil {
		return nil
	}
	if err := m.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("export the last metrics: %w", err)
	}
	return nil
}

// counted is the newest counts of each session, as the SDK's reader asks for them.
type counted struct {
	mu       sync.Mutex
	sessions map[string]*sessionCounts
}

type sessionCounts struct {
	begun  time.Time // when the first counts came
	newest *event.Aggregate
}

func (c *counted) update(a *event.Aggregate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[a.SessionID]
	if s == nil {
		s = &sessionCounts{begun: a.Time}
		c.sessions[a.SessionID] = s
	}
	s.newest = a
}

func (c *counted) has(session string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessions[session] != nil
}

func (c *counted) forget(session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, session)
}

// Produce implements the SDK's metric.Producer.
func (c *counted) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: true}
	values := metricdata.ExponentialHistogram[int64]{Temporality: metricdata.CumulativeTemporality}
	durations := values
	for _, s := range c.sessions {
		calls.DataPoints = append(calls.DataPoints, s.calls()...)
		switch {
		case s.newest.Histogram == nil:
		case s.newest.Durations:
			durations.DataPoints = append(durations.DataPoints, s.values())
		default:
			values.DataPoints = append(values.DataPoints, s.values())
		}
	}
	var list []metricdata.Metrics
	if len(calls.DataPoints) > 0 {
		list = append(list, metricdata.Metrics{Name: callsMetric, Description: "Calls of a probed function", Unit: "{call}", Data: calls})
	}
	if len(values.DataPoints) > 0 {
		list = append(list, metricdata.Metrics{Name: valueMetric, Description: "A number that a probed function was called with", Data: values})
	}
	if len(durations.DataPoints) > 0 {
		list = append(list, metricdata.Metrics{Name: durationMetric, Description: "How long calls of a probed function took", Unit: "ns", Data: durations})
	}
	if len(list) == 0 {
		return nil, nil
	}
	return []metricdata.ScopeMetrics{{Scope: instrumentation.Scope{Name: scope}, Metrics: list}}, nil
}

func (s *sessionCounts) attributes(more ...attribute.KeyValue) attribute.Set {
	return attribute.NewSet(append(more, SessionID.String(s.newest.SessionID), Function.String(s.newest.Function))...)
}

// calls are the calls of each group, or of all if there are none.
func (s *sessionCounts) calls() []metricdata.DataPoint[int64] {
	a := s.newest
	point := func(n uint64, more ...attribute.KeyValue) metricdata.DataPoint[int64] {
		return metricdata.DataPoint[int64]{Attributes: s.attributes(more...), StartTime: s.begun, Time: a.Time, Value: int64(n)}
	}
	if a.Path == "" || a.Histogram != nil {
		return []metricdata.DataPoint[int64]{point(a.Calls)}
	}
	var points []metricdata.DataPoint[int64]
	for _, g := range a.Groups {
		if g.Value.Missing != "" {
			points = append(points, point(g.Calls, GroupMissing.String(g.Value.Missing)))
		} else {
			points = append(points, point(g.Calls, Argument(a.Path).String(g.Value.Value)))
		}
	}
	if a.Other > 0 {
		points = append(points, point(a.Other, GroupOther.Bool(true)))
	}
	return points
}

func (s *sessionCounts) values() metricdata.ExponentialHistogramDataPoint[int64] {
	h := s.newest.Histogram
	bucket := func(b event.Buckets) metricdata.ExponentialBucket {
		return metricdata.ExponentialBucket{Offset: int32(b.Offset), Counts: b.Counts}
	}
	return metricdata.ExponentialHistogramDataPoint[int64]{
		Attributes: s.attributes(ValuePath.String(s.newest.Path)), StartTime: s.begun, Time: s.newest.Time,
		Count: h.Count(), Sum: h.Sum, Scale: int32(h.Scale), ZeroCount: h.Zero, PositiveBucket: bucket(h.Positive), NegativeBucket: bucket(h.Negative),
	}
}

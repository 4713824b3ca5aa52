// SPDX-License-Identifier: Apache-2.0

// Package otlptest is an OTLP receiver that keeps what it gets, for tests and the demonstration. It speaks gRPC and
// HTTP with protobuf bodies, on loopback, without TLS.
package otlptest

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// A Receiver takes spans, metrics and log records. It is safe for concurrent use.
type Receiver struct {
	GRPC string // host:port, for OTEL_EXPORTER_OTLP_PROTOCOL=grpc
	HTTP string // host:port, for http/protobuf, the default

	grpc *grpc.Server
	http *http.Server

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, when something arrived
	spans   []Span
	logs    []LogRecord
	metrics []Metric
}

// A Span is what arrived, with the attributes of the resource that sent it.
type Span struct {
	*trace.Span
	Resource *resource.Resource
}

// A LogRecord is what arrived, with the attributes of the resource that sent it.
type LogRecord struct {
	*logs.LogRecord
	Resource *resource.Resource
}

// A Metric is what arrived, with the attributes of the resource that sent it.
type Metric struct {
	*metrics.Metric
	Resource *resource.Resource
}

// Start listens on two free ports of loopback.
func Start() (*Receiver, error) {
	r := &Receiver{changed: make(chan struct{}), grpc: grpc.NewServer()}
	lg, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for OTLP over gRPC: %w", err)
	}
	lh, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		lg.Close()
		return nil, fmt.Errorf("listen for OTLP over HTTP: %w", err)
	}
	r.GRPC, r.HTTP = lg.Addr().String(), lh.Addr().String()
	collectortrace.RegisterTraceServiceServer(r.grpc, traceService{r: r})
	collectormetrics.RegisterMetricsServiceServer(r.grpc, metricsService{r: r})
	collectorlogs.RegisterLogsServiceServer(r.grpc, logsService{r: r})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", handler(traceService{r: r}.Export))
	mux.HandleFunc("POST /v1/metrics", handler(metricsService{r: r}.Export))
	mux.HandleFunc("POST /v1/logs", handler(logsService{r: r}.Export))
	r.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go r.grpc.Serve(lg) //nolint:errcheck // it ends with Stop
	go r.http.Serve(lh) //nolint:errcheck // it ends with Close
	return r, nil
}

// Close stops listening and drops the connections. What arrived stays readable.
func (r *Receiver) Close() error {
	r.grpc.Stop()
	return r.http.Close()
}

// Environment returns the OTEL_* settings that make a process send here, quickly, over gRPC.
func (r *Receiver) Environment() []string {
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + r.GRPC, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
		"OTEL_BSP_SCHEDULE_DELAY=100", "OTEL_BLRP_SCHEDULE_DELAY=100", "OTEL_METRIC_EXPORT_INTERVAL=200",
	}
}

// Spans returns the spans that arrived so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// LogRecords returns the log records that arrived so far.
func (r *Receiver) LogRecords() []LogRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.logs)
}

// Metrics returns the metrics that arrived so far, each as often as it was sent.
func (r *Receiver) Metrics() []Metric {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.metrics)
}

// WaitFor returns when done says so of what arrived, or when ctx ends, with an error that says how much arrived.
func (r *Receiver) WaitFor(ctx context.Context, done func(spans []Span, records []LogRecord) bool) error {
	for {
		r.mu.Lock()
		changed, spans, records := r.changed, r.spans, r.logs
		r.mu.Unlock()
		if done(spans, records) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for telemetry, %d spans and %d log records arrived: %w", len(spans), len(records), ctx.Err())
		}
	}
}

func (r *Receiver) add(spans []Span, records []LogRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans = append(r.spans, spans...)
	r.logs = append(r.logs, records...)
	close(r.changed)
	r.changed = make(chan struct{})
}

// Attribute returns the text of an attribute, in whatever type it came, and whether it is there.
func Attribute(list []*common.KeyValue, key string) (string, bool) {
	for _, a := range list {
		if a.GetKey() != key {
			continue
		}
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_StringValue:
			return v.StringValue, true
		case *common.AnyValue_BoolValue:
			return fmt.Sprint(v.BoolValue), true
		case *common.AnyValue_IntValue:
			return fmt.Sprint(v.IntValue), true
		case *common.AnyValue_DoubleValue:
			return fmt.Sprint(v.DoubleValue), true
		}
		return a.GetValue().String(), true
	}
	return "", false
}

type traceService struct {
	collectortrace.UnimplementedTraceServiceServer
	r *Receiver
}

func (s traceService) Export(_ context.Context, req *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	var spans []Span
	for _, rs := range req.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			for _, span := range ss.GetSpans() {
				spans = append(spans, Span{span, rs.GetResource()})
			}
		}
	}
	s.r.add(spans, nil)
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

type metricsService struct {
	collectormetrics.UnimplementedMetricsServiceServer
	r *Receiver
}

func (s metricsService) Export(_ context.Context, req *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	for _, rm := range req.GetResourceMetrics() {
		for _, sm := range rm.GetScopeMetrics() {
			for _, m := range sm.GetMetrics() {
				s.r.metrics = append(s.r.metrics, Metric{m, rm.GetResource()})
			}
		}
	}
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

type logsService struct {
	collectorlogs.UnimplementedLogsServiceServer
	r *Receiver
}

func (s logsService) Export(_ context.Context, req *collectorlogs.ExportLogsServiceRequest) (*collectorlogs.ExportLogsServiceResponse, error) {
	var records []LogRecord
	for _, rl := range req.GetResourceLogs() {
		for _, sl := range rl.GetScopeLogs() {
			for _, record := range sl.GetLogRecords() {
				records = append(records, LogRecord{record, rl.GetResource()})
			}
		}
	}
	s.r.add(nil, records)
	return &collectorlogs.ExportLogsServiceResponse{}, nil
}

// message is a pointer to a generated message type.
type message[T any] interface {
	*T
	proto.Message
}

// maxBody bounds one HTTP request: more than the exporters send at once.
const maxBody = 64 << 20

// handler serves one service's Export over HTTP.
func handler[Req, Resp any, PReq message[Req], PResp message[Resp]](export func(context.Context, PReq) (PResp, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		body, err := readBody(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		in := PReq(new(Req))
		if err := proto.Unmarshal(body, in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := export(req.Context(), in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer, err := proto.Marshal(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.Write(answer) //nolint:errcheck // the sender sees it
	}
}

func readBody(req *http.Request) ([]byte, error) {
	var body io.Reader = req.Body
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(req.Body)
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		body = z
	}
	data, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err == nil && len(data) > maxBody {
		err = errors.New("the body is too long")
	}
	return data, err
}

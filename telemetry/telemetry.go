// SPDX-License-Identifier: Apache-2.0

// Package telemetry is the way out: spans for events, metrics for what is counted, log records for copies of audit records, by the OpenTelemetry SDK
// and the exporters that the standard OTEL_* variables name. It is the only importer of the SDK. Without those
// variables nothing is exported and nothing is connected to.
//
// Export never holds up what it reports on. Each signal has a bounded queue; what does not fit, or what the collector
// did not take, is lost, and counted: Lost is never less than what is missing at the other end.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// scope names the instrumentation in what is exported.
const scope = "github.com/keyhole-dev/keyhole"

// A Service says whose telemetry it is. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to it and win.
type Service struct {
	Name    string // service.name: keyhole-agent
	Version string // service.version
	Node    string // host.name; empty where there is none
}

func (s Service) resource(ctx context.Context) (*resource.Resource, error) {
	attributes := []attribute.KeyValue{semconv.ServiceName(s.Name), semconv.ServiceVersion(s.Version)}
	if s.Node != "" {
		attributes = append(attributes, semconv.HostName(s.Node))
	}
	r, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attributes...), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("describe the telemetry's resource: %w", err)
	}
	return r, nil
}

// configured says whether the environment asks for a signal: "TRACES", "METRICS" or "LOGS".
func configured(signal string) bool {
	if disabled, err := strconv.ParseBool(os.Getenv("OTEL_SDK_DISABLED")); err == nil && disabled {
		return false
	}
	for _, name := range []string{"OTEL_" + signal + "_EXPORTER", "OTEL_EXPORTER_OTLP_" + signal + "_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

// queueSize is how many items a signal may have waiting: the variable's value, or what the specification says.
func queueSize(variable string) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil && n > 0 {
		return n
	}
	return 2048
}

// Files returns the files and directories that an exporter reads after the process has started, so that a sandbox can leave them
// readable: name resolution, the system's roots of trust, and the certificates that OTEL_* variables name.
func Files() []string {
	if !configured("TRACES") && !configured("LOGS") && !configured("METRICS") {
		return nil
	}
	files := []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/ssl", "/etc/pki", "/usr/share/ca-certificates"}
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR"} {
		files = appendSet(files, name)
	}
	for _, signal := range []string{"", "TRACES_", "LOGS_", "METRICS_"} {
		for _, kind := range []string{"CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"} {
			files = appendSet(files, "OTEL_EXPORTER_OTLP_"+signal+kind)
		}
	}
	return files
}

func appendSet(list []string, variable string) []string {
	if v := os.Getenv(variable); v != "" {
		return append(list, v)
	}
	return list
}

// quietly sends what the SDK complains about to the log, one line in ten seconds: a collector that is away would
// otherwise fill it. It is set once for the process, as the SDK has one handler.
var quietly = sync.OnceFunc(func() {
	var mu sync.Mutex
	var last time.Time
	var unsaid int
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if !last.IsZero() && time.Since(last) < 10*time.Second {
			unsaid++
			return
		}
		slog.Warn("export telemetry", "error", err, "unsaid", unsaid)
		last, unsaid = time.Now(), 0
	}))
})

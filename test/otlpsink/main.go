// SPDX-License-Identifier: Apache-2.0

// Command otlpsink is an OpenTelemetry receiver for the demonstration: it prints a line for each span and each log record
// that it gets, after one line "ready URL".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	common "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/keyhole-dev/keyhole/internal/testkit/otlptest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "otlpsink:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	receiver, err := otlptest.Start()
	if err != nil {
		return err
	}
	fmt.Println("ready", "http://"+receiver.HTTP)
	var spans, records int // how many of each are printed
	for {
		err := receiver.WaitFor(ctx, func(s []otlptest.Span, r []otlptest.LogRecord) bool {
			return len(s) > spans || len(r) > records
		})
		if err != nil { // the signal
			return receiver.Close()
		}
		for _, s := range receiver.Spans()[spans:] {
			spans++
			fmt.Println("span", s.GetName(), attributes(s.GetAttributes()))
		}
		for _, r := range receiver.LogRecords()[records:] {
			records++
			fmt.Println("log", r.GetEventName(), attributes(r.GetAttributes()))
		}
	}
}

func attributes(list []*common.KeyValue) string {
	texts := make([]string, len(list))
	for i, a := range list {
		text, _ := otlptest.Attribute(list, a.GetKey())
		texts[i] = fmt.Sprintf("%s=%q", a.GetKey(), text)
	}
	return strings.Join(texts, " ")
}

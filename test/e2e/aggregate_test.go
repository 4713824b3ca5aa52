// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/internal/testkit/devtest"
	"github.com/keyhole-dev/keyhole/internal/testkit/otlptest"
)

// TestAggregates counts the same calls in every way: a line a second with the numbers, the last one exact, no event, and the same
// numbers as metrics.
func TestAggregates(t *testing.T) {
	receiver, err := otlptest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	flags := append(rules(t, "id: test/note, name: note, action: keep"), "--ceiling", devtest.BusyNode(t))
	d := devtest.Start(t, receiver.Environment(), flags...)
	vault := startVault(t)
	target := fmt.Sprintf("pid/%d", vault.PID())
	say := func(secret string, calls int) {
		vault.Send("secret " + secret)
		vault.Expect("ok", 10*time.Second)
		call(vault, calls)
	}
	for _, c := range []struct {
		name  string
		flags []string
		check func(t *testing.T, last *devtest.Aggregate)
	}{
		{"count", []string{"--count"}, func(t *testing.T, last *devtest.Aggregate) {
			if last.Path != "" || len(last.Groups) != 0 || last.Histogram != nil {
				t.Errorf("%+v", last)
			}
		}},
		{"count where", []string{"--count", "--where", "n >= 0"}, func(*testing.T, *devtest.Aggregate) {}},
		{"count by", []string{"--count", "by", "note"}, func(t *testing.T, last *devtest.Aggregate) {
			if last.Path != "note" || last.Other != 0 || len(last.Groups) != 2 || last.Groups[0].Value.Value != "apples" || last.Groups[0].Calls != 300 ||
				last.Groups[1].Value.Value != "pears" || last.Groups[1].Calls != 100 {
				t.Errorf("%+v", last)
			}
		}},
		{"hist", []string{"--hist", "n"}, func(t *testing.T, last *devtest.Aggregate) {
			h := last.Histogram
			if h == nil || last.Path != "n" || h.Zero != 2 || h.Sum != 300*299/2+100*99/2 || h.Scale != 3 || len(h.Positive.Counts) == 0 || h.Positive.Offset != -1 {
				t.Errorf("%+v, %+v", last, h)
			}
		}},
		{"hist duration", []string{"--hist", "duration"}, func(t *testing.T, last *devtest.Aggregate) {
			h, calls := last.Histogram, uint64(0)
			if h == nil || last.Path != "duration" || !last.Durations || h.Sum <= 0 || h.Sum > int64(time.Minute) {
				t.Fatalf("%+v, %+v", last, h)
			}
			for _, n := range h.Positive.Counts {
				bucket, err := strconv.ParseUint(n, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				calls += bucket
			}
			if calls+h.Zero != last.Calls {
				t.Errorf("%d calls in the buckets of %d", calls, last.Calls)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := d.Trace(append([]string{target, "main.Open", "--for", "1m", "--budget", "1000%"}, c.flags...)...)
			say("apples", 300)
			first := tr.Next(10 * time.Second)
			if first.Aggregate == nil {
				t.Fatalf("the first line is %+v", first)
			}
			say("pears", 100)
			time.Sleep(1200 * time.Millisecond)
			d.MustRun("stop", "--all")
			var last *devtest.Aggregate
			var sum *devtest.Summary
			lines := 1
			for sum == nil {
				u := tr.Next(10 * time.Second)
				if u.Event != nil {
					t.Fatalf("an event: %+v", u.Event)
				}
				if sum = u.Summary; u.Aggregate != nil {
					last = u.Aggregate
					lines++
				}
			}
			sum.RequireSum(t)
			if last == nil || last.Calls != 400 || sum.Emitted != 400 || sum.Delivered != 0 || lines < 3 || lines > 6 {
				t.Fatalf("%d lines, the last %+v, %+v", lines, last, sum)
			}
			c.check(t, last)
		})
	}
	t.Run("metrics", func(t *testing.T) {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			missing := missingMetrics(receiver)
			if missing == "" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no metric of %s", missing)
			}
		}
		if n := len(receiver.Spans()); n > 0 {
			t.Errorf("%d spans", n)
		}
	})
	t.Run("redacted", func(t *testing.T) {
		for _, flags := range [][]string{{"--count", "by", "account"}, {"--hist", "n", "--redact", "n=drop"}} {
			r := d.Run(append([]string{"trace", target, "main.Open"}, flags...)...)
			if r.Status != 2 || !strings.Contains(r.Stderr, "is redacted") {
				t.Errorf("%v: status %d, %s", flags, r.Status, r.Stderr)
			}
		}
	})
}

// missingMetrics names the first of the numbers that did not arrive.
func missingMetrics(receiver *otlptest.Receiver) string {
	missing := map[string]bool{"400 calls": true, "300 apples": true, "100 pears": true, "400 numbers": true, "400 durations": true}
	for _, m := range receiver.Metrics() {
		for _, p := range m.GetSum().GetDataPoints() {
			note, grouped := otlptest.Attribute(p.GetAttributes(), "keyhole.arg.note")
			if !grouped {
				note = "calls"
			}
			delete(missing, fmt.Sprintf("%d %s", p.GetAsInt(), note))
		}
		for _, p := range m.GetExponentialHistogram().GetDataPoints() {
			if p.GetScale() == 3 && m.GetName() == "keyhole.call.duration" && m.GetUnit() == "ns" {
				delete(missing, fmt.Sprintf("%d durations", p.GetCount()))
			}
			if p.GetScale() == 3 && p.GetSum() == 300*299/2+100*99/2 && p.GetZeroCount() == 2 {
				delete(missing, fmt.Sprintf("%d numbers", p.GetCount()))
			}
		}
	}
	for what := range missing {
		return what
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

package view

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/keyhole-dev/keyhole/internal/audit"
	keyholev1 "github.com/keyhole-dev/keyhole/proto/keyhole/v1"
)

// TestJSONIsTheContract compares whole lines with what the documents promise: names, zero values, integers of 64 bits as strings.
func TestJSONIsTheContract(t *testing.T) {
	event := hit(0, values("1", "1a2b3c4d5e6f7081", "4242", "")[3:5])
	event.Process = &keyholev1.Process{Pid: 4711, Tid: 4712, Comm: "shop"}
	event.GoroutineId = 1 << 60
	for _, c := range []struct {
		message *keyholev1.WatchSessionResponse
		want    string
	}{
		{&keyholev1.WatchSessionResponse{Update: &keyholev1.WatchSessionResponse_Event{Event: event}}, `{"event": {
			"sessionId": "s-7f3k", "probeId": "", "node": "", "time": "2026-11-23T09:31:02Z",
			"process": {"pid": 4711, "tid": 4712, "comm": "shop", "containerId": "", "pod": "", "namespace": ""},
			"goroutineId": "1152921504606846976", "function": "main.(*Cart).Checkout", "attachPoint": "",
			"arguments": [
				{"name": "c.user.password", "type": "string", "kind": "string", "value": "", "truncated": false, "missing": "redacted",
				 "redaction": {"action": "drop", "rule": "names/secret"}},
				{"name": "card", "type": "string", "kind": "string", "value": "4242", "truncated": false, "missing": "",
				 "redaction": {"action": "suffix:4", "rule": "payments/card"}}
			],
			"results": [], "durationNs": "0", "stack": [], "traceId": "", "spanId": "00f067aa0ba902b7", "parentSpanId": "", "policyDigest": ""}}`},
		{&keyholev1.WatchSessionResponse{Update: &keyholev1.WatchSessionResponse_Summary{Summary: &keyholev1.Summary{Hits: 7, EndedBy: "deadline"}}}, `{"summary": {
			"hits": "7", "calls": "0", "emitted": "0", "filtered": "0", "sampledOut": "0", "throttled": "0", "overLimit": "0", "lost": "0", "unpaired": "0",
			"delivered": "0", "lostToClient": "0", "countsFinal": false, "endedBy": "deadline", "costNs": "0", "unpairedReasons": {}}}`},
	} {
		got, err := JSON(c.message)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(string(got), "\n") || strings.Count(string(got), "\n") != 1 {
			t.Errorf("%q is not one line", got)
		}
		var have, want any
		if err := json.Unmarshal(got, &have); err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(have, want) {
			t.Errorf("got %s\nwant %s", got, c.want)
		}
	}
}

// TestJSONIsSafeOnATerminal: no character of a value reaches a terminal as anything but itself, and all come back.
func TestJSONIsSafeOnATerminal(t *testing.T) {
	hostile := "\x1b[2J\u009b31m\x7f\u202e\u2028\U000e0041é漢\U0001f511\\u001b\""
	line, err := JSON(&keyholev1.Value{Name: hostile})
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc([]rune(strings.TrimSuffix(string(line), "\n")), func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%q has characters that a terminal acts on", line)
	}
	var back keyholev1.Value
	if err := json.Unmarshal(line, &struct{ Name *string }{&back.Name}); err != nil {
		t.Fatal(err)
	}
	if back.GetName() != hostile {
		t.Errorf("%q came back as %q", hostile, back.GetName())
	}
}

func TestRecordJSON(t *testing.T) {
	got, err := RecordJSON(Entry{1 << 60, audit.Record{Kind: audit.Denied, Time: timestamppb.New(now).AsTime().Add(time.Nanosecond), Actor: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"index":"1152921504606846976","kind":"denied","time":"2026-11-23T09:31:02.000000001Z","actor":"x"}` + "\n"; string(got) != want {
		t.Errorf("got %s; want %s", got, want)
	}
}

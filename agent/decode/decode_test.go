// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/keyhole-dev/keyhole/agent/decode"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/target"
)

func wall(bootNs uint64) time.Time { return time.Unix(1_800_000_000, 0).Add(time.Duration(bootNs)) }

func meta() decode.Meta {
	return decode.Meta{SessionID: "s-1", ProbeID: "p-1", Node: "n-1", Wall: wall}
}

// A part is one value of a record, as the kernel writes it.
type part struct {
	reason    uint8
	truncated uint8
	length    uint32
	bytes     string
}

func record(parts ...part) []byte {
	r := binary.LittleEndian.AppendUint64(nil, 1_500_000_000)
	r = binary.LittleEndian.AppendUint32(r, 4711)
	r = binary.LittleEndian.AppendUint32(r, 4712)
	r = append(r, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00shop\xff\x00rest\x00\x00\x00\x00\x00\x00"...)
	for _, p := range parts {
		header := []byte{p.reason, p.truncated, 0, 0, 0, 0, 0, 0}
		binary.LittleEndian.PutUint16(header[2:], uint16(len(p.bytes)))
		binary.LittleEndian.PutUint32(header[4:], p.length)
		r = append(append(r, header...), p.bytes...)
		r = append(r, make([]byte, plan.Padded(len(p.bytes))-len(p.bytes))...)
	}
	binary.LittleEndian.PutUint32(r[20:], uint32(len(r)))
	return r
}

func planOf(fields ...plan.Field) *plan.Plan {
	return &plan.Plan{Function: "main.f", Sites: make([]target.Site, 2), Fields: fields, PolicyDigest: "sha256:00"}
}

func TestValues(t *testing.T) {
	word := func(n uint64, size int) string { return string(binary.LittleEndian.AppendUint64(nil, n)[:size]) }
	minus5, minus300 := int64(-5), int64(-300)
	for what, c := range map[string]struct {
		kind   target.Kind
		action string
		part   part
		want   event.Value
	}{
		"int8":              {target.KindInt, "keep", part{bytes: word(uint64(minus5), 1)}, event.Value{Kind: "int", Value: "-5"}},
		"int16":             {target.KindInt, "keep", part{bytes: word(uint64(minus300), 2)}, event.Value{Kind: "int", Value: "-300"}},
		"int32":             {target.KindInt, "keep", part{bytes: word(1<<31, 4)}, event.Value{Kind: "int", Value: "-2147483648"}},
		"int64":             {target.KindInt, "keep", part{bytes: word(1<<63, 8)}, event.Value{Kind: "int", Value: "-9223372036854775808"}},
		"uint8":             {target.KindUint, "keep", part{bytes: word(255, 1)}, event.Value{Kind: "uint", Value: "255"}},
		"uint64":            {target.KindUint, "keep", part{bytes: word(math.MaxUint64, 8)}, event.Value{Kind: "uint", Value: "18446744073709551615"}},
		"true":              {target.KindBool, "keep", part{bytes: "\x02"}, event.Value{Kind: "bool", Value: "true"}},
		"false":             {target.KindBool, "keep", part{bytes: "\x00"}, event.Value{Kind: "bool", Value: "false"}},
		"float64":           {target.KindFloat, "keep", part{bytes: word(math.Float64bits(0.1), 8)}, event.Value{Kind: "float", Value: "0.1"}},
		"float32":           {target.KindFloat, "keep", part{bytes: word(uint64(math.Float32bits(0.1)), 4)}, event.Value{Kind: "float", Value: "0.1"}},
		"not a number":      {target.KindFloat, "keep", part{bytes: word(math.Float64bits(math.NaN()), 8)}, event.Value{Kind: "float", Value: "NaN"}},
		"pointer":           {target.KindPointer, "keep", part{bytes: word(0xc000123456, 8)}, event.Value{Kind: "pointer", Value: "0xc000123456"}},
		"elements":          {target.KindLength, "keep", part{bytes: word(3, 8)}, event.Value{Kind: "length", Value: "3"}},
		"string":            {target.KindString, "keep", part{bytes: "grüße", length: 7}, event.Value{Kind: "string", Value: "grüße"}},
		"empty string":      {target.KindString, "keep", part{}, event.Value{Kind: "string"}},
		"not UTF-8":         {target.KindString, "keep", part{bytes: "a\xffü\xc3", length: 5}, event.Value{Kind: "string", Value: `a\xffü\xc3`}},
		"cut":               {target.KindString, "keep", part{bytes: "abc", length: 400, truncated: 1}, event.Value{Kind: "string", Value: "abc", Truncated: true}},
		"C string":          {target.KindCString, "keep", part{bytes: "abc", length: 3}, event.Value{Kind: "string", Value: "abc"}},
		"bytes":             {target.KindBytes, "keep", part{bytes: "\x00\xff", length: 2}, event.Value{Kind: "bytes", Value: "AP8="}},
		"suffix":            {target.KindString, "suffix:4", part{bytes: "4242", length: 16}, event.Value{Kind: "string", Value: "4242"}},
		"suffix of bytes":   {target.KindBytes, "suffix:4", part{bytes: "4242", length: 16}, event.Value{Kind: "bytes", Value: "NDI0Mg=="}},
		"suffix of a cut":   {target.KindString, "suffix:4", part{length: 400, truncated: 1}, event.Value{Kind: "string", Truncated: true}},
		"digest":            {target.KindString, "digest", part{bytes: word(0xabc, 8), length: 16}, event.Value{Kind: "digest", Value: "0000000000000abc"}},
		"digest of a cut":   {target.KindString, "digest", part{bytes: word(1, 8), length: 400, truncated: 1}, event.Value{Kind: "digest", Value: "0000000000000001", Truncated: true}},
		"length":            {target.KindString, "length", part{length: 400, truncated: 1}, event.Value{Kind: "length", Value: "400"}},
		"length beyond":     {target.KindString, "length", part{length: math.MaxUint32, truncated: 1}, event.Value{Kind: "length", Value: "4294967295", Truncated: true}},
		"length of C":       {target.KindCString, "length", part{length: 256, truncated: 1}, event.Value{Kind: "length", Value: "256", Truncated: true}},
		"nil":               {target.KindString, "keep", part{reason: plan.ReasonNil}, event.Value{Kind: "string", Missing: event.NilPointer}},
		"fault":             {target.KindInt, "keep", part{reason: plan.ReasonFault}, event.Value{Kind: "int", Missing: event.Fault}},
		"impossible length": {target.KindString, "length", part{reason: plan.ReasonBadLength}, event.Value{Kind: "length", Missing: event.BadLength}},
		"unknown reason":    {target.KindInt, "keep", part{reason: 77}, event.Value{Kind: "int", Missing: event.Malformed}},
		"digest cut short":  {target.KindString, "digest", part{bytes: "1234567", truncated: 1}, event.Value{Kind: "digest", Missing: event.Malformed}},
		"number of 3 bytes": {target.KindInt, "keep", part{bytes: "123"}, event.Value{Kind: "int", Missing: event.Malformed}},
		"number of none":    {target.KindInt, "keep", part{}, event.Value{Kind: "int", Missing: event.Malformed}},
		"float of a byte":   {target.KindFloat, "keep", part{bytes: "1"}, event.Value{Kind: "float", Missing: event.Malformed}},
	} {
		t.Run(what, func(t *testing.T) {
			p := planOf(plan.Field{Path: "a.b", TypeName: "T", Kind: c.kind, Action: c.action, Rule: "r", Emits: true, MaxBytes: 256})
			e, err := decode.New(p, meta()).Decode(record(c.part))
			if err != nil {
				t.Fatal(err)
			}
			got := e.Arguments[0]
			if redacted := got.Redaction != nil; redacted != (c.action != "keep") || redacted && *got.Redaction != (event.Redaction{Action: c.action, Rule: "r"}) {
				t.Errorf("redaction is %+v", got.Redaction)
			}
			got.Redaction, c.want.Name, c.want.Type = nil, "a.b", "T"
			if got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestEvent(t *testing.T) {
	p := planOf(
		plan.Field{Path: "password", TypeName: "string", Kind: target.KindString, Action: "drop", Rule: "names/secret", Missing: event.Redacted},
		plan.Field{Path: "qty", TypeName: "int", Kind: target.KindInt, Size: 8, Action: "keep", Rule: "default/scalar", Emits: true, MaxBytes: 8},
		plan.Field{Path: "x", TypeName: "float64", Kind: target.KindFloat, Action: "keep", Rule: "default/scalar", Missing: event.FloatReg},
		plan.Field{Path: "ctx", TypeName: "context.Context", Kind: target.KindOther, Action: "digest", Rule: "default/other", Missing: event.Unsupported},
	)
	p.Goroutine = true
	r := record(part{bytes: "\x12\x00\x00\x00\x00\x00\x00\x00"}, part{bytes: "\x05\x00\x00\x00\x00\x00\x00\x00"})
	r[16] = 1 // the second site
	e, err := decode.New(p, meta()).Decode(r)
	if err != nil {
		t.Fatal(err)
	}
	if e.SessionID != "s-1" || e.ProbeID != "p-1" || e.Node != "n-1" || e.Function != "main.f" || e.AttachPoint != "entry" || e.PolicyDigest != "sha256:00" {
		t.Errorf("event is about something else: %+v", e)
	}
	if e.BootNs != 1_500_000_000 || !e.Time.Equal(wall(1_500_000_000)) {
		t.Errorf("boot time %d became %v", e.BootNs, e.Time)
	}
	if e.Process != (event.Process{PID: 4711, TID: 4712, Comm: `shop\xff`}) || e.GoroutineID != 18 {
		t.Errorf("process %+v, goroutine %d", e.Process, e.GoroutineID)
	}
	if ctx := e.Arguments[3]; ctx != (event.Value{Name: "ctx", Type: "context.Context", Kind: "other", Missing: event.Unsupported}) {
		t.Errorf("what cannot be read is %+v", ctx)
	}
	if len(e.Arguments) != 4 || e.Arguments[0].Missing != event.Redacted || e.Arguments[0].Redaction.Rule != "names/secret" ||
		e.Arguments[1].Value != "5" || e.Arguments[2].Missing != event.FloatReg {
		t.Errorf("arguments %+v", e.Arguments)
	}
}

func TestDecodeRefuses(t *testing.T) {
	p := planOf(plan.Field{Path: "s", Kind: target.KindString, Action: "keep", Rule: "r", Emits: true, MaxBytes: 8})
	good := func() []byte { return record(part{bytes: "12345678", length: 8}) }
	for what, c := range map[string]struct {
		record []byte
		says   string
	}{
		"nothing":             {nil, "shorter"},
		"half a header":       {good()[:47], "shorter"},
		"a cut record":        {good()[:56], "its header says"},
		"a wrong length":      {append(good(), 0), "its header says"},
		"an unknown site":     {func() []byte { r := good(); r[16] = 2; return r }(), "site 2"},
		"no value":            {record(), "ends before"},
		"more than may leave": {record(part{bytes: "123456789", length: 9}), "were to leave"},
		"bytes that are not there": {func() []byte {
			r := record(part{})
			r[plan.RecordHeaderBytes+2] = 8
			return r
		}(), "ends within"},
		"a value too many":         {record(part{}, part{}), "behind the last"},
		"bytes of a missing value": {record(part{reason: plan.ReasonFault, bytes: "secret"}), "missing and has bytes"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := decode.New(p, meta()).Decode(c.record)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v does not say %q", err, c.says)
			}
		})
	}
}

// FuzzDecode: whatever the bytes, Decode returns, and what it returns holds no more bytes of a value than may leave.
func FuzzDecode(f *testing.F) {
	p := planOf(
		plan.Field{Path: "s", Kind: target.KindString, Action: "suffix:4", Rule: "r", Emits: true, MaxBytes: 4},
		plan.Field{Path: "n", Kind: target.KindInt, Size: 8, Action: "keep", Rule: "r", Emits: true, MaxBytes: 8},
		plan.Field{Path: "d", Kind: target.KindBytes, Action: "digest", Rule: "r", Emits: true, MaxBytes: 8},
		plan.Field{Path: "p", Kind: target.KindString, Action: "drop", Rule: "r", Missing: event.Redacted},
	)
	f.Add(record(part{bytes: "4242", length: 16}, part{bytes: "12345678"}, part{bytes: "abcdefgh", length: 3}))
	f.Add(record(part{reason: plan.ReasonNil}, part{reason: plan.ReasonFault}, part{reason: plan.ReasonBadLength}))
	f.Add([]byte{})
	p.Stack = &plan.Stack{Callers: 2, Modules: []target.Module{{Start: 1 << 20, End: 1 << 21, Own: true}}}
	f.Add(record(part{}, part{bytes: "12345678"}, part{bytes: "abcdefgh"}, part{bytes: "\x00\x00\x10\x00\x00\x00\x00\x00abcdefgh"}))
	d := decode.New(p, meta())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := d.Decode(b)
		if err != nil {
			if len(e.Arguments) > 0 {
				t.Error("an event comes with an error")
			}
			return
		}
		if len(e.Arguments) != 4 {
			t.Fatalf("%d arguments", len(e.Arguments))
		}
		if v := e.Arguments[0].Value; len(v) > 4*len(`\xff`) {
			t.Errorf("suffix:4 is %q", v)
		}
		if len(e.Stack) == 0 || len(e.Stack) > 3 {
			t.Errorf("a stack of %d", len(e.Stack))
		}
		if e.Arguments[3].Value != "" || e.Arguments[3].Missing != event.Redacted {
			t.Errorf("a dropped value is %+v", e.Arguments[3])
		}
		for _, v := range e.Arguments {
			if v.Missing != "" && (v.Value != "" || v.Truncated) {
				t.Errorf("missing, and yet %+v", v)
			}
		}
	})
}

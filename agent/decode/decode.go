// SPDX-License-Identifier: Apache-2.0

// Package decode turns a record of the ring buffer into an event. It reads by the same plan that told the kernel what to
// write, in the same order.
package decode

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A Meta is what all events of one session have in common.
type Meta struct {
	SessionID string
	ProbeID   string
	Node      string
	// Wall turns a reading of CLOCK_BOOTTIME into a time of day.
	Wall func(bootNs uint64) time.Time
}

// A Decoder reads the records of one plan. It holds no state: it may be used by several goroutines.
type Decoder struct {
	plan   *plan.Plan
	meta   Meta
	fields []field
}

// A field is a plan's field with what is the same in every event.
type field struct {
	emits  bool
	kind   target.Kind
	action redact.Kind
	max    int // bytes in a record
	swap   bool
	whole  bool // the action may let out all of it, and the record says so
	value  event.Value
}

// New makes a Decoder for the records of a verified plan.
func New(p *plan.Plan, meta Meta) *Decoder {
	d := &Decoder{plan: p, meta: meta, fields: make([]field, len(p.AllFields()))}
	for i, f := range p.AllFields() {
		action, err := redact.ParseAction(f.Action)
		if err != nil {
			action = redact.Action{Kind: redact.Drop}
		}
		v := event.Value{Name: f.Path, Type: f.TypeName, Kind: valueKind(f.Kind, redact.Keep), Missing: f.Missing}
		if f.Emits {
			v.Kind = valueKind(f.Kind, action.Kind)
		}
		// What cannot be read was not redacted either.
		if action.Kind != redact.Keep && (f.Emits || f.Missing == event.Redacted) {
			v.Redaction = &event.Redaction{Action: f.Action, Rule: f.Rule}
		}
		d.fields[i] = field{emits: f.Emits, kind: f.Kind, action: action.Kind, max: f.MaxBytes, swap: f.BigEndian, whole: action.Kind == redact.Detect || action.Kind == redact.Bucket, value: v}
	}
	return d
}

// valueKind is how the text of a value is to be read.
func valueKind(k target.Kind, action redact.Kind) string {
	switch {
	case action == redact.Digest:
		return event.KindDigest
	case action == redact.Length:
		return event.KindLength
	case k == target.KindCString:
		return event.KindString
	default:
		return string(k)
	}
}

// Decode reads one record. An error says that the record is not one of this plan; it holds no byte of the record.
func (d *Decoder) Decode(record []byte) (event.Event, error) {
	if len(record) < plan.RecordHeaderBytes {
		return event.Event{}, fmt.Errorf("decode record: %d bytes: shorter than its header", len(record))
	}
	if n := binary.LittleEndian.Uint32(record[20:]); uint64(n) != uint64(len(record)) {
		return event.Event{}, fmt.Errorf("decode record: %d bytes, and its header says %d", len(record), n)
	}
	site := binary.LittleEndian.Uint32(record[16:])
	if uint64(site) >= uint64(len(d.plan.Sites)) {
		return event.Event{}, fmt.Errorf("decode record: site %d of %d", site, len(d.plan.Sites))
	}
	boot := binary.LittleEndian.Uint64(record)
	e := event.Event{
		SessionID: d.meta.SessionID,
		ProbeID:   d.meta.ProbeID,
		Node:      d.meta.Node,
		Time:      d.meta.Wall(boot),
		BootNs:    boot,
		Process: event.Process{
			PID:  int(binary.LittleEndian.Uint32(record[8:])),
			TID:  int(binary.LittleEndian.Uint32(record[12:])),
			Comm: text(cString(record[32:48])),
		},
		Function:     d.plan.Function,
		AttachPoint:  attachPoint,
		PolicyDigest: d.plan.PolicyDigest,
	}
	if d.plan.Returns != nil {
		e.AttachPoint = attachCall
		e.Duration = duration(binary.LittleEndian.Uint64(record[24:]))
	}
	list := make([]event.Value, len(d.fields))
	e.Arguments, e.Results = list[:len(d.plan.Fields):len(d.plan.Fields)], list[len(d.plan.Fields):]
	rest := values(record[plan.RecordHeaderBytes:])
	if d.plan.Goroutine {
		v, err := rest.next(8)
		if err != nil {
			return event.Event{}, fmt.Errorf("decode record: goroutine: %w", err)
		}
		if len(v.bytes) == 8 {
			e.GoroutineID = binary.LittleEndian.Uint64(v.bytes)
		}
	}
	for i := range d.fields {
		f := &d.fields[i]
		list[i] = f.value
		if !f.emits {
			continue
		}
		v, err := rest.next(f.max)
		if err != nil {
			return event.Event{}, fmt.Errorf("decode record: value %d: %w", i, err)
		}
		f.decode(&list[i], v)
	}
	if d.plan.Stack != nil {
		v, err := rest.next(plan.AddressBytes * d.plan.Stack.Callers)
		if err != nil {
			return event.Event{}, fmt.Errorf("decode record: callers: %w", err)
		}
		e.Stack = d.stack(&d.plan.Sites[site], v.bytes)
		if v.flags&plan.FlagTruncated != 0 {
			e.StackCut = event.CutDepth
		}
	}
	if len(rest) > 0 {
		return event.Event{}, fmt.Errorf("decode record: %d bytes behind the last value", len(rest))
	}
	return e, nil
}

// The attach points of events.
const (
	attachPoint = "entry"
	attachCall  = "call"
)

// duration is one that the clock can have measured.
func duration(ns uint64) time.Duration { return time.Duration(min(ns, math.MaxInt64)) }

// A raw is one value of a record: struct kh_value and the bytes behind it.
type raw struct {
	reason uint8
	flags  uint8
	length uint32
	bytes  []byte
}

// values is the part of a record that is not read yet.
type values []byte

func (r *values) next(longest int) (raw, error) {
	data := *r
	if len(data) < plan.ValueHeaderBytes {
		return raw{}, errors.New("the record ends before it")
	}
	n := int(binary.LittleEndian.Uint16(data[2:]))
	v := raw{reason: data[0], flags: data[1], length: binary.LittleEndian.Uint32(data[4:])}
	data = data[plan.ValueHeaderBytes:]
	switch {
	case n > longest:
		return raw{}, fmt.Errorf("%d bytes, of which %d were to leave", n, longest)
	case plan.Padded(n) > len(data):
		return raw{}, errors.New("the record ends within it")
	case v.reason != plan.ReasonOK && n > 0:
		return raw{}, errors.New("is missing and has bytes")
	}
	v.bytes = data[:n]
	*r = data[plan.Padded(n):]
	return v, nil
}

var reasons = map[uint8]string{
	plan.ReasonNil: event.NilPointer, plan.ReasonFault: event.Fault, plan.ReasonBadLength: event.BadLength,
	plan.ReasonAddress:    event.KernelAddress,
	plan.ReasonUnfinished: event.Unfinished, plan.ReasonNotAllowed: event.NotInSet,
}

// decode fills in what one record says of the field.
func (f *field) decode(v *event.Value, r raw) {
	if r.reason != plan.ReasonOK {
		v.Missing = event.Malformed
		if reason, known := reasons[r.reason]; known {
			v.Missing = reason
		}
		return
	}
	v.Truncated = r.flags&plan.FlagTruncated != 0
	if f.whole && r.flags&plan.FlagWithheld == 0 {
		v.Redaction = nil // it found nothing to withhold
	}
	switch f.action {
	case redact.Length:
		v.Value = strconv.FormatUint(uint64(r.length), 10)
		// A length that the program reads is exact however long the string; one that the kernel counts ends with the limit.
		v.Truncated = v.Truncated && f.kind == target.KindCString || r.length == math.MaxUint32
		return
	case redact.Digest:
		if len(r.bytes) != plan.DigestBytes {
			v.Missing, v.Truncated = event.Malformed, false
			return
		}
		v.Value = fmt.Sprintf("%016x", binary.LittleEndian.Uint64(r.bytes))
		return
	}
	switch f.kind {
	case target.KindString, target.KindCString:
		v.Value = text(r.bytes)
	case target.KindBytes:
		v.Value = base64.StdEncoding.EncodeToString(r.bytes)
	default:
		var ok bool
		if f.swap {
			r.bytes = slices.Clone(r.bytes) // the record is not ours
			slices.Reverse(r.bytes)
		}
		if v.Value, ok = scalar(f.kind, r.bytes); !ok {
			v.Missing, v.Truncated = event.Malformed, false
		}
	}
}

// scalar is the text of a number of 1, 2, 4 or 8 bytes.
func scalar(k target.Kind, b []byte) (string, bool) {
	var word [8]byte
	if n := copy(word[:], b); n != len(b) || n == 0 || n&(n-1) != 0 {
		return "", false
	}
	bits := binary.LittleEndian.Uint64(word[:])
	switch k {
	case target.KindInt:
		unused := 64 - 8*len(b)
		return strconv.FormatInt(int64(bits<<unused)>>unused, 10), true
	case target.KindUint, target.KindLength:
		return strconv.FormatUint(bits, 10), true
	case target.KindBool:
		return strconv.FormatBool(bits != 0), true
	case target.KindError:
		if bits == 0 {
			return event.NilError, true
		}
		return event.AnError, true
	case target.KindPointer:
		return "0x" + strconv.FormatUint(bits, 16), true
	case target.KindFloat:
		switch len(b) {
		case 4:
			return strconv.FormatFloat(float64(math.Float32frombits(uint32(bits))), 'g', -1, 32), true
		case 8:
			return strconv.FormatFloat(math.Float64frombits(bits), 'g', -1, 64), true
		}
	}
	return "", false
}

func cString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// text makes UTF-8 of bytes that should be: what is UTF-8 stays as it is, each other byte becomes \xNN. A program's own
// \xNN looks the same; bytes that matter exactly are captured as bytes.
func text(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&s, `\x%02x`, b[0])
		} else {
			s.Write(b[:n])
		}
		b = b[n:]
	}
	return s.String()
}

// SPDX-License-Identifier: Apache-2.0

package decode_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyhole-dev/keyhole/agent/decode"
	"github.com/keyhole-dev/keyhole/agent/plan"
	"github.com/keyhole-dev/keyhole/agent/plan/plantest"
	"github.com/keyhole-dev/keyhole/internal/detect"
	"github.com/keyhole-dev/keyhole/internal/dfa"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/problem"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// TestRoundTrip compiles random requests, runs the plans over random memories and decodes the records. Each value of each
// event must be what one finds who follows its location in that memory by hand, knowing nothing of ops and slots.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := plantest.Draw(t)
		p, err := plan.Compile(r.Spec, r.Target, r.Rules)
		if err != nil {
			if wrong, ok := errors.AsType[*problem.Error](err); !ok || wrong.Code != problem.InvalidArgument {
				t.Fatalf("compile: %v", err)
			}
			t.Skip(err)
		}
		again, err := plan.Compile(r.Spec, r.Target, r.Rules)
		if err != nil || again.Digest() != p.Digest() {
			t.Fatalf("compiled again, it is another plan: %v", err)
		}
		d := decode.New(p, meta())
		for range 8 {
			hit := plantest.DrawHit(t)
			record, ok := plantest.Evaluate(p, hit)
			if want := holds(t, &r, hit); ok != want {
				t.Fatalf("--where %s holds: %v; the plan says %v\n%s", r.Spec.Where, want, ok, p.Listing())
			}
			if !ok {
				continue
			}
			if len(record) > p.MaxRecordBytes() {
				t.Fatalf("a record of %d bytes; at most %d\n%s", len(record), p.MaxRecordBytes(), p.Listing())
			}
			e, err := d.Decode(record)
			if err != nil {
				t.Fatalf("%v\n%s", err, p.Listing())
			}
			if e.BootNs != hit.TimeNs || e.Process != (event.Process{PID: 4711, TID: 4712, Comm: "shop"}) {
				t.Fatalf("event of %d by %+v", e.BootNs, e.Process)
			}
			for i := range r.Target.Values {
				v := &r.Target.Values[i]
				want := look(&r, v, action(t, &p.Fields[i]), hit)
				got := e.Arguments[i]
				got.Redaction, got.Name, got.Type = nil, "", ""
				if got != want {
					t.Fatalf("%s is %+v; want %+v\n%s", v.Path, got, want, p.Listing())
				}
			}
		}
	})
}

func action(t *rapid.T, f *plan.Field) redact.Action {
	a, err := redact.ParseAction(f.Action)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// follow is the word at a location; the last load has size bytes.
func follow(l *target.Location, size int, hit *plantest.Hit) (word uint64, missing string) {
	word = hit.Registers[l.Register] >> (8 * l.Shift)
	for i, off := range l.Offsets {
		if word == 0 {
			return 0, event.NilPointer
		}
		n := 8
		if i == len(l.Offsets)-1 {
			n = size
		}
		var b [8]byte
		if !hit.Memory.Read(b[:n], word+uint64(off)) {
			return 0, event.Fault
		}
		word = binary.LittleEndian.Uint64(b[:])
	}
	return word, ""
}

// look says what an event should say of a value.
func look(r *plantest.Request, v *target.Value, a redact.Action, hit *plantest.Hit) event.Value {
	kind := map[target.Kind]string{target.KindCString: event.KindString}[v.Kind]
	if kind == "" {
		kind = string(v.Kind)
	}
	switch {
	case v.Missing != "" || v.Kind == target.KindStruct:
	case a.Kind == redact.Digest:
		kind = event.KindDigest
	case a.Kind == redact.Length:
		kind = event.KindLength
	}
	out := event.Value{Kind: kind}
	switch {
	case a.Kind == redact.Drop:
		out.Missing = event.Redacted
	case v.Missing != "":
		out.Missing = v.Missing
	case v.Kind == target.KindStruct:
		out.Missing = event.Unsupported
	case v.Kind == target.KindString, v.Kind == target.KindBytes, v.Kind == target.KindCString:
		lookAtText(r, v, a, hit, &out)
	default:
		word, missing := follow(&v.Data, v.Size, hit)
		if out.Missing = missing; missing != "" {
			break
		}
		b := binary.LittleEndian.AppendUint64(nil, word)[:v.Size]
		if a.Kind == redact.Digest {
			out.Value = fmt.Sprintf("%016x", plantest.SipHash(hit.Key, b))
			break
		}
		if out.Value = number(v, b); a.Kind == redact.Bucket {
			out.Value = powerOfTwo(out.Value, int64(a.N))
		}
	}
	return out
}

// powerOfTwo is that at or below a number, with its sign, from a magnitude on.
func powerOfTwo(number string, least int64) string {
	n, _ := new(big.Int).SetString(number, 10)
	magnitude := new(big.Int).Abs(n)
	if n.Sign() == 0 || magnitude.Cmp(big.NewInt(least)) < 0 {
		return number
	}
	return strings.Repeat("-", max(0, -n.Sign())) + new(big.Int).Exp(big.NewInt(2), big.NewInt(int64(magnitude.BitLen()-1)), nil).String()
}

func number(v *target.Value, b []byte) string {
	switch v.Kind {
	case target.KindInt:
		switch v.Size {
		case 1:
			return strconv.Itoa(int(int8(b[0])))
		case 2:
			return strconv.Itoa(int(int16(binary.LittleEndian.Uint16(b))))
		case 4:
			return strconv.Itoa(int(int32(binary.LittleEndian.Uint32(b))))
		}
		return strconv.Itoa(int(binary.LittleEndian.Uint64(b)))
	case target.KindBool:
		return strconv.FormatBool(b[0] != 0)
	case target.KindFloat:
		if v.Size == 4 {
			return strconv.FormatFloat(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 'g', -1, 32)
		}
		return strconv.FormatFloat(math.Float64frombits(binary.LittleEndian.Uint64(b)), 'g', -1, 64)
	}
	word := binary.LittleEndian.Uint64(append(b[:len(b):len(b)], make([]byte, 8)...))
	if v.Kind == target.KindPointer {
		return fmt.Sprintf("%#x", word)
	}
	return strconv.FormatUint(word, 10)
}

func lookAtText(r *plantest.Request, v *target.Value, a redact.Action, hit *plantest.Hit, out *event.Value) {
	limit := uint64(r.Spec.WithDefaults().Limits.ValueBytes)
	address, missing := follow(&v.Data, 8, hit)
	if out.Missing = missing; missing != "" {
		return
	}
	var b []byte
	var length uint64
	var ok bool
	if v.Kind == target.KindCString {
		if address == 0 {
			out.Missing = event.NilPointer
			return
		}
		if v.Capacity > 0 {
			limit = min(limit, uint64(v.Capacity))
		}
		b, ok = hit.Memory.ReadString(int(limit)+2, address+uint64(v.Offset))
		out.Truncated = uint64(len(b)) > limit
		b = b[:min(uint64(len(b)), limit)]
		length = uint64(len(b))
	} else {
		if length, missing = follow(&v.Length, 8, hit); missing != "" {
			out.Missing = missing
			return
		}
		switch {
		case length >= 1<<47:
			out.Missing = event.BadLength
			return
		case length > 0 && address == 0:
			out.Missing = event.NilPointer
			return
		}
		out.Truncated = length > limit
		b = make([]byte, min(length, limit))
		from := address + uint64(v.Offset)
		switch a.Kind { // only what leaves has to be readable
		case redact.Length:
			b = nil
			out.Truncated = length >= math.MaxUint32
		case redact.Prefix:
			b = b[:partOf(len(b), a.N)]
		case redact.Suffix:
			part := partOf(len(b), a.N)
			if out.Truncated {
				part = 0
			}
			from += uint64(len(b) - part)
			b = b[:part]
		}
		ok = hit.Memory.Read(b, from)
	}
	if !ok {
		*out = event.Value{Kind: out.Kind, Missing: event.Fault}
		return
	}
	switch a.Kind {
	case redact.Length:
		out.Value = strconv.FormatUint(min(length, math.MaxUint32), 10)
		return
	case redact.Digest:
		out.Value = fmt.Sprintf("%016x", plantest.SipHash(hit.Key, b))
		return
	case redact.Detect:
		machines, err := new(detect.Library).Machines(a.Sets)
		if err != nil {
			panic(err)
		}
		b = dfa.Overwrite(b, out.Truncated, machines...)
	case redact.Allow:
		machines, err := new(detect.Library).Machines(a.Sets)
		if err != nil {
			panic(err)
		}
		if out.Truncated || !slices.ContainsFunc(machines, func(m *dfa.Machine) bool { return m.Whole(b) }) {
			*out = event.Value{Kind: out.Kind, Missing: event.NotInSet}
			return
		}
	case redact.Prefix:
		if v.Kind == target.KindCString { // the others are read as they leave
			b = b[:partOf(len(b), a.N)]
		}
	case redact.Suffix:
		if out.Truncated {
			b = nil
		}
		if v.Kind == target.KindCString {
			b = b[len(b)-partOf(len(b), a.N):]
		}
	}
	if v.Kind == target.KindBytes {
		out.Value = base64.StdEncoding.EncodeToString(b)
		return
	}
	for _, c := range string(b) { // the same by another way than the decoder's
		if n := len(string(c)); c != '\uFFFD' || len(b) >= 3 && string(b[:3]) == "\uFFFD" {
			out.Value += string(c)
			b = b[n:]
		} else {
			out.Value += fmt.Sprintf(`\x%02x`, b[0])
			b = b[1:]
		}
	}
}

// holds says whether the one condition of a drawn request holds.
func holds(t *rapid.T, r *plantest.Request, hit *plantest.Hit) bool {
	conditions, err := probe.ParseWhere(r.Spec.Where)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range conditions {
		for i := range r.Target.Values {
			if v := &r.Target.Values[i]; v.Path == c.Path && !one(v, c, hit) {
				return false
			}
		}
	}
	return true
}

func one(v *target.Value, c probe.Condition, hit *plantest.Hit) bool {
	if c.Literal.Kind == probe.Integer {
		word, missing := follow(&v.Data, v.Size, hit)
		if missing != "" {
			return false
		}
		word &= math.MaxUint64 >> (64 - 8*v.Size)
		a, b := float64(word), float64(c.Literal.Magnitude) // literals are small, so the loss of low bits changes nothing
		if v.Kind == target.KindInt {
			a = float64(int64(word<<(64-8*v.Size)) >> (64 - 8*v.Size))
		}
		return map[probe.Op]bool{
			probe.Equal: a == b, probe.NotEqual: a != b, probe.Less: a < b, probe.LessOrEqual: a <= b, probe.Greater: a > b,
			probe.GreaterOrEqual: a >= b,
		}[c.Op]
	}
	if c.Literal.Kind == probe.Boolean {
		word, missing := follow(&v.Data, v.Size, hit)
		return missing == "" && (word&0xff != 0) == (c.Literal.True == (c.Op == probe.Equal))
	}
	if v.Kind == target.KindCString {
		address, missing := follow(&v.Data, 8, hit)
		if missing != "" || address == 0 {
			return false
		}
		b, ok := hit.Memory.ReadString(len(c.Literal.Text)+2, address+uint64(v.Offset))
		return ok && (string(b) == c.Literal.Text) == (c.Op == probe.Equal)
	}
	address, missing := follow(&v.Data, 8, hit)
	length, missing2 := follow(&v.Length, 8, hit)
	if missing != "" || missing2 != "" {
		return false
	}
	equal := length == uint64(len(c.Literal.Text))
	if equal && length > 0 {
		b := make([]byte, length)
		if !hit.Memory.Read(b, address+uint64(v.Offset)) {
			return false
		}
		equal = string(b) == c.Literal.Text
	}
	return equal == (c.Op == probe.Equal)
}

// partOf is how many of n bytes a prefix or suffix of so many lets out: none if that would be all of them.
func partOf(n, part int) int {
	if part < n {
		return part
	}
	return 0
}

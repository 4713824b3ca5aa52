// SPDX-License-Identifier: Apache-2.0

package plantest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/redact"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// A Request is all that a plan is compiled from.
type Request struct {
	Spec   *probe.Spec
	Target *target.Target
	Rules  *redact.Ruleset
}

// Draw makes a valid request: values of every kind at places that share their ways, under rules with every action, with a
// condition on one of the values that are kept. Compile accepts it, unless it is too much for one probe. The ways begin at the
// given registers; if there are none, at some of amd64's, and a goroutine's number is read besides.
func Draw(t *rapid.T, registers ...int) Request {
	tgt := &target.Target{
		Identity: target.Identity{
			PID: 4711, StartTicks: 1, Comm: "shop", Path: "/srv/shop", BuildID: "abc", Device: 1, Inode: 2, Size: 1 << 20,
			Language: "go1.26.8", Arch: "amd64",
		},
		Function: target.Function{Name: "main.(*Cart).Checkout", Address: 0x1000, Size: 0x100},
		Sites: []target.Site{{
			Address: 0x1010, FileOffset: 0x1010, RuntimeAddress: 0x401010, Bytes: []byte{0x55}, Where: "entry",
		}},
	}
	if len(registers) == 0 {
		registers = []int{0, 1, 2, 3}
		if rapid.Bool().Draw(t, "goroutine") {
			tgt.GoroutineID = &target.Value{
				Path: "goid", Names: []string{"goid"}, Kind: target.KindUint, Size: 8,
				Data: target.Location{Register: 14, Offsets: []int64{152}},
			}
		}
	}
	spec := &probe.Spec{
		Target: probe.Selector{Kind: probe.SelectPID, PID: 4711}, Function: "Cart.Checkout", Reason: "property test",
		Limits: probe.Limits{
			TTL:        time.Duration(rapid.IntRange(1, 600).Draw(t, "ttl")) * time.Second,
			ValueBytes: uint32(rapid.SampledFrom([]int{0, 0, 0, 1, 7, 8, 16, probe.MaxValueBytes}).Draw(t, "value bytes")),
		},
	}
	var rules []redact.Rule
	for i := range rapid.IntRange(0, 12).Draw(t, "values") {
		v := drawValue(t, i, registers)
		tgt.Values = append(tgt.Values, v)
		spec.Arguments = append(spec.Arguments, v.Path)
		action := drawAction(t)
		if action.Kind != 0 {
			rules = append(rules, redact.Rule{ID: fmt.Sprintf("test/%d", i), Match: redact.Match{Path: v.Path}, Action: action})
		}
		if v.Missing == "" && (action.Kind == redact.Keep || action.Kind == redact.Bucket && action.N > 100) && rapid.IntRange(0, 3).Draw(t, "condition") == 0 {
			if where := drawCondition(t, &v); where != "" && spec.Where == "" {
				spec.Where = where
			}
		}
	}
	ruleset, err := redact.Shipped().WithOwner(rules)
	if err != nil {
		t.Fatal(err)
	}
	return Request{spec, tgt, ruleset}
}

func drawValue(t *rapid.T, i int, registers []int) target.Value {
	kind := rapid.SampledFrom([]target.Kind{
		target.KindInt, target.KindUint, target.KindBool, target.KindFloat, target.KindPointer, target.KindLength, target.KindStruct,
		target.KindString, target.KindString, target.KindString, target.KindCString, target.KindCString, target.KindBytes,
	}).Draw(t, "kind")
	name := fmt.Sprintf("v%d", i)
	v := target.Value{
		Path: name, Names: []string{name}, Kind: kind, TypeName: string(kind), Size: 8,
		Data: drawLocation(t, registers), Length: drawLocation(t, registers),
	}
	switch kind {
	case target.KindInt, target.KindUint:
		v.Size = rapid.SampledFrom([]int{1, 2, 4, 8}).Draw(t, "size")
	case target.KindBool:
		v.Size = 1
	case target.KindFloat:
		v.Size = rapid.SampledFrom([]int{4, 8}).Draw(t, "size")
	case target.KindString, target.KindBytes, target.KindCString:
		if rapid.Bool().Draw(t, "as in Go") {
			v.Length = behind(v.Data)
		}
		v.Offset = rapid.SampledFrom([]int64{0, 8, 24}).Draw(t, "offset")
	}
	if kind == target.KindCString {
		v.Capacity = rapid.SampledFrom([]int{0, 1, 16, 64}).Draw(t, "capacity")
	}
	if len(v.Data.Offsets) == 0 && v.Size < 8 {
		v.Data.Shift = rapid.IntRange(0, 8-v.Size).Draw(t, "shift")
		v.Data.Shift = min(v.Data.Shift, 7)
	}
	if rapid.IntRange(0, 9).Draw(t, "missing") == 0 {
		v.Missing, v.Detail = event.OptimizedOut, "nowhere at the attach point"
		v.Data, v.Length = target.Location{}, target.Location{}
	}
	return v
}

func drawLocation(t *rapid.T, registers []int) target.Location {
	return target.Location{
		Register: rapid.SampledFrom(registers).Draw(t, "register"),
		Offsets:  rapid.SliceOfN(rapid.SampledFrom([]int64{0, 0, 16, 32, 8, -8}), 0, 3).Draw(t, "offsets"),
	}
}

// behind is the word that follows the one at a location, where a length may be.
func behind(l target.Location) target.Location {
	l.Offsets = slices.Clone(l.Offsets)
	if n := len(l.Offsets); n > 0 {
		l.Offsets[n-1] += 8
	}
	return l
}

// drawAction may return none: the defaults decide.
func drawAction(t *rapid.T) redact.Action {
	a := redact.Action{Kind: rapid.SampledFrom([]redact.Kind{
		0, redact.Keep, redact.Keep, redact.Keep, redact.Prefix, redact.Suffix, redact.Suffix, redact.Digest, redact.Length, redact.Drop, redact.Detect, redact.Detect,
		redact.Allow, redact.Bucket, redact.Bucket,
	}).Draw(t, "action")}
	if a.Kind == redact.Prefix || a.Kind == redact.Suffix {
		a.N = rapid.IntRange(1, 12).Draw(t, "part")
	}
	switch a.Kind {
	case redact.Detect:
		a.Sets = rapid.SampledFrom([]string{"all", "card,email", "phone"}).Draw(t, "sets")
	case redact.Allow:
		a.Sets = rapid.SampledFrom([]string{"card,email", "phone"}).Draw(t, "sets")
	case redact.Bucket:
		a.N = rapid.SampledFrom([]int{0, 1, 101, 1000, redact.MaxBucket}).Draw(t, "least")
	}
	return a
}

func drawCondition(t *rapid.T, v *target.Value) string {
	switch v.Kind {
	case target.KindInt, target.KindUint, target.KindLength:
		op := rapid.SampledFrom([]string{"==", "!=", "<", "<=", ">", ">="}).Draw(t, "op")
		return fmt.Sprintf("%s %s %d", v.Path, op, rapid.IntRange(0, 100).Draw(t, "literal"))
	case target.KindBool:
		return fmt.Sprintf("%s %s %v", v.Path, rapid.SampledFrom([]string{"==", "!="}).Draw(t, "op"), rapid.Bool().Draw(t, "literal"))
	case target.KindString, target.KindBytes, target.KindCString:
		// Some are what the drawn memories hold.
		literal := rapid.OneOf(rapid.Just("testing"), rapid.Just(""), rapid.StringMatching(`[a-z]{0,12}`)).Draw(t, "literal")
		if v.Capacity > 0 {
			literal = literal[:min(len(literal), v.Capacity-1)]
		}
		return fmt.Sprintf("%s %s %q", v.Path, rapid.SampledFrom([]string{"==", "!="}).Draw(t, "op"), literal)
	default:
		return ""
	}
}

// Regions are the addresses of the two pages of a drawn memory. Behind and before them there is none.
var Regions = [2]uint64{0xc000000000, 0xd000000000}

const pageBytes = 4096

// DrawHit makes what a hit may find: registers and two pages full of pointers, each with a length behind it, and among them nil
// pointers, text, and garbage.
func DrawHit(t *rapid.T) *Hit {
	inside := rapid.Map(rapid.Uint64Range(0, 30), func(i uint64) uint64 { return Regions[0] + 16*i })
	length := rapid.SampledFrom([]uint64{0, 1, 3, 7, 8, 9, 16, 40, 300})
	odd := rapid.OneOf(
		rapid.SampledFrom([]uint64{0, 0x6f72656d73657461, 0x00676e6974736574}), // text, the second with a NUL
		rapid.Uint64Range(Regions[1]-8, Regions[1]+480),
		rapid.Uint64Range(Regions[1]+pageBytes-24, Regions[1]+pageBytes),
		rapid.Uint64(),
	)
	pointer := rapid.OneOf(inside, inside, inside, odd)
	other := rapid.OneOf(length, length, length, odd)
	page := func(label string) []byte {
		b := make([]byte, pageBytes)
		for i := range 32 {
			binary.LittleEndian.PutUint64(b[16*i:], pointer.Draw(t, label))
			binary.LittleEndian.PutUint64(b[16*i+8:], other.Draw(t, label))
		}
		copy(b[pageBytes-24:], rapid.SampledFrom([]string{"", "the end of the page", "no NUL up to the very end"}).Draw(t, label))
		return b
	}
	hit := &Hit{
		Memory: Memory{Regions[0]: page("heap"), Regions[1]: page("stack")},
		Key:    [2]uint64{rapid.Uint64().Draw(t, "key"), 7},
		TimeNs: rapid.Uint64().Draw(t, "time"),
		PID:    4711, TID: 4712, Comm: "shop",
	}
	for i := range hit.Registers {
		hit.Registers[i] = pointer.Draw(t, "register")
	}
	return hit
}

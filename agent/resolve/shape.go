// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// miss says in a value why it cannot be read.
func miss(x *target.Value, m *missing) { x.Missing, x.Detail = m.reason, m.detail }

// fill says how a value of a type is read from its place.
func (v *values) fill(x *target.Value, pl place, t *debuginfo.Type, gone *missing, length bool) {
	x.TypeName, x.Size = t.Name, int(t.Size)
	kind, why := v.kind(t)
	x.Kind = kind
	if length {
		if kind != target.KindString && kind != target.KindBytes && kind != target.KindLength {
			miss(x, unsupported("only slices and strings of Go have a length"))
			return
		}
		x.Kind = target.KindLength
	}
	switch {
	case why != nil:
		miss(x, why)
		return
	case gone != nil:
		miss(x, gone)
		return
	}
	switch x.Kind {
	case target.KindString, target.KindBytes, target.KindLength:
		x.Size = 8
		if x.Kind != target.KindLength {
			if x.Data, gone = pl.scalar(8); gone != nil {
				miss(x, gone)
				return
			}
		}
		if x.Length, gone = pl.field(8).scalar(8); gone == nil && x.Kind == target.KindLength {
			x.Data = x.Length
		}
	case target.KindCString:
		x.Size = 8
		if t.Kind == debuginfo.KindArray {
			x.Capacity = int(t.Count)
			x.Data, x.Offset, gone = pl.address()
		} else {
			x.Data, gone = pl.scalar(8)
		}
	default:
		x.Data, gone = pl.scalar(t.Size)
	}
	if gone != nil {
		miss(x, gone)
	}
}

// kind is how a type is shown; why says that it cannot be.
func (v *values) kind(t *debuginfo.Type) (kind target.Kind, why *missing) {
	switch t.Kind {
	case debuginfo.KindInt:
		return target.KindInt, nil
	case debuginfo.KindUint:
		return target.KindUint, nil
	case debuginfo.KindBool:
		return target.KindBool, nil
	case debuginfo.KindFloat:
		return target.KindFloat, nil
	case debuginfo.KindGoString:
		return target.KindString, nil
	case debuginfo.KindGoSlice:
		if elem, err := v.program.debug.Elem(t); err == nil && elem.Kind == debuginfo.KindUint && elem.Size == 1 {
			return target.KindBytes, nil
		}
		return target.KindLength, nil
	case debuginfo.KindPointer:
		if elem, err := v.program.debug.Elem(t); err == nil && elem.IsChar {
			return target.KindCString, nil
		}
		return target.KindPointer, nil
	case debuginfo.KindArray:
		if elem, err := v.program.debug.Elem(t); err == nil && elem.IsChar {
			return target.KindCString, nil
		}
		return target.KindOther, unsupported("an array")
	case debuginfo.KindStruct:
		return target.KindStruct, unsupported("a struct is not read whole: name a field")
	case debuginfo.KindGoOther, debuginfo.KindComplex, debuginfo.KindOther:
		return target.KindOther, unsupported(t.What)
	default:
		return target.KindOther, unsupported("a value without a type")
	}
}

// all lists the parameters to depth 1: a struct, or what a pointer to a struct points to, by those of its fields that are
// numbers or strings. Where that would be too much for one plan, each parameter gets its share.
func (v *values) all() (list []target.Value, notes []string) {
	var of [][]target.Value
	for _, p := range v.function.debug.Parameters {
		if isName(p.Name) {
			of = append(of, v.parameterValues(p))
		}
	}
	taken := make([]int, len(of))
	cost, left := 0, 0
	for turn, more := 0, true; more; turn++ {
		more = false
		for i, values := range of {
			if turn >= len(values) {
				continue
			}
			more = true
			c := ops(values[turn])
			if cost+c > maxCost || taken[i] < turn || sum(taken) == probe.MaxArguments {
				left++
				continue
			}
			cost += c
			taken[i]++
		}
	}
	for i, values := range of {
		list = append(list, values[:taken[i]]...)
	}
	if left > 0 {
		notes = append(notes, fmt.Sprintf("%d more values were left out: name what to capture with --arg", left))
	}
	return list, notes
}

// ops is about what a value costs in a plan.
func ops(x target.Value) int {
	switch {
	case x.Missing != "":
		return 0
	case x.Kind == target.KindString, x.Kind == target.KindBytes:
		return 3 + len(x.Data.Offsets)
	}
	return 2 + len(x.Data.Offsets)
}

func sum(numbers []int) int {
	total := 0
	for _, n := range numbers {
		total += n
	}
	return total
}

// parameterValues is a parameter, or its fields.
func (v *values) parameterValues(p debuginfo.Parameter) []target.Value {
	whole := target.Value{Path: p.Name, Names: []string{p.Name}, Kind: target.KindOther}
	t, err := v.program.debug.Type(p)
	if err != nil {
		miss(&whole, unsupported(err.Error()))
		return []target.Value{whole}
	}
	whole.Types = []string{t.Name}
	pl, gone := v.locate(p, t)
	v.fill(&whole, pl, t, gone, false)
	in := t
	if t.Kind == debuginfo.KindPointer {
		if in, err = v.program.debug.Elem(t); err != nil {
			return []target.Value{whole}
		}
	}
	if in.Kind != debuginfo.KindStruct || gone != nil {
		return []target.Value{whole}
	}
	if t.Kind == debuginfo.KindPointer {
		if pl, gone = pl.follow(); gone != nil {
			return []target.Value{whole}
		}
	}
	fields, err := v.program.debug.Fields(in)
	if err != nil {
		return []target.Value{whole}
	}
	var list []target.Value
	for _, f := range fields {
		ft, err := v.program.debug.FieldType(in, f)
		if err != nil || f.Bits || !isName(f.Name) {
			continue
		}
		x := target.Value{Path: p.Name + "." + f.Name, Names: []string{p.Name, f.Name}, Types: []string{t.Name, ft.Name}, Kind: target.KindOther}
		v.share(&x, x.Names[:1:1], &hop{f, ft, in, false})
		if v.fill(&x, pl.field(f.Offset), ft, nil, false); isShown(x.Kind) {
			list = append(list, x)
		}
	}
	if len(list) == 0 {
		if whole.Kind == target.KindStruct {
			whole.Detail = strings.TrimSuffix(whole.Detail, ": name a field") + ", and none of its fields is a number or a string"
		}
		return []target.Value{whole}
	}
	return list
}

// isShown says which fields of a struct are listed without being asked for.
func isShown(k target.Kind) bool {
	switch k {
	case target.KindInt, target.KindUint, target.KindBool, target.KindFloat, target.KindString, target.KindCString, target.KindBytes:
		return true
	}
	return false
}

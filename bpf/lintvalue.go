// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"maps"
	"math"
	"math/bits"
	"slices"
)

// A kind is what a register or a word on the stack holds.
type kind uint8

const (
	number   kind = iota
	context       // the registers of what is probed
	stack         // a function's frame; at is how many calls deep
	mapValue      // memory of a map's; of says which
	mapItself
	function
	tables  // .rodata
	lost    // pointers to different things, where the ways met
	nothing // not written yet
)

// What a value may depend on by data flow.
const (
	fromInput  uint8 = 1 << iota // the parts of the scratch that hold what is not redacted
	fromTarget                   // numbers that were read from the target, or what is already in the record
)

// A tag says which word of the scratch a number was loaded from.
type tag uint8

const (
	untagged tag = iota
	tagClaimed
	tagIn
	tagOut
	tagText
	tagText2     // twice that
	tagTextMarks // and two more
	tagDecides   // not of the scratch: how many ops decide
)

// A value is all that is known of a register: a number in [lo, hi] (of a pointer: its offset) that is lo modulo step, a power of two.
type value struct {
	kind   kind
	taint  uint8
	tag    tag
	null   bool  // a pointer that may be none
	of     label // the map, if it is of one
	at     int
	lo, hi int64 // numbers that may be beyond an int64 are [0, max] with wide set
	wide   bool  // nothing is known of the upper bits
	step   int64
	most   int64 // not 0: if it is not negative, it is at most this
	id     int   // not 0: equal to whatever has the same
}

func constant(n int64) value { return value{kind: number, lo: n, hi: n, step: 1 << 62, wide: n < 0} }

func unknown(taint uint8) value {
	return value{kind: number, hi: math.MaxInt64, wide: true, step: 1, taint: taint}
}

func between(lo, hi int64, taint uint8) value {
	return value{kind: number, lo: lo, hi: hi, step: 1, taint: taint}
}

func pointer(k kind, name string) value { return value{kind: k, of: labelOf(name), step: 1 << 62} }

// A label is a map's name: values are copied and compared so often that a string would cost too much.
type label uint8

var labels = append([]string{""}, slices.Sorted(maps.Keys(mapFlags))...)

func labelOf(name string) label { return label(max(0, slices.Index(labels, name))) }

// name is that of the map that a value is of; "" if it is of none, or of one that is not known.
func (v *value) name() string { return labels[v.of] }

// isConstant says whether a number is just one; a negative one has its bits.
func (v *value) isConstant() bool { return v.kind == number && v.lo == v.hi && (!v.wide || v.lo < 0) }

// bounded says whether a number is in [lo, hi], and not below 0.
func (v *value) bounded() bool { return v.kind == number && !v.wide && v.lo >= 0 }

// trim lowers a bound to a number that the lower bits allow.
func (v *value) trim() {
	if v.step > 1 && !v.wide && v.hi > v.lo {
		v.hi = v.lo + (v.hi-v.lo)&^(v.step-1)
	}
}

func aligned(a, b value) int64 {
	step := min(a.step, b.step)
	if difference := a.lo ^ b.lo; difference != 0 {
		step = min(step, 1<<bits.TrailingZeros64(uint64(difference)))
	}
	return max(step, 1)
}

func meetKind(a, b value) (value, bool) {
	isNull := func(v value) bool { return v.kind == number && v.isConstant() && v.lo == 0 }
	switch {
	case a.kind == b.kind && a.of == b.of && a.at == b.at:
		a.null = a.null || b.null
		return a, true
	case b.kind == number && a.kind != lost:
		a.null = a.null || isNull(b)
		return a, false
	case a.kind == number && b.kind != lost:
		b.null = b.null || isNull(a)
		return b, false
	}
	return value{kind: lost}, false
}

// join is what is known where two ways meet. A number beside a pointer is none that anything is read by: the kernel's verifier sees to that.
func join(a, b value, widen []int64) value {
	switch {
	case a == b || b.kind == nothing: // whoever reads it did not come that way: the verifier sees to that, too
		return a
	case a.kind == nothing:
		return b
	}
	v, same := meetKind(a, b)
	v.taint = a.taint | b.taint
	if !same {
		v.tag, v.most, v.id = untagged, 0, 0
		return v
	}
	v.step = aligned(a, b)
	v.lo, v.hi, v.wide = min(a.lo, b.lo), max(a.hi, b.hi), a.wide || b.wide
	if v.kind == number && v.wide {
		v.lo, v.hi = 0, math.MaxInt64
	}
	if widen != nil && (v.lo < a.lo || v.hi > a.hi) {
		if v.hi > a.hi {
			i, _ := slices.BinarySearch(widen, v.hi)
			if i == len(widen) {
				v.hi, v.wide = math.MaxInt64, true
			} else {
				v.hi = widen[i]
			}
		}
		if v.lo < a.lo {
			v.lo = min(0, v.lo&^math.MaxInt32)
		}
		v.lo, v.step = v.lo&^(v.step-1)|a.lo&(min(v.step, 1<<16)-1), min(v.step, 1<<16)
		if v.lo > min(a.lo, b.lo) {
			v.lo -= v.step
		}
		if v.wide && v.kind == number {
			v.lo, v.hi, v.step = 0, math.MaxInt64, 1
		}
	}
	v.trim()
	if a.tag != b.tag {
		v.tag = untagged
	}
	if a.most != b.most {
		v.most = 0
	}
	if a.id != b.id {
		v.id = 0
	}
	return v
}

// low is what remains of a number's 32 lower bits.
func (v value) low() value {
	if v.kind != number {
		return unknown(v.taint)
	}
	const top = 1<<32 - 1
	if v.isConstant() {
		c := constant(v.lo & top)
		c.taint = v.taint
		return c
	}
	if v.bounded() && v.hi <= top {
		return v
	}
	return between(0, top, v.taint).stepped(v)
}

// stepped takes over what is known of another's lower bits.
func (v value) stepped(of value) value {
	step := min(of.step, 1<<16)
	if step > 1 && v.hi >= step {
		v.lo, v.step = of.lo&(step-1), step
	}
	return v
}

// plus adds; one of the two may be a pointer.
func plus(a, b value) value {
	if b.kind != number {
		a, b = b, a
	}
	taint := a.taint | b.taint
	switch {
	case b.kind != number || a.kind == lost || a.kind == nothing:
		return unknown(taint)
	case a.kind != number:
		v := a
		v.taint, v.id, v.tag = taint, 0, untagged
		if b.wide && !b.isConstant() || b.hi > math.MaxInt32 || v.wide {
			v.hi, v.wide = math.MaxInt64, true
			if !b.bounded() {
				v.lo = math.MinInt32
			} else {
				v.lo += b.lo
			}
		} else {
			v.lo, v.hi = a.lo+b.lo, a.hi+b.hi
		}
		v.step = max(1, min(a.step, b.step))
		return v
	}
	exact := (a.bounded() || a.isConstant()) && (b.bounded() || b.isConstant())
	if !exact || a.hi > math.MaxInt64/4 || b.hi > math.MaxInt64/4 {
		return unknown(taint)
	}
	v := between(a.lo+b.lo, a.hi+b.hi, taint)
	v.step = max(1, min(a.step, b.step))
	if v.lo < 0 {
		if v.lo == v.hi {
			v.wide = true
		} else {
			return unknown(taint)
		}
	}
	return v
}

// or of numbers, exact where no bit can be set in both.
func or(a, b value) value {
	if b.isConstant() && a.bounded() && b.lo >= 0 {
		zeros := a.step - 1 // a's lower bits are those of a.lo
		possible := int64(1)<<bits.Len64(uint64(a.hi)) - 1
		if possible = possible&^zeros | a.lo&zeros; possible&b.lo == 0 {
			return plus(a, b)
		}
	}
	if a.bounded() && b.bounded() {
		return between(max(a.lo, b.lo), int64(1)<<bits.Len64(uint64(a.hi|b.hi))-1, a.taint|b.taint)
	}
	return unknown(a.taint | b.taint)
}

// and of numbers.
func and(a, b value) value {
	taint := a.taint | b.taint
	if a.isConstant() && b.isConstant() {
		v := constant(a.lo & b.lo)
		v.taint = taint
		return v
	}
	if !b.isConstant() {
		a, b = b, a
	}
	switch {
	case b.isConstant() && b.lo < 0 && a.bounded(): // rounds down, or clears some
		v := between(0, a.hi, taint)
		v.step = 1 << bits.TrailingZeros64(uint64(b.lo))
		v.lo = a.lo & b.lo
		if bits.OnesCount64(uint64(^b.lo))+1 != bits.Len64(uint64(^b.lo))+1 {
			v.lo, v.step = 0, 1
		}
		return v
	case b.isConstant() && b.lo > 0 && a.bounded():
		v := between(0, min(a.hi, b.lo), taint)
		v.step = 1 << bits.TrailingZeros64(uint64(b.lo))
		v.trim()
		return v
	case b.bounded() && a.bounded():
		return between(0, min(a.hi, b.hi), taint)
	case b.bounded():
		return between(0, b.hi, taint)
	}
	return unknown(taint)
}

// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
)

var errElsewhere = errors.New("the debug information names one place for the whole function, and it is not proved that the value is there at the attach point")

// atSite checks a place that the debug information gives for the whole of a C function. A compiler may mean by it where the
// function puts a variable, which can be later than our instruction; then what the code or the calling convention proves takes
// its place.
func (v *values) atSite(p debuginfo.Parameter, t *debuginfo.Type, locations []debuginfo.Location) ([]piece, error) {
	if len(locations) != 1 {
		return nil, errElsewhere
	}
	l := locations[0]
	if l.Kind == debuginfo.LocationNone || l.Kind == debuginfo.LocationRegister && debuginfo.IsVector(l.Base) {
		return []piece{v.piece(l)}, nil
	}
	passedInMemory := l.Kind == debuginfo.LocationMemory && l.Base == debuginfo.BaseCFA && len(l.Loads) == 0 && l.Add >= 0
	switch {
	case passedInMemory:
		return []piece{v.piece(l)}, nil
	case l.Kind == debuginfo.LocationRegister:
		if r, ok := v.passedIn(p); ok && r == l.Base {
			return []piece{v.piece(l)}, nil
		}
	case l.Kind == debuginfo.LocationMemory && len(l.Loads) == 0 && t.Size > 0 && t.Size <= 16:
		if v.spills == nil {
			v.spills = readPrologue(v.code.spans[0].text)
		}
		at := l.Add
		if l.Base == framePointer && v.spills.hasFrame {
			at += v.spills.frame
		} else if l.Base != debuginfo.BaseCFA {
			break
		}
		return v.spills.pieces(at, t.Size), nil
	}
	return nil, errElsewhere
}

// integers are the registers for arguments that are no floating-point numbers: System V ABI for x86-64, 3.2.3, in DWARF numbers.
var integers = [...]int{5, 4, 1, 2, 8, 9}

// passedIn is the register in which a C function is passed a number or pointer; ok is false where that is not known.
func (v *values) passedIn(wanted debuginfo.Parameter) (register int, ok bool) {
	if clone.MatchString(v.function.name) {
		return 0, false // a clone's parameters are the compiler's own choice
	}
	const vectors = 8
	integersUsed, vectorsUsed := 0, 0
	f := v.function.debug
	if len(f.Results) == 1 {
		t, err := v.program.debug.Type(f.Results[0])
		if err != nil {
			return 0, false
		}
		if t.Kind == debuginfo.KindStruct && t.Size > 16 {
			integersUsed++ // where to put the result
		}
	}
	for _, p := range f.Parameters {
		t, err := v.program.debug.Type(p)
		if err != nil {
			return 0, false
		}
		n, x, known := v.registersFor(t)
		if !known {
			return 0, false
		}
		fit := integersUsed+n <= len(integers) && vectorsUsed+x <= vectors
		if p == wanted {
			return integers[min(integersUsed, len(integers)-1)], n == 1 && x == 0 && fit
		}
		if fit {
			integersUsed, vectorsUsed = integersUsed+n, vectorsUsed+x
		}
	}
	return 0, false
}

// registersFor counts the general and the vector registers that an argument takes: none if it is passed in memory.
func (v *values) registersFor(t *debuginfo.Type) (general, vector int, known bool) {
	var class [2]struct{ used, integer bool } // of each 8 bytes
	if t.Kind == debuginfo.KindStruct && t.Size > 16 {
		return 0, 0, true
	}
	ok := v.eachScalar(t, 0, maxLoads, func(at int64, scalar *debuginfo.Type) bool {
		if at < 0 || at/8 > 1 || scalar.Size <= 0 || at%scalar.Size != 0 {
			return false // packed: not followed
		}
		class[at/8].used = true
		class[at/8].integer = class[at/8].integer || scalar.Kind != debuginfo.KindFloat
		return true
	})
	for _, c := range class {
		switch {
		case c.integer:
			general++
		case c.used:
			vector++
		}
	}
	return general, vector, ok
}

// eachScalar visits the numbers and pointers that a C type is made of; false: it is made of something else, too.
func (v *values) eachScalar(t *debuginfo.Type, at int64, depth int, visit func(at int64, t *debuginfo.Type) bool) bool {
	if depth == 0 {
		return false
	}
	switch t.Kind {
	case debuginfo.KindInt, debuginfo.KindUint, debuginfo.KindBool, debuginfo.KindPointer, debuginfo.KindFloat:
		return visit(at, t)
	case debuginfo.KindArray:
		elem, err := v.program.debug.Elem(t)
		if err != nil || t.Count < 0 || t.Count > 16 {
			return false
		}
		for i := range t.Count {
			if !v.eachScalar(elem, at+i*elem.Size, depth-1, visit) {
				return false
			}
		}
		return true
	case debuginfo.KindStruct:
		fields, err := v.program.debug.Fields(t)
		if err != nil {
			return false
		}
		for _, f := range fields {
			ft, err := v.program.debug.FieldType(t, f)
			if err != nil || f.Bits || !v.eachScalar(ft, at+f.Offset, depth-1, visit) {
				return false
			}
		}
		return true
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
)

var errElsewhere = errors.New("the debug information names one place for the whole function, and it is not proved that the value is there at the attach point")

// atSite checks a place that the debug information gives for the whole of a function. A compiler may mean by it where the
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
	if v.code.isGo {
		// Space for an argument that came in a register is beside those that came in memory: only what cannot be in registers is there for sure.
		if passedInMemory && v.needsMemory(t, maxLoads) {
			return []piece{v.piece(l)}, nil
		}
		return nil, errElsewhere
	}
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

// needsMemory says whether Go passes a type in memory: it puts no array of more than one element into registers.
func (v *values) needsMemory(t *debuginfo.Type, depth int) bool {
	switch {
	case depth == 0:
		return false
	case t.Kind == debuginfo.KindArray:
		return t.Count > 1
	case t.Kind != debuginfo.KindStruct:
		return false
	}
	fields, err := v.program.debug.Fields(t)
	if err != nil {
		return false
	}
	for _, f := range fields {
		if ft, err := v.program.debug.FieldType(t, f); err == nil && v.needsMemory(ft, depth-1) {
			return true
		}
	}
	return false
}

// integers are the registers for arguments that are no floating-point numbers: System V ABI for x86-64, 3.2.3, in DWARF numbers.
var integers = [...]int{5, 4, 1, 2, 8, 9}

// passedIn is the register in which a C function is passed a number or pointer; ok is false where that is not known.
func (v *values) passedIn(wanted debuginfo.Parameter) (register int, ok bool) {
	if clone.MatchString(v.function.name) {
		return 0, false // a clone's parameters are the compiler's own choice
	}
	used := 0
	f := v.function.debug
	if len(f.Results) == 1 {
		t, err := v.program.debug.Type(f.Results[0])
		if err != nil {
			return 0, false
		}
		if t.Kind == debuginfo.KindStruct && t.Size > 16 {
			used++ // where to put the result
		}
	}
	for _, p := range f.Parameters {
		t, err := v.program.debug.Type(p)
		if err != nil {
			return 0, false
		}
		n, known := v.integersFor(t)
		if !known {
			return 0, false
		}
		if p == wanted {
			return integers[min(used, len(integers)-1)], n == 1 && used < len(integers)
		}
		if used+n <= len(integers) {
			used += n
		}
	}
	return 0, false
}

// integersFor counts the general registers that an argument takes.
func (v *values) integersFor(t *debuginfo.Type) (n int, known bool) {
	switch t.Kind {
	case debuginfo.KindInt, debuginfo.KindUint, debuginfo.KindBool, debuginfo.KindPointer:
		return 1, true
	case debuginfo.KindFloat:
		return 0, true
	case debuginfo.KindStruct:
		if t.Size > 16 {
			return 0, true
		}
	}
	return 0, false
}

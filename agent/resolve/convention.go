// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"slices"

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
	if l.Kind == debuginfo.LocationNone || l.Kind == debuginfo.LocationRegister && l.Base >= v.program.machine.firstVector {
		return []piece{v.piece(l)}, nil
	}
	passedInMemory := l.Kind == debuginfo.LocationMemory && l.Base == debuginfo.BaseCFA && len(l.Loads) == 0 && l.Add >= 0
	switch {
	case passedInMemory:
		return []piece{v.piece(l)}, nil
	case l.Kind == debuginfo.LocationRegister:
		if r, byAddress, ok := v.passedIn(p); ok && !byAddress && r == l.Base {
			return []piece{v.piece(l)}, nil
		}
	case l.Kind == debuginfo.LocationMemory && len(l.Loads) == 0:
		if r, byAddress, ok := v.passedIn(p); ok && byAddress && r == l.Base && l.Add == 0 {
			return []piece{v.piece(l)}, nil
		}
		if t.Size > 0 && t.Size <= 16 {
			if stored, ok := v.stored(l.Base, l.Add, t.Size); ok {
				return stored, nil
			}
		}
	case l.Kind == debuginfo.LocationMemory && len(l.Loads) == 1:
		if stored, ok := v.stored(l.Base, l.Loads[0], 8); ok && len(stored) == 1 && stored[0].missing == nil {
			return []piece{{memory: &memory{register: stored[0].register, add: l.Add}}}, nil
		}
	}
	return nil, errElsewhere
}

// stored says in which registers at the call the bytes are that the function's first instructions store in its frame.
func (v *values) stored(base int, at, size int64) ([]piece, bool) {
	m := v.program.machine
	if v.spills == nil {
		v.spills = m.prologue(m, v.code.spans[0].text)
	}
	switch {
	case base == m.framePointer && v.spills.hasFrame:
		at += v.spills.frame
	case base != debuginfo.BaseCFA:
		return nil, false
	}
	return v.spills.pieces(at, size), true
}

// passedIn is the register in which a C function is passed a number or pointer; ok is false where that is not known.
func (v *values) passedIn(wanted debuginfo.Parameter) (register int, byAddress, ok bool) {
	if clone.MatchString(v.function.name) {
		return 0, false, false // a clone's parameters are the compiler's own choice
	}
	return v.program.machine.convention.passedIn(v, slices.Index(v.function.debug.Parameters, wanted))
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

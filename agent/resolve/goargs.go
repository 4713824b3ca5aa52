// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"slices"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/event"
)

// maxLeaves bounds the parts of one argument: more than all registers is in memory anyway.
const maxLeaves = 256

var (
	errDisagree = errors.New("the debug information does not agree with Go's calling convention about where it is")
	errNotGo    = errors.New("its type is none that Go's calling convention is known for")
)

// A leaf is a part of an argument that takes a register of its own.
type leaf struct {
	offset, size int64
	float        bool
}

// A goShape is what ABIInternal sees of a type.
type goShape struct {
	leaves []leaf
	align  int64
	array  bool // of several elements, which no register holds
}

// goPieces is where an argument of a Go function is: as the debug information says, if Go's calling convention says the same. Both have to,
// for each is wrong at times. The compiler (1.26 too) leaves padding out of the pieces of a struct, and where it keeps one word
// of several it names that one's place as if it were the whole; and the convention does not know what the compiler changed.
func (v *values) goPieces(p debuginfo.Parameter, locations []debuginfo.Location) ([]piece, error) {
	if len(locations) == 1 && locations[0].Kind == debuginfo.LocationNone {
		return []piece{v.piece(locations[0])}, nil
	}
	wanted, err := v.passed(p)
	if err != nil {
		return nil, err
	}
	if len(locations) == 1 && locations[0].Size == 0 {
		l := locations[0]
		if n := len(wanted); n == 0 || n > 1 && wanted[0].memory == nil || !v.same(l, wanted[0]) {
			return nil, errDisagree
		}
		if l.Kind == debuginfo.LocationMemory {
			return []piece{v.piece(l)}, nil
		}
		return wanted, nil
	}
	if locations = withoutPadding(locations, wanted); len(locations) != len(wanted) {
		return nil, errDisagree
	}
	for i, l := range locations {
		if l.Kind == debuginfo.LocationNone {
			return nil, errors.New("the compiler keeps only a part of it at the attach point")
		}
		if l.Size != wanted[i].size || !v.same(l, wanted[i]) {
			return nil, errDisagree
		}
		if q := v.piece(l); q.missing != nil && q.missing.reason == event.OptimizedOut {
			return nil, errDisagree
		}
	}
	return wanted, nil
}

// withoutPadding leaves out the pieces that are between the leaves, if the pieces are as DWARF wants them: those of optimised functions
// have none for padding.
func withoutPadding(locations []debuginfo.Location, leaves []piece) []debuginfo.Location {
	if len(locations) == len(leaves) {
		return locations
	}
	var list []debuginfo.Location
	at := int64(0)
	for _, l := range locations {
		from, to := at, at+l.Size
		at = to
		inLeaf := slices.ContainsFunc(leaves, func(q piece) bool { return from < q.from+q.size && to > q.from })
		if l.Kind != debuginfo.LocationNone || inLeaf {
			list = append(list, l)
		}
	}
	return list
}

// dictionary says before which parameter a generic function has one that the debug information does not list: what the
// types of this call are. -1: it has none.
func dictionary(name string) int {
	i := strings.LastIndex(name, "]")
	switch {
	case !strings.Contains(name, "[go.shape."), strings.HasPrefix(name, "type:"):
		return -1
	case i == len(name)-1:
		return 0
	case strings.Contains(name[i:], ".func"), strings.Contains(name[i:], "-"):
		return -1 // a closure finds it elsewhere
	default:
		return 1 // behind the receiver
	}
}

// same says whether a location is the place that the calling convention names.
func (v *values) same(l debuginfo.Location, q piece) bool {
	if q.memory != nil {
		return l.Kind == debuginfo.LocationMemory && l.Base == debuginfo.BaseCFA && len(l.Loads) == 0 && l.Add+v.program.machine.returnAddress == q.memory.add
	}
	register := q.register
	return l.Kind == debuginfo.LocationRegister && l.Base == register
}

// passed says where ABIInternal passes an argument, a piece for each leaf.
func (v *values) passed(wanted debuginfo.Parameter) ([]piece, error) {
	parameters := v.function.debug.Parameters
	before := dictionary(v.function.name)
	if slices.ContainsFunc(parameters, func(p debuginfo.Parameter) bool { return p.Name == ".dict" }) {
		before = -1 // in unoptimised functions the debug information does list it
	}
	i := slices.Index(parameters, wanted)
	if i < 0 {
		return nil, errNotGo
	}
	pieces, _, err := v.assigned(parameters, i, before, 0)
	return pieces, err
}

// assigned says where ABIInternal puts one of the arguments or of the results, a piece for each leaf, and where the stack ends that
// those before it take, or all if none is wanted (-1). The rules are those of src/cmd/compile/abi-internal.md, "Function call argument
// and result passing". Before is the parameter that the dictionary of a generic function precedes; -1: there is none. The
// stack is counted from 8 bytes above the stack pointer.
func (v *values) assigned(parameters []debuginfo.Parameter, wanted, before int, stack int64) ([]piece, int64, error) {
	abi := v.program.machine.golang
	var integers, floats int
	for i, p := range parameters {
		if i == before {
			integers++
		}
		t, err := v.program.debug.Type(p)
		if err != nil {
			return nil, 0, err
		}
		shape, ok := v.goShape(t)
		if !ok || t.Size < 0 {
			return nil, 0, errNotGo
		}
		n, f := 0, 0
		for _, l := range shape.leaves {
			if l.float {
				f++
			} else {
				n++
			}
		}
		inMemory := shape.array || t.Size == 0 || integers+n > len(abi.Integers) || floats+f > abi.Floats
		if inMemory {
			stack = (stack + shape.align - 1) / shape.align * shape.align
		}
		if i == wanted {
			return v.program.machine.assign(shape.leaves, inMemory, integers, floats, stack), stack, nil
		}
		if inMemory {
			stack += t.Size
			continue
		}
		integers += n
		floats += f
	}
	return nil, stack, nil
}

// assign gives each leaf its place.
func (m *machine) assign(leaves []leaf, inMemory bool, integers, floats int, stack int64) []piece {
	var list []piece
	for _, l := range leaves {
		q := piece{from: l.offset, size: l.size}
		switch {
		case inMemory:
			q.memory = &memory{register: m.stackPointer, add: stack + l.offset + 8}
		case l.float:
			q.register, q.missing = m.golang.FirstFloat+floats, vectorRegister()
			floats++
		default:
			q.register = m.golang.Integers[integers]
			integers++
		}
		list = append(list, q)
	}
	return list
}

func (v *values) goShape(t *debuginfo.Type) (goShape, bool) {
	s := goShape{align: 1}
	ok := v.addLeaves(&s, t, 0, maxLoads)
	return s, ok
}

// addLeaves adds those of a type at an offset; false: the type is none that is known.
func (v *values) addLeaves(s *goShape, t *debuginfo.Type, at int64, depth int) bool {
	words := func(n int64) bool {
		for i := range n {
			s.leaves = append(s.leaves, leaf{offset: at + 8*i, size: 8})
		}
		s.align = 8
		return true
	}
	if depth == 0 || len(s.leaves) > maxLeaves {
		return false
	}
	switch t.Kind {
	case debuginfo.KindInt, debuginfo.KindUint, debuginfo.KindBool, debuginfo.KindFloat:
		s.leaves = append(s.leaves, leaf{at, t.Size, t.Kind == debuginfo.KindFloat})
		s.align = max(s.align, t.Size)
		return t.Size > 0
	case debuginfo.KindComplex:
		half := t.Size / 2
		s.leaves = append(s.leaves, leaf{at, half, true}, leaf{at + half, half, true})
		s.align = max(s.align, half)
		return half > 0
	case debuginfo.KindPointer:
		return words(1)
	case debuginfo.KindGoString:
		return words(2)
	case debuginfo.KindGoSlice:
		return words(3)
	case debuginfo.KindGoOther:
		return words(t.Size / 8)
	case debuginfo.KindArray:
		elem, err := v.program.debug.Elem(t)
		if err != nil {
			return false
		}
		if t.Count > 1 {
			s.array = true
		}
		before := len(s.leaves)
		ok := v.addLeaves(s, elem, at, depth-1)
		if t.Count == 0 {
			s.leaves = s.leaves[:before]
		}
		return ok
	case debuginfo.KindStruct:
		fields, err := v.program.debug.Fields(t)
		if err != nil {
			return false
		}
		for _, f := range fields {
			ft, err := v.program.debug.FieldType(t, f)
			if err != nil || !v.addLeaves(s, ft, at+f.Offset, depth-1) {
				return false
			}
		}
		return true
	}
	return false
}

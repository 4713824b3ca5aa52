// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"github.com/keyhole-dev/keyhole/internal/debuginfo"
	"github.com/keyhole-dev/keyhole/internal/event"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// maxLoads bounds the pointers on the way to one value.
const maxLoads = 8

// A piece is a part of a variable, [from, from+size).
type piece struct {
	from, size int64
	// register holds it in its low bytes, unless memory says that it is in memory.
	register int
	memory   *memory
	missing  *missing
}

// A memory is the address that is found from a register by following loads and adding add.
type memory struct {
	register int
	loads    []int64
	add      int64
}

// missing is why a value cannot be read: a reason of the event package and a text for people.
type missing struct{ reason, detail string }

func optimizedOut(detail string) *missing { return &missing{event.OptimizedOut, detail} }

func vectorRegister() *missing {
	return &missing{event.FloatReg, "the kernel does not show vector registers to a probe"}
}

func unsupported(detail string) *missing { return &missing{event.Unsupported, detail} }

// A place is where a variable or a part of it is, [from, from+size) of its pieces; in memory, which needs no pieces, one of any size.
type place struct {
	pieces []piece
	from   int64
}

func inMemory(m memory) place { return place{pieces: []piece{{size: 1 << 62, memory: &m}}} }

// field is the part of a place that begins at an offset.
func (p place) field(offset int64) place { return place{pieces: p.pieces, from: p.from + offset} }

// whole finds the one piece that holds size bytes of the place.
func (p place) whole(size int64) (piece, *missing) {
	for _, q := range p.pieces {
		if p.from < q.from || p.from >= q.from+q.size {
			continue
		}
		switch {
		case q.missing != nil:
			return q, q.missing
		case p.from+size > q.from+q.size:
			return q, unsupported("it lies in two places at once")
		case q.memory == nil && p.from-q.from+size > 8:
			return q, unsupported("it is larger than the register that holds it")
		}
		return q, nil
	}
	return piece{}, optimizedOut("the compiler keeps it nowhere at the attach point")
}

// scalar is the location of size bytes.
func (p place) scalar(size int64) (target.Location, *missing) {
	q, m := p.whole(size)
	if m != nil {
		return target.Location{}, m
	}
	if q.memory != nil {
		mem := *q.memory
		return mem.load(p.from - q.from)
	}
	return target.Location{Register: q.register, Shift: int(p.from - q.from)}, nil
}

// address is the location of the memory that the place is in: the address is the location's value plus the offset.
func (p place) address() (l target.Location, offset int64, m *missing) {
	q, m := p.whole(1)
	switch {
	case m != nil:
		return l, 0, m
	case q.memory == nil:
		return l, 0, unsupported("it is in a register, not in memory")
	}
	offset = q.memory.add + p.from - q.from
	if !fits(offset) {
		return l, 0, unsupported("it is too far inside of its struct")
	}
	return target.Location{Register: q.memory.register, Offsets: q.memory.loads}, offset, nil
}

// follow is the memory that the pointer in this place points to.
func (p place) follow() (place, *missing) {
	l, m := p.scalar(8)
	if m != nil {
		return place{}, m
	}
	if l.Shift != 0 {
		return place{}, unsupported("the pointer does not fill its register")
	}
	if len(l.Offsets) >= maxLoads {
		return place{}, &missing{event.TooDeep, "more than 8 pointers to follow"}
	}
	return inMemory(memory{register: l.Register, loads: l.Offsets}), nil
}

// load is the location of what is in memory at an offset.
func (m memory) load(offset int64) (target.Location, *missing) {
	at := m.add + offset
	if !fits(at) {
		return target.Location{}, unsupported("it is too far inside of its struct")
	}
	return target.Location{Register: m.register, Offsets: append(append([]int64{}, m.loads...), at)}, nil
}

// fits says whether an offset fits into one op.
func fits(offset int64) bool { return offset == int64(int32(offset)) }

// locate finds a parameter's place at the site, where nothing but the return address has been pushed.
func (v *values) locate(p debuginfo.Parameter, t *debuginfo.Type) (place, *missing) {
	if p.Constant {
		return place{}, optimizedOut("the compiler replaced it by a constant")
	}
	locations, fixed, err := v.program.debug.Locate(p, v.site)
	if err != nil {
		return place{}, optimizedOut(err.Error())
	}
	var pl place
	switch {
	case v.function.debug.IsGo:
		pl.pieces, err = v.goPieces(p, locations)
	case fixed:
		pl.pieces, err = v.atSite(p, t, locations)
	default:
		from := int64(0)
		for _, l := range locations {
			q := v.piece(l)
			q.from, q.size = from, l.Size
			from += q.size
			pl.pieces = append(pl.pieces, q)
		}
	}
	if err != nil {
		return place{}, optimizedOut(err.Error())
	}
	if n := len(pl.pieces); n == 1 && pl.pieces[0].size == 0 {
		pl.pieces[0].size = max(t.Size, 8) // the whole variable
	}
	// A variable of which some is gone is not shown in part: what is left can be older than the call.
	for _, q := range pl.pieces {
		if q.missing != nil && q.missing.reason == event.OptimizedOut && len(pl.pieces) > 1 && v.holdsField(t, q.from, q.from+q.size, maxLoads) {
			return place{}, optimizedOut("the compiler keeps only a part of it at the attach point")
		}
	}
	return pl, nil
}

func (v *values) piece(l debuginfo.Location) piece {
	gone := piece{missing: optimizedOut("the compiler keeps it nowhere at the attach point")}
	switch l.Kind {
	case debuginfo.LocationRegister:
		if l.Base >= v.program.machine.firstVector {
			return piece{missing: vectorRegister()}
		}
		if !v.readable(l.Base) {
			return piece{missing: unsupported("the register that holds it is none that a probe reads")}
		}
		return piece{register: l.Base}
	case debuginfo.LocationMemory:
		if m, ok := v.memory(l); ok {
			return piece{memory: &m}
		}
	case debuginfo.LocationComputed:
		// A number that is in a register as it is, or behind a last pointer.
		if l.Add == 0 && v.readable(l.Base) {
			n := len(l.Loads)
			if n == 0 {
				return piece{register: l.Base}
			}
			l.Loads, l.Add = l.Loads[:n-1], l.Loads[n-1]
			if m, ok := v.memory(l); ok {
				return piece{memory: &m}
			}
		}
		return piece{missing: optimizedOut("the compiler computes it when it is needed")}
	}
	return gone
}

func (v *values) readable(register int) bool {
	return target.HasRegister(v.program.machine.arch, register)
}

// memory turns DWARF's address into one that a probe can follow.
func (v *values) memory(l debuginfo.Location) (memory, bool) {
	mc := v.program.machine
	m := memory{register: l.Base, loads: append([]int64{}, l.Loads...), add: l.Add}
	if l.Base == debuginfo.BaseCFA || l.Base == mc.stackPointer {
		first := &m.add
		if len(m.loads) > 0 {
			first = &m.loads[0]
		}
		if l.Base == debuginfo.BaseCFA {
			register, offset, ok := v.program.cfa(v.site)
			if ok && (register != mc.stackPointer || offset != mc.returnAddress) {
				return m, false // the frame information contradicts what a site is
			}
			m.register = mc.stackPointer
			*first += mc.returnAddress
		}
		if *first < mc.returnAddress {
			return m, false // below the return address: the function has not stored anything there yet
		}
	}
	for _, offset := range append(m.loads, m.add) {
		if !fits(offset) {
			return m, false
		}
	}
	return m, v.readable(m.register) && len(m.loads) <= maxLoads
}

// holdsField says whether [from, to) of a type holds a part of a field, and not padding only.
func (v *values) holdsField(t *debuginfo.Type, from, to int64, depth int) bool {
	if t.Kind != debuginfo.KindStruct || depth == 0 {
		return from < t.Size && to > 0
	}
	fields, err := v.program.debug.Fields(t)
	if err != nil {
		return true
	}
	for _, f := range fields {
		ft, err := v.program.debug.FieldType(t, f)
		if err != nil || v.holdsField(ft, from-f.Offset, to-f.Offset, depth-1) {
			return true
		}
	}
	return false
}

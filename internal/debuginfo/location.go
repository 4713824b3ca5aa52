// SPDX-License-Identifier: Apache-2.0

package debuginfo

import (
	"bytes"
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-delve/delve/pkg/dwarf/leb128"
	"github.com/go-delve/delve/pkg/dwarf/op"

	"github.com/keyhole-dev/keyhole/internal/objfile"
)

// LocationKind says what a Location is.
type LocationKind int

// The kinds of location.
const (
	LocationNone     LocationKind = iota // the compiler keeps it nowhere
	LocationRegister                     // in Base
	LocationMemory                       // at the address base, loads, Add
	LocationComputed                     // it is itself the number base, loads, Add: nowhere in the process
)

// Bases that are no register.
const (
	BaseCFA  = -1 // the canonical frame address
	baseNone = -2 // 0
)

// A Location is where a variable, or a piece of it, is: a register, or what is found from Base (a DWARF register number or
// BaseCFA) by following Loads (v = *(v + load) for each) and adding Add.
type Location struct {
	Kind  LocationKind
	Base  int
	Loads []int64
	Add   int64
	Size  int64 // of a piece; 0: the whole variable
}

// errLocation is about an expression that is none of the forms that compilers use for parameters at a function's entry.
var errLocation = errors.New("its place is described in a way that Keyhole does not read")

// Operators that delve's table lacks: DWARF 5, 7.7.1, and GCC's before it.
const (
	opEntryValue    op.Opcode = 0xa3
	opGNUEntryValue op.Opcode = 0xf3
)

// context is what an expression refers to beside itself.
type context struct {
	frameBase *Location // DW_AT_frame_base; nil: none
	atEntry   bool      // the instruction is the function's first: an entry value is the register itself
}

// evaluate runs a location expression that is a single location.
func evaluate(expr []byte, c *context) (Location, error) {
	pieces, err := pieces(expr, c)
	if err != nil {
		return Location{}, err
	}
	if len(pieces) != 1 {
		return Location{}, errLocation
	}
	if pieces[0].Kind == LocationMemory && c == nil {
		pieces[0].Kind = LocationComputed
	}
	return pieces[0], nil
}

// pieces runs a location expression symbolically: no register has a value yet. The result has one location for a whole
// variable, or one for each DW_OP_piece in order, in which LocationNone stands for bytes that are kept nowhere.
func pieces(expr []byte, c *context) (all []Location, err error) {
	if len(expr) == 0 {
		return []Location{{Kind: LocationNone}}, nil
	}
	// delve's numbers panic where they are cut off.
	err = objfile.Barrier("run location", func() error {
		all, err = runPieces(expr, c)
		return err
	})
	return all, err
}

func runPieces(expr []byte, c *context) ([]Location, error) {
	var (
		m   = machine{buf: bytes.NewBuffer(expr), context: c}
		all []Location
	)
	for m.buf.Len() > 0 {
		l, isPiece, err := m.location()
		if err != nil {
			return nil, err
		}
		if !isPiece && (m.buf.Len() > 0 || len(all) > 0) || len(all) > 64 {
			return nil, errLocation
		}
		all = append(all, l)
	}
	return all, nil
}

// A machine is DWARF's stack machine over symbolic values. A value is a Location of kind LocationComputed.
type machine struct {
	buf     *bytes.Buffer
	stack   []Location
	context *context
}

// location runs up to the end of the expression or the next DW_OP_piece.
func (m *machine) location() (l Location, isPiece bool, err error) {
	m.stack = m.stack[:0]
	found := Location{Kind: LocationNone}
	closed := false // by an operator behind which only a piece may come
	for m.buf.Len() > 0 {
		b, _ := m.buf.ReadByte()
		code := op.Opcode(b)
		if closed && code != op.DW_OP_piece {
			return l, false, errLocation
		}
		switch {
		case code == op.DW_OP_piece:
			size, _ := leb128.DecodeUnsigned(m.buf)
			if size == 0 || size > 1<<20 {
				return l, false, errLocation
			}
			if !closed && len(m.stack) > 0 {
				found = m.address()
			}
			found.Size = int64(size)
			return found, true, nil
		case code >= op.DW_OP_reg0 && code <= op.DW_OP_reg31:
			found, closed = Location{Kind: LocationRegister, Base: int(code - op.DW_OP_reg0)}, true
		case code == op.DW_OP_regx:
			n, _ := leb128.DecodeUnsigned(m.buf)
			found, closed = Location{Kind: LocationRegister, Base: int(min(n, 1<<16))}, true
		case code == op.DW_OP_stack_value:
			if len(m.stack) == 0 {
				return l, false, errLocation
			}
			found, closed = m.stack[len(m.stack)-1], true
		case code == op.DW_OP_implicit_value:
			n, _ := leb128.DecodeUnsigned(m.buf)
			m.buf.Next(int(min(n, uint64(m.buf.Len()))))
			found, closed = Location{Kind: LocationComputed, Base: baseNone}, true
		default:
			if err := m.step(code); err != nil {
				return l, false, err
			}
		}
	}
	if !closed {
		if len(m.stack) == 0 {
			return l, false, errLocation
		}
		found = m.address()
	}
	return found, false, nil
}

func (m *machine) address() Location {
	l := m.stack[len(m.stack)-1]
	l.Kind = LocationMemory
	return l
}

func (m *machine) push(base int, add int64) {
	m.stack = append(m.stack, Location{Kind: LocationComputed, Base: base, Add: add})
}

// step runs one operator that works on the stack. What it does not know is refused.
func (m *machine) step(code op.Opcode) error {
	if len(m.stack) > 16 {
		return errLocation
	}
	switch {
	case code >= op.DW_OP_breg0 && code <= op.DW_OP_breg31:
		n, _ := leb128.DecodeSigned(m.buf)
		m.push(int(code-op.DW_OP_breg0), n)
		return nil
	case code >= op.DW_OP_lit0 && code <= op.DW_OP_lit31:
		m.push(baseNone, int64(code-op.DW_OP_lit0))
		return nil
	}
	switch code {
	case op.DW_OP_nop:
	case op.DW_OP_fbreg:
		n, _ := leb128.DecodeSigned(m.buf)
		if m.context == nil || m.context.frameBase == nil {
			return errLocation
		}
		base := *m.context.frameBase
		base.Add += n
		m.stack = append(m.stack, base)
	case op.DW_OP_call_frame_cfa:
		m.push(BaseCFA, 0)
	case op.DW_OP_bregx:
		r, _ := leb128.DecodeUnsigned(m.buf)
		n, _ := leb128.DecodeSigned(m.buf)
		m.push(int(min(r, 1<<16)), n)
	case op.DW_OP_consts:
		n, _ := leb128.DecodeSigned(m.buf)
		m.push(baseNone, n)
	case op.DW_OP_constu:
		n, _ := leb128.DecodeUnsigned(m.buf)
		m.push(baseNone, int64(n))
	case op.DW_OP_const1u, op.DW_OP_const1s, op.DW_OP_const2u, op.DW_OP_const2s, op.DW_OP_const4u, op.DW_OP_const4s, op.DW_OP_const8u, op.DW_OP_const8s:
		return m.constant(code)
	case op.DW_OP_plus_uconst:
		n, _ := leb128.DecodeUnsigned(m.buf)
		if len(m.stack) == 0 {
			// The place of a field in its struct: the struct's address is on the stack, and for us it is 0.
			m.push(baseNone, 0)
		}
		m.stack[len(m.stack)-1].Add += int64(n)
	case op.DW_OP_plus, op.DW_OP_minus:
		return m.sum(code == op.DW_OP_minus)
	case op.DW_OP_deref:
		if len(m.stack) == 0 {
			return errLocation
		}
		top := &m.stack[len(m.stack)-1]
		top.Loads = append(append([]int64{}, top.Loads...), top.Add)
		top.Add = 0
	case opEntryValue, opGNUEntryValue:
		return m.entryValue()
	default:
		return errLocation
	}
	return nil
}

func (m *machine) constant(code op.Opcode) error {
	size := map[op.Opcode]int{
		op.DW_OP_const1u: 1, op.DW_OP_const1s: 1, op.DW_OP_const2u: 2, op.DW_OP_const2s: 2,
		op.DW_OP_const4u: 4, op.DW_OP_const4s: 4, op.DW_OP_const8u: 8, op.DW_OP_const8s: 8,
	}[code]
	b := m.buf.Next(size)
	if len(b) < size {
		return errLocation
	}
	var wide [8]byte
	copy(wide[:], b)
	n := int64(binary.LittleEndian.Uint64(wide[:]))
	switch code {
	case op.DW_OP_const1s, op.DW_OP_const2s, op.DW_OP_const4s:
		shift := 64 - 8*size
		n = n << shift >> shift
	}
	m.push(baseNone, n)
	return nil
}

func (m *machine) sum(subtract bool) error {
	if len(m.stack) < 2 {
		return errLocation
	}
	a, b := m.stack[len(m.stack)-2], m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-2]
	isNumber := func(l Location) bool { return l.Base == baseNone && len(l.Loads) == 0 }
	switch {
	case isNumber(b) && subtract:
		a.Add -= b.Add
	case isNumber(b):
		a.Add += b.Add
	case isNumber(a) && !subtract:
		b.Add += a.Add
		a = b
	default:
		return errLocation
	}
	m.stack = append(m.stack, a)
	return nil
}

// entryValue is the value that a register had when the function was entered. At the very first instruction that is the register.
func (m *machine) entryValue() error {
	n, _ := leb128.DecodeUnsigned(m.buf)
	if n > uint64(m.buf.Len()) {
		return errLocation
	}
	inner := m.buf.Next(int(n))
	if m.context == nil || !m.context.atEntry {
		return errLocation
	}
	l, err := evaluate(inner, &context{})
	if err != nil || l.Kind != LocationRegister {
		return errLocation
	}
	m.push(l.Base, 0)
	return nil
}

// expressionAt returns the expression that an attribute (DW_AT_location, DW_AT_frame_base) has at an instruction. ok is
// false where the list of a location says nothing about it.
func (d *Data) expressionAt(u *unit, e *dwarf.Entry, attr dwarf.Attr, pc uint64) (expr []byte, isList, ok bool, err error) {
	err = objfile.Barrier("look location up", func() error {
		expr, isList, ok, err = d.lookUp(u, e, attr, pc)
		return err
	})
	return expr, isList, ok, err
}

func (d *Data) lookUp(u *unit, e *dwarf.Entry, attr dwarf.Attr, pc uint64) (expr []byte, isList, ok bool, err error) {
	field := e.AttrField(attr)
	if field == nil {
		return nil, false, false, nil
	}
	var off int64
	switch v := field.Val.(type) {
	case []byte:
		return v, false, len(v) > 0, nil
	case int64:
		off = v
	case uint64: // an index into the unit's table of lists
		if off, err = d.listOffset(u, v); err != nil {
			return nil, true, false, err
		}
	default:
		return nil, false, false, errLocation
	}
	if off < 0 {
		return nil, true, false, errLocation
	}
	if u.version >= 5 {
		if d.loc5 == nil {
			return nil, true, false, errLocation
		}
		entry, err := d.loc5.Find(int(off), 0, u.lowPC, pc, d.addr.GetSubsection(u.addrBase))
		if err != nil || entry == nil {
			return nil, true, false, err
		}
		return entry.Instr, true, len(entry.Instr) > 0, nil
	}
	if d.loc2 == nil {
		return nil, true, false, errLocation
	}
	entry, err := d.loc2.Find(int(off), 0, u.lowPC, pc, nil)
	if err != nil || entry == nil {
		return nil, true, false, err
	}
	return entry.Instr, true, len(entry.Instr) > 0, nil
}

// listOffset looks an index up in the table of offsets that stands before a unit's location lists (DWARF 5, 7.29).
func (d *Data) listOffset(u *unit, index uint64) (int64, error) {
	base := u.listsBase
	if base < 0 {
		base = 12 // behind the header of the only table
	}
	at := uint64(base) + 4*index
	lists := d.sections[".debug_loclists"]
	if index > 1<<28 || at+4 > uint64(len(lists)) {
		return 0, fmt.Errorf("location list %d lies outside of its section", index)
	}
	return base + int64(binary.LittleEndian.Uint32(lists[at:])), nil
}

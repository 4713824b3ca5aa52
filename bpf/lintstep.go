// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"math"

	"github.com/cilium/ebpf/asm"
)

// set gives a register a new value, which until now nothing is equal to.
func (s *state) set(r asm.Register, v value, at int) {
	s.pace.change(r, 0, false)
	if v.id == 0 && v.kind == number && !v.isConstant() {
		s.each(func(other *value) bool { return other.id == at+1 }, func(other *value) { other.id = 0 })
		v.id = at + 1
	}
	s.regs[r] = v
}

// step is an instruction that neither jumps nor calls.
func (l *linter) step(at int, i *asm.Instruction, s *state) error {
	switch class := i.OpCode.Class(); {
	case class.IsALU():
		return l.compute(at, i, s)
	case i.OpCode.IsDWordLoad():
		s.pace.change(i.Dst, 0, false)
		switch {
		case i.IsLoadOfFunctionPointer():
			at, ok := l.starts[i.Reference()]
			if !ok {
				return errors.New("takes the address of no function")
			}
			s.regs[i.Dst] = value{kind: function, at: at, step: 1 << 62}
		case i.IsLoadFromMap() && i.Src == asm.PseudoMapValue:
			if i.Reference() != ".rodata" {
				return errors.New("takes the address of a map's memory")
			}
			v := pointer(tables, "")
			v.lo = i.Constant >> 32
			v.hi = v.lo
			s.regs[i.Dst] = v
		case i.IsLoadFromMap():
			s.regs[i.Dst] = pointer(mapItself, i.Reference())
		default:
			s.regs[i.Dst] = constant(i.Constant)
		}
		return nil
	case class == asm.LdXClass:
		v, err := l.load(s, s.regs[i.Src], int64(i.Offset), int64(i.OpCode.Size().Sizeof()))
		if err == nil {
			s.set(i.Dst, v, at)
		}
		return err
	case class == asm.StXClass && i.OpCode.Mode() == asm.AtomicMode:
		return l.atomic(at, i, s)
	case class == asm.StXClass:
		return l.store(s, s.regs[i.Dst], int64(i.Offset), int64(i.OpCode.Size().Sizeof()), s.regs[i.Src], l.names[at])
	case class == asm.StClass:
		return l.store(s, s.regs[i.Dst], int64(i.Offset), int64(i.OpCode.Size().Sizeof()), constant(i.Constant), l.names[at])
	}
	return errors.New("is unknown")
}

// atomic is a change of memory that is not plain: of a number by another, or the claim of a slot.
func (l *linter) atomic(at int, i *asm.Instruction, s *state) error {
	op, to, size := i.OpCode.AtomicOp(), s.regs[i.Dst], int64(i.OpCode.Size().Sizeof())
	if to.kind == mapValue && to.name() == scratchMap {
		if op != asm.CmpXchg || to.lo != to.hi || to.lo+int64(i.Offset) != l.layout.claimed || s.slot&held != 0 {
			return errors.New("changes the scratch in another way than by claiming a slot")
		}
		if !s.regs[asm.R0].isConstant() || s.regs[asm.R0].lo != 0 || !s.regs[i.Src].isConstant() || s.regs[i.Src].lo != 1 {
			return errors.New("claims a slot that it does not own")
		}
		v := between(0, 1, 0)
		v.tag = tagClaimed
		s.set(asm.R0, v, at)
		return nil
	}
	if to.kind != mapValue {
		return errors.New("changes what is no map's memory")
	}
	if err := l.store(s, to, int64(i.Offset), size, s.regs[i.Src], l.names[at]); err != nil {
		return err
	}
	switch op {
	case asm.AddAtomic:
	case asm.FetchAdd, asm.Xchg:
		s.set(i.Src, unknown(0), at)
	case asm.CmpXchg:
		s.set(asm.R0, unknown(0), at)
	default:
		return errors.New("is unknown")
	}
	return nil
}

func (l *linter) compute(at int, i *asm.Instruction, s *state) error {
	pace := s.pace
	pace.change(i.Dst, i.Constant, i.OpCode.Class() == asm.ALU64Class && i.OpCode.ALUOp() == asm.Add && i.OpCode.Source() == asm.ImmSource)
	defer func() { s.pace = pace }()
	wide := i.OpCode.Class() == asm.ALU64Class
	a, b := s.regs[i.Dst], constant(i.Constant)
	op := i.OpCode.ALUOp()
	if i.OpCode.Source() == asm.RegSource && op != asm.Neg && op != asm.Swap {
		b = s.regs[i.Src]
	}
	if !wide {
		if op == asm.Mov && (b.kind != number || b.bounded() && b.hi <= math.MaxUint32) && b.kind == number {
			s.regs[i.Dst] = b
			return nil
		}
		a, b = a.low(), b.low()
	}
	taint := a.taint | b.taint
	v := unknown(taint)
	switch op {
	case asm.Mov:
		if i.Offset != 0 {
			v = unknown(taint)
			break
		}
		if wide {
			s.regs[i.Dst] = b
			return nil
		}
		v = b
		v.id = 0
	case asm.Add:
		v = plus(a, b)
		if a.tag == tagText && b.id != 0 && a.id == b.id {
			v.tag = tagText2
		}
		if a.tag == tagText2 && b.isConstant() && b.lo == 2 {
			v.tag = tagTextMarks
		}
	case asm.Sub:
		switch {
		case b.isConstant():
			negative := constant(-b.lo)
			v = plus(a, negative)
		case a.bounded() && b.bounded() && a.lo >= b.hi:
			v = between(a.lo-b.hi, a.hi-b.lo, taint)
		}
	case asm.And:
		v = and(a, b)
	case asm.Or:
		v = or(a, b)
	case asm.Xor:
		if a.bounded() && b.bounded() {
			v = or(a, b)
			if v.step > 1 || a.isConstant() && b.isConstant() {
				v = between(0, math.MaxInt64, taint)
				v.wide = true
			} else {
				v.lo = 0
			}
		}
	case asm.LSh:
		if b.isConstant() && b.lo >= 0 && b.lo < 32 && a.bounded() && a.hi < 1<<30 {
			v = between(a.lo<<b.lo, a.hi<<b.lo, taint)
			v.step = min(a.step, 1<<30) << b.lo
			if a.tag == tagText && b.lo == 1 {
				v.tag = tagText2
			}
		}
	case asm.RSh:
		if b.isConstant() && b.lo >= 0 && b.lo < 64 {
			if a.bounded() {
				v = between(a.lo>>b.lo, a.hi>>b.lo, taint)
			} else if b.lo > 0 {
				v = between(0, math.MaxInt64>>(b.lo-1), taint)
			}
		} else if a.bounded() {
			v = between(0, a.hi, taint)
		}
	case asm.Mod:
		if b.bounded() && b.lo > 0 {
			v = between(0, b.hi-1, taint)
		}
	case asm.Mul:
		if a.bounded() && b.bounded() && a.hi < 1<<30 && b.hi < 1<<30 {
			v = between(a.lo*b.lo, a.hi*b.hi, taint)
		}
	case asm.Div, asm.ArSh, asm.Neg, asm.Swap:
	default:
		return errors.New("is unknown")
	}
	if !wide {
		kept := v.tag
		v = v.low()
		v.tag = kept
	}
	v.taint = taint
	if v.kind == number {
		v.id = 0
	}
	s.set(i.Dst, v, at)
	return nil
}

// branch notes what a jump that is taken, or is not, says of its operands. False: it cannot go that way.
func (l *linter) branch(s *state, i *asm.Instruction, op asm.JumpOp, taken bool) bool {
	a, b := s.regs[i.Dst], constant(i.Constant)
	byRegister := i.OpCode.Source() == asm.RegSource
	if byRegister {
		b = s.regs[i.Src]
	}
	whole := [2]bool{true, true} // not only the lower half is compared
	if i.OpCode.Class() == asm.Jump32Class {
		for n, v := range []*value{&a, &b} {
			if v.kind != number {
				return true
			}
			if v.isConstant() || !v.bounded() || v.hi > math.MaxUint32 {
				*v, whole[n] = v.low(), false
			}
		}
	}
	if !taken {
		op = map[asm.JumpOp]asm.JumpOp{
			asm.JEq: asm.JNE, asm.JNE: asm.JEq, asm.JGT: asm.JLE, asm.JLE: asm.JGT, asm.JGE: asm.JLT, asm.JLT: asm.JGE,
			asm.JSGT: asm.JSLE, asm.JSLE: asm.JSGT, asm.JSGE: asm.JSLT, asm.JSLT: asm.JSGE,
		}[op]
	}
	if a.kind != number || b.kind != number {
		if b.isConstant() && b.lo == 0 && a.kind != number {
			switch op {
			case asm.JEq:
				if !a.null && a.kind != nothing && a.kind != lost {
					return false
				}
				s.refine(a, i.Dst, constant(0))
			case asm.JNE:
				known := a
				known.null = false
				s.refine(a, i.Dst, known)
			}
		}
		return true
	}
	x, y := a, b
	if !narrow(&x, &y, op) {
		return false
	}
	if whole[0] && x != a {
		s.refine(a, i.Dst, x)
	}
	if byRegister && whole[1] && y != b {
		s.refine(b, i.Src, y)
	}
	if a.tag == tagDecides && b.isConstant() && b.lo == 0 {
		switch op {
		case asm.JEq:
			s.decides = 1
		case asm.JNE:
			s.decides = 2
		}
	}
	if op == asm.JEq && y.isConstant() && y.lo == 0 {
		s.slot |= cleanIfZero[a.tag]
		if a.tag == tagClaimed {
			s.slot = held
		}
	}
	return true
}

// refine replaces a register's value, and all that are known to be equal to it, or copies of the same pointer.
func (s *state) refine(old value, r asm.Register, v value) {
	s.regs[r] = v
	s.pace.keep(s)
	s.each(func(other *value) bool {
		return old.kind == number && old.id != 0 && other.id == old.id || old.kind != number && old.null && *other == old
	}, func(other *value) { *other = v })
}

// narrow is what a comparison that holds says of both numbers; false if it cannot hold.
func narrow(a, b *value, op asm.JumpOp) bool {
	switch op {
	case asm.JSGE, asm.JSGT, asm.JSLT, asm.JSLE:
		if b.isConstant() && (b.lo == 0 && op == asm.JSGE || b.lo == -1 && op == asm.JSGT) { // it is not negative
			if a.isConstant() && a.lo < 0 {
				return false
			}
			if a.wide && !a.isConstant() {
				a.wide, a.lo, a.hi, a.step = false, 0, math.MaxInt64, 1
				if a.most != 0 {
					a.hi = a.most
				}
			}
			return true
		}
		if b.isConstant() && (b.lo == 0 && op == asm.JSLT || b.lo == -1 && op == asm.JSLE) {
			return !a.bounded()
		}
		if !a.bounded() || !b.bounded() {
			return true
		}
		op = map[asm.JumpOp]asm.JumpOp{asm.JSGE: asm.JGE, asm.JSGT: asm.JGT, asm.JSLT: asm.JLT, asm.JSLE: asm.JLE}[op]
	}
	below := func(x, y *value, less int64) bool { // x <= y - less
		if y.bounded() || y.isConstant() && y.lo >= 0 {
			if x.wide && !x.isConstant() {
				x.wide, x.lo, x.hi = false, 0, math.MaxInt64
			}
			if x.bounded() {
				x.hi = min(x.hi, y.hi-less)
				x.trim()
			}
		}
		if x.bounded() && y.bounded() {
			if x.lo+less > y.lo {
				y.lo, y.step = x.lo+less, 1
			}
		}
		return !x.bounded() || !y.bounded() || x.lo <= x.hi && y.lo <= y.hi
	}
	switch op {
	case asm.JEq:
		if a.isConstant() && b.isConstant() {
			return a.lo == b.lo
		}
		if a.bounded() && b.bounded() && (a.hi < b.lo || b.hi < a.lo) {
			return false
		}
		if b.isConstant() {
			a.lo, a.hi, a.wide, a.step = b.lo, b.hi, b.wide, b.step
		}
	case asm.JNE:
		if a.isConstant() && b.isConstant() {
			return a.lo != b.lo
		}
		if a.bounded() && b.isConstant() {
			switch b.lo {
			case a.lo:
				a.lo, a.step = a.lo+1, 1
			case a.hi:
				a.hi--
			}
			return a.lo <= a.hi
		}
	case asm.JGT:
		return below(b, a, 1)
	case asm.JGE:
		return below(b, a, 0)
	case asm.JLT:
		return below(a, b, 1)
	case asm.JLE:
		return below(a, b, 0)
	}
	return true
}

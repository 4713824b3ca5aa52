// SPDX-License-Identifier: Apache-2.0

package goabi

import "golang.org/x/arch/x86/x86asm"

// findAMD64 knows the three shapes of the check:
//
//	cmp rsp, [g+16]; jbe grow
//	lea tmp, [rsp-N]; cmp tmp, [g+16]; jbe grow
//	mov tmp, rsp; sub tmp, N; jb grow; cmp tmp, [g+16]; jbe grow
//
// with 24 in the place of 16 where a function runs on a system stack, and for functions of ABI0 behind an instruction that loads
// g.
func findAMD64(text []byte, low uint64) (StackCheck, bool) {
	d := decoder{text: text, low: low, pc: low}
	i, ok := d.next()
	if ok && i.Op == x86asm.MOV && isTLS(i) { // ABI0: mov g, fs:[-8]
		i, ok = d.next()
	}
	if !ok {
		return StackCheck{}, false
	}
	var (
		compared x86asm.Arg = x86asm.RSP
		grow     []uint64
	)
	switch {
	case i.Op == x86asm.LEA && isStack(i.Args[1]):
		compared = i.Args[0]
		i, ok = d.next()
	case i.Op == x86asm.MOV && i.Args[1] == x86asm.Arg(x86asm.RSP):
		compared = i.Args[0]
		if i, ok = d.next(); !ok || i.Op != x86asm.SUB || i.Args[0] != compared {
			return StackCheck{}, false
		}
		if i, ok = d.next(); !ok || i.Op != x86asm.JB {
			return StackCheck{}, false
		}
		grow = append(grow, d.target(i))
		i, ok = d.next()
	}
	if !ok || i.Op != x86asm.CMP || i.Args[0] != compared || !isGuard(i.Args[1]) {
		return StackCheck{}, false
	}
	if i, ok = d.next(); !ok || i.Op != x86asm.JBE {
		return StackCheck{}, false
	}
	check := StackCheck{End: d.pc}
	for _, target := range append(grow, d.target(i)) {
		if check.Call, check.Back, ok = growth(text, low, target); !ok {
			return StackCheck{}, false
		}
	}
	return check, true
}

// growth proves that the code at an address does nothing but move, call once, move and jump back to low.
func growth(text []byte, low, at uint64) (call, back uint64, ok bool) {
	d := decoder{text: text, low: low, pc: at}
	for range maxGrowth {
		pc := d.pc
		i, ok := d.next()
		switch {
		case !ok:
			return 0, 0, false
		case i.Op == x86asm.CALL && call == 0:
			if _, direct := i.Args[0].(x86asm.Rel); !direct {
				return 0, 0, false
			}
			call = d.target(i)
		case i.Op == x86asm.JMP:
			return call, pc, call != 0 && d.target(i) == low
		case !isMove(i.Op):
			return 0, 0, false
		}
	}
	return 0, 0, false
}

func isMove(o x86asm.Op) bool {
	switch o {
	case x86asm.MOV, x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD, x86asm.MOVSS, x86asm.MOVSD_XMM, x86asm.MOVUPS, x86asm.MOVAPS, x86asm.NOP:
		return true
	}
	return false
}

func isTLS(i x86asm.Inst) bool {
	m, ok := i.Args[1].(x86asm.Mem)
	return ok && m.Segment == x86asm.FS
}

func isStack(a x86asm.Arg) bool {
	m, ok := a.(x86asm.Mem)
	// x86asm does not extend the sign of a displacement of 32 bits.
	return ok && m.Base == x86asm.RSP && m.Index == 0 && int32(m.Disp) < 0
}

// isGuard recognises g.stackguard0 and g.stackguard1.
func isGuard(a x86asm.Arg) bool {
	m, ok := a.(x86asm.Mem)
	return ok && m.Index == 0 && m.Base != 0 && m.Base != x86asm.RSP && m.Base != x86asm.RIP && (m.Disp == 16 || m.Disp == 24)
}

// A decoder reads instructions of a function one after the other.
type decoder struct {
	text    []byte
	low, pc uint64
}

func (d *decoder) next() (x86asm.Inst, bool) {
	if d.pc < d.low || d.pc-d.low >= uint64(len(d.text)) {
		return x86asm.Inst{}, false
	}
	i, err := x86asm.Decode(d.text[d.pc-d.low:], 64)
	if err != nil || i.Op == 0 {
		return x86asm.Inst{}, false
	}
	d.pc += uint64(i.Len)
	return i, true
}

// target is where the branch that was just read leads; 0 if it is not said in the instruction.
func (d *decoder) target(i x86asm.Inst) uint64 {
	rel, ok := i.Args[0].(x86asm.Rel)
	if !ok {
		return 0
	}
	return d.pc + uint64(int64(rel))
}

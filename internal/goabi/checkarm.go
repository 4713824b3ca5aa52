// SPDX-License-Identifier: Apache-2.0

package goabi

import "github.com/keyhole-dev/keyhole/internal/a64"

// TemporaryARM64 is the register in which the assembler keeps what it needs inside of one instruction of its language
// (src/cmd/internal/obj/arm64/a.out.go: REGTMP).
const TemporaryARM64 = 27

// findARM64 knows the three shapes of the check:
//
//	ldr x16, [g, 16]; cmp sp, x16; bls grow
//	ldr x16, [g, 16]; sub x17, sp, N; cmp x17, x16; bls grow
//	ldr x16, [g, 16]; subs x17, sp, N; blo grow; cmp x17, x16; bls grow
//
// with 24 in the place of 16 where a function runs on a system stack. Where N fits no instruction, others put it into x27 before.
func findARM64(text []byte, low uint64) (StackCheck, bool) {
	const (
		ldrGuard0, ldrGuard1 = 0xf9400b90, 0xf9400f90 // ldr x16, [x28, 16] and 24
		cmpStack, cmpSum     = 0xeb3063ff, 0xeb10023f // cmp sp, x16 and cmp x17, x16
		blo, bls             = 0x54000003, 0x54000009
	)
	d := reader{text: text, low: low, pc: low}
	i, ok := d.next()
	if !ok || i != ldrGuard0 && i != ldrGuard1 {
		return StackCheck{}, false
	}
	compare := a64.Instruction(cmpStack)
	var grow []uint64
	i, ok = d.next()
	for ok && isConstant(i) {
		i, ok = d.next()
	}
	if ok && isBelowStack(i) {
		compare = cmpSum
		underflows := i&0x20000000 != 0 // subs
		i, ok = d.next()
		if underflows {
			to, isBranch := i.Target(d.pc - a64.Size)
			if !ok || i&0xff00001f != blo || !isBranch {
				return StackCheck{}, false
			}
			grow = append(grow, to)
			i, ok = d.next()
		}
	}
	if !ok || i != compare {
		return StackCheck{}, false
	}
	i, ok = d.next()
	to, isBranch := i.Target(d.pc - a64.Size)
	if !ok || i&0xff00001f != bls || !isBranch {
		return StackCheck{}, false
	}
	check := StackCheck{End: d.pc}
	for _, target := range append(grow, to) {
		if check.Call, check.Back, ok = growthARM64(text, low, target); !ok {
			return StackCheck{}, false
		}
	}
	return check, true
}

// isConstant recognises what puts a number into x27: movz, movn, movk, or orr of a bit mask.
func isConstant(i a64.Instruction) bool {
	return i.Field(0, 5) == TemporaryARM64 && (i.Field(23, 6) == 0x25 || i&0xff8003e0 == 0xb20003e0)
}

// isBelowStack recognises sub and subs of a number or of x27 from the stack pointer, into x17.
func isBelowStack(i a64.Instruction) bool {
	if i.Field(0, 5) != 17 || i.Field(5, 5) != a64.StackPointer {
		return false
	}
	return i&0xdf800000 == 0xd1000000 || i&0xdfe00000 == 0xcb200000 && i.Field(16, 5) == TemporaryARM64
}

// growthARM64 proves that the code at an address does nothing but move, call once, move and jump back to low.
func growthARM64(text []byte, low, at uint64) (call, back uint64, ok bool) {
	d := reader{text: text, low: low, pc: at}
	for range maxGrowth {
		pc := d.pc
		i, ok := d.next()
		to, direct := i.Target(pc)
		switch kind := i.Kind(); {
		case !ok:
			return 0, 0, false
		case kind == a64.Call && direct && call == 0:
			call = to
		case kind == a64.Jump && direct:
			return call, pc, call != 0 && to == low
		case !isMoveARM64(i):
			return 0, 0, false
		}
	}
	return 0, 0, false
}

// isMoveARM64 recognises a nop, a move between general registers, and loads and stores of the stack; where that is far, by an address in x27.
func isMoveARM64(i a64.Instruction) bool {
	const nop = 0xd503201f
	isAccess := i&0x3b000000 == 0x39000000 || i&0x3b200c00 == 0x38000000 || i&0x3b800000 == 0x29000000
	to, from, _, isSum := i.AddImmediate()
	switch {
	case i == nop, i&0xffe0ffe0 == 0xaa0003e0:
		return true
	case isSum:
		return to == TemporaryARM64 && from == a64.StackPointer
	}
	return isAccess && (i.Field(5, 5) == a64.StackPointer || i.Field(5, 5) == TemporaryARM64)
}

// A reader reads instructions of a function one after the other.
type reader struct {
	text    []byte
	low, pc uint64
}

func (d *reader) next() (a64.Instruction, bool) {
	if d.pc < d.low || d.pc-d.low >= uint64(len(d.text)) {
		return 0, false
	}
	i, ok := a64.At(d.text[d.pc-d.low:])
	d.pc += a64.Size
	return i, ok
}

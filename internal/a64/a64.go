// SPDX-License-Identifier: Apache-2.0

// Package a64 knows of the instructions of 64-bit Arm what a prober has to: where they lead, which of them read what lies beside
// the code, and which a kernel can run elsewhere than where they are. Encodings are those of the Arm Architecture Reference Manual (DDI 0487),
// C4.1. All instructions have 4 bytes and begin at a multiple of 4.
package a64

import "encoding/binary"

// Size is that of each instruction.
const Size = 4

// Breakpoint is what the kernel writes over a probed instruction: BRK 5 (arch/arm64/include/asm/brk-imm.h, UPROBES_BRK_IMM), in the bytes of memory.
var Breakpoint = [Size]byte{0xa0, 0x00, 0x20, 0xd4}

// Registers that have a part in calls. Their numbers are DWARF's too (DWARF for the Arm 64-bit architecture, 4.1).
const (
	FramePointer = 29
	Link         = 30
	StackPointer = 31
)

// An Instruction is one, as it is in memory.
type Instruction uint32

// At reads the instruction at the begin of some code.
func At(b []byte) (Instruction, bool) {
	if len(b) < Size {
		return 0, false
	}
	return Instruction(binary.LittleEndian.Uint32(b)), true
}

// A Kind says what an instruction does to the order in which instructions run.
type Kind int

// The kinds of instruction.
const (
	Straight Kind = iota // goes on behind itself
	Call
	Jump
	Conditional // a jump, or on behind itself
	Return
	Trap        // an exception that nobody returns from to behind it
	Unallocated // no instruction of the manual's
)

func (i Instruction) is(mask, value uint32) bool { return uint32(i)&mask == value }

// Field returns the n bits from the bit at.
func (i Instruction) Field(at, n int) int { return int(uint32(i) >> at & (1<<n - 1)) }

// signed is Field as a signed number.
func (i Instruction) signed(at, n int) int64 { return int64(int32(uint32(i)<<(32-at-n)) >> (32 - n)) }

// Kind is what the instruction does.
func (i Instruction) Kind() Kind {
	switch {
	case i.is(0xfc000000, 0x14000000): // B
		return Jump
	case i.is(0xfc000000, 0x94000000): // BL
		return Call
	case i.is(0xff00001f, 0x5500001f), i.is(0xff00001f, 0x5520001f): // RETAASPPC, RETABSPPC
		return Return
	case i.is(0xff000000, 0x54000000), i.is(0x7c000000, 0x34000000), i.is(0x7e000000, 0x74000000): // B.cond, BC.cond, CBZ, TBZ, CB
		return Conditional
	case i.is(0xfe000000, 0xd6000000):
		switch i.Field(21, 4) &^ 8 { // the highest bit tells apart those that authenticate with a second register
		case 0: // BR
			return Jump
		case 1: // BLR
			return Call
		case 2: // RET
			return Return
		}
		return Trap // ERET, DRPS
	case i.is(0xffe0001f, 0xd4200000), i.is(0xffe0001f, 0xd4400000), i.is(0xffff0000, 0): // BRK, HLT, UDF
		return Trap
	}
	if group := i.Field(25, 4); group == 0 && !i.is(0x80000000, 0x80000000) || group == 1 || group == 3 { // 0 with the highest bit is SME
		return Unallocated
	}
	return Straight
}

// Target is where a jump or call leads that says it itself. Pc is the instruction's address.
func (i Instruction) Target(pc uint64) (to uint64, ok bool) {
	switch {
	case i.is(0x7c000000, 0x14000000): // B, BL
		return pc + uint64(4*i.signed(0, 26)), true
	case i.is(0xff000000, 0x54000000), i.is(0x7e000000, 0x34000000): // B.cond, BC.cond, CBZ
		return pc + uint64(4*i.signed(5, 19)), true
	case i.is(0x7e000000, 0x36000000): // TBZ
		return pc + uint64(4*i.signed(5, 14)), true
	case i.is(0x7e000000, 0x74000000): // CB
		return pc + uint64(4*i.signed(5, 9)), true
	}
	return 0, false
}

// Literal is what the instruction loads from beside the code: n bytes, 0 where it only hints that it will.
func (i Instruction) Literal(pc uint64) (address uint64, n int, ok bool) {
	if !i.is(0x3b000000, 0x18000000) {
		return 0, 0, false
	}
	size := [2][4]int{{4, 8, 4, 0}, {4, 8, 16, 0}} // general, vector
	return pc + uint64(4*i.signed(5, 19)), size[i.Field(26, 1)][i.Field(30, 2)], true
}

// Page is what ADRP puts into a register.
func (i Instruction) Page(pc uint64) (register int, page uint64, ok bool) {
	return i.Field(0, 5), pc&^0xfff + uint64(i.adr())<<12, i.is(0x9f000000, 0x90000000)
}

// Label is what ADR puts into a register.
func (i Instruction) Label(pc uint64) (register int, address uint64, ok bool) {
	return i.Field(0, 5), pc + uint64(i.adr()), i.is(0x9f000000, 0x10000000)
}

func (i Instruction) adr() int64 { return i.signed(5, 19)<<2 | int64(i.Field(29, 2)) }

// AddImmediate is ADD or SUB of a number, in 64 bits and without flags: to = from + n.
func (i Instruction) AddImmediate() (to, from int, n int64, ok bool) {
	n = int64(i.Field(10, 12)) << (12 * i.Field(22, 1))
	if i.is(0x40000000, 0x40000000) {
		n = -n
	}
	return i.Field(0, 5), i.Field(5, 5), n, i.is(0xbf800000, 0x91000000)
}

// IsExclusive recognises loads and stores of the kind that a sequence is made of which no exception may interrupt.
func (i Instruction) IsExclusive() bool { return i.is(0x3f800000, 0x08000000) }

// IsExclusiveStore recognises the end of such a sequence.
func (i Instruction) IsExclusiveStore() bool { return i.is(0x3fc00000, 0x08000000) }

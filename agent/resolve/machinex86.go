// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"github.com/keyhole-dev/keyhole/internal/goabi"
)

// amd64 has DWARF's numbers from the System V ABI, AMD64 supplement, figure 3.36: 0 to 15 are the general registers, 17 to 32 XMM0 to XMM15.
var amd64 = machine{
	arch: "amd64", stackPointer: 7, framePointer: 6, returnAddress: 8, firstVector: 17,
	relative: 8, // R_X86_64_RELATIVE
	golang:   &goabi.AMD64, convention: systemV{},
	decode: instructionX86, rewrittenNOP: rewrittenNOPX86, safe: safeX86, references: referencesX86, branches: everyByte,
	data:         func(*code) (map[uint64]bool, error) { return nil, nil },
	changesStack: changesStackX86,
	prologue:     readPrologueX86,
}

func instructionX86(b []byte, pc uint64) (instruction, bool) {
	if e, ok := encodeX86(b); ok && e.straight {
		return instruction{length: e.length}, true
	}
	x, ok := decodeX86(b)
	if !ok {
		return instruction{}, false
	}
	i := instruction{length: x.Len}
	i.to, i.direct = branchTarget(x, pc)
	switch x.Op {
	case x86asm.CALL:
		i.flow = flowCall
	case x86asm.JMP:
		i.flow = flowJump
	case x86asm.RET:
		i.flow = flowReturn
	case x86asm.LRET, x86asm.LCALL, x86asm.IRET, x86asm.IRETD, x86asm.IRETQ, x86asm.LJMP:
		i.flow = flowUnusual
	default:
		if i.direct {
			i.flow = flowConditional
		}
	}
	return i, true
}

// decodeX86 reads one instruction that is none of AVX, where x86asm and its length by encodeX86 agree: x86asm is wrong about the
// length of some. It answers a prefix alone, without an operation, where it does not know what follows.
func decodeX86(b []byte) (x86asm.Inst, bool) {
	e, ok := encodeX86(b)
	if !ok || e.vector {
		return x86asm.Inst{}, false
	}
	if len(b) >= 4 && b[0] == 0xf3 && b[1] == 0x0f && b[2] == 0x1e && (b[3] == 0xfa || b[3] == 0xfb) {
		return x86asm.Inst{Op: x86asm.NOP, Len: 4, Mode: 64}, true // endbr64, endbr32: unknown to x86asm
	}
	i, err := x86asm.Decode(b, 64)
	return i, err == nil && i.Op != 0 && i.Len == e.length
}

// branchTarget is where a branch or call leads whose instruction says it.
func branchTarget(i x86asm.Inst, pc uint64) (to uint64, ok bool) {
	rel, ok := i.Args[0].(x86asm.Rel)
	return pc + uint64(i.Len) + uint64(int64(rel)), ok
}

// referencesX86 notes the address in an instruction's operand.
func referencesX86(r *reach, b []byte, pc uint64) {
	e, ok := encodeX86(b)
	switch {
	case !ok || !e.memory:
	case e.relative:
		r.tables = append(r.tables, pc+uint64(e.length)+uint64(int64(e.displacement)))
	case e.displacement > 0xfff: // an absolute address; what is less is a field of something
		r.tables = append(r.tables, uint64(e.displacement))
	}
}

// displacement is what a memory operand adds. x86asm does not extend the sign of one of 32 bits, and x86-64 has no longer
// ones (but in moves of the accumulator, which no compiler emits).
func displacement(m x86asm.Mem) int64 { return int64(int32(m.Disp)) }

// everyByte looks at every encoding of a branch at every byte, so that no branch is missed wherever instructions begin. It can
// see branches that are none: then a site is refused that would have been safe.
func everyByte(r *reach, s span) error {
	for at := range s.text {
		b := s.text[at:]
		pc := s.address + uint64(at)
		var length int
		switch {
		case len(b) >= 2 && (b[0]&0xf0 == 0x70 || b[0] == 0xeb || b[0]&0xfc == 0xe0): // Jcc, JMP, LOOP and JRCXZ, 8 bits
			length = 2
		case len(b) >= 5 && b[0] == 0xe9: // JMP, 32 bits
			length = 5
		case len(b) >= 6 && (b[0] == 0x0f && b[1]&0xf0 == 0x80 || b[0] == 0xc7 && b[1] == 0xf8): // Jcc, XBEGIN, 32 bits
			length = 6
		case len(b) >= 2 && b[0] == 0xff && (b[1]>>3&7 == 4 || b[1]>>3&7 == 5): // JMP through a register or memory
			r.indirect = append(r.indirect, pc)
			continue
		default:
			continue
		}
		var to uint64
		if length == 2 {
			to = pc + 2 + uint64(int64(int8(b[1])))
		} else {
			to = pc + uint64(length) + uint64(int64(int32(binary.LittleEndian.Uint32(b[length-4:]))))
		}
		if err := r.branch(pc, to); err != nil {
			return fmt.Errorf("%w (or bytes behind an instruction that cannot be decoded for sure look like it)", err)
		}
	}
	return nil
}

// rewrittenNOPX86 recognises the NOPs that kernels from 6.18 replace by a call, which overwrites what leaf functions keep
// below the stack pointer.
func rewrittenNOPX86(b []byte) int {
	if i, ok := decodeX86(b); ok && i.Op == x86asm.NOP && (i.Len == 5 || i.Len == 10) {
		return i.Len
	}
	return 0
}

// safeX86 says why a breakpoint on an instruction is refused. The kernel runs the instruction elsewhere or emulates it
// (arch/x86/kernel/uprobes.c), which it does for nearly all; here are those that functions begin with.
func safeX86(raw []byte) error {
	i, ok := decodeX86(raw)
	if raw[0] == 0xcc {
		return errors.New("a breakpoint is in the file itself at the place for the probe")
	}
	for _, b := range raw {
		switch b {
		case 0x26, 0x2e, 0x36, 0x3e, 0xf0:
			return fmt.Errorf("the instruction at the place for the probe (% x) has a prefix that the kernel refuses", raw)
		case 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3:
			continue
		}
		break
	}
	if !ok || !isOrdinary[i.Op] {
		return fmt.Errorf("the instruction at the place for the probe (% x, %v) is none of those known to be safe", raw, i.Op)
	}
	return nil
}

// isOrdinary are the instructions that a probe may sit on.
var isOrdinary = func() map[x86asm.Op]bool {
	m := make(map[x86asm.Op]bool)
	for _, o := range []x86asm.Op{
		x86asm.ADD, x86asm.ADC, x86asm.SUB, x86asm.SBB, x86asm.AND, x86asm.OR, x86asm.XOR, x86asm.NOT, x86asm.NEG, x86asm.INC, x86asm.DEC,
		x86asm.CMP, x86asm.TEST, x86asm.BT, x86asm.BSF, x86asm.BSR, x86asm.BSWAP, x86asm.TZCNT, x86asm.LZCNT, x86asm.POPCNT,
		x86asm.SHL, x86asm.SHR, x86asm.SAR, x86asm.ROL, x86asm.ROR, x86asm.SHLD, x86asm.SHRD, x86asm.IMUL, x86asm.MUL,
		x86asm.MOV, x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD, x86asm.LEA, x86asm.PUSH, x86asm.POP, x86asm.LEAVE, x86asm.XCHG,
		x86asm.CBW, x86asm.CWDE, x86asm.CDQE, x86asm.CWD, x86asm.CDQ, x86asm.CQO, x86asm.NOP,
		x86asm.CMOVA, x86asm.CMOVAE, x86asm.CMOVB, x86asm.CMOVBE, x86asm.CMOVE, x86asm.CMOVG, x86asm.CMOVGE, x86asm.CMOVL, x86asm.CMOVLE,
		x86asm.CMOVNE, x86asm.CMOVNS, x86asm.CMOVS, x86asm.SETA, x86asm.SETAE, x86asm.SETB, x86asm.SETBE, x86asm.SETE, x86asm.SETG, x86asm.SETGE,
		x86asm.SETL, x86asm.SETLE, x86asm.SETNE, x86asm.SETNS, x86asm.SETS,
		x86asm.CALL, x86asm.RET, x86asm.JMP, x86asm.JA, x86asm.JAE, x86asm.JB, x86asm.JBE, x86asm.JE, x86asm.JG, x86asm.JGE, x86asm.JL, x86asm.JLE,
		x86asm.JNE, x86asm.JNO, x86asm.JNP, x86asm.JNS, x86asm.JO, x86asm.JP, x86asm.JS,
		x86asm.MOVAPS, x86asm.MOVUPS, x86asm.MOVAPD, x86asm.MOVUPD, x86asm.MOVDQA, x86asm.MOVDQU, x86asm.MOVD, x86asm.MOVQ, x86asm.MOVSS, x86asm.MOVSD_XMM,
		x86asm.XORPS, x86asm.XORPD, x86asm.PXOR, x86asm.PAND, x86asm.ANDPS, x86asm.ANDPD, x86asm.ADDSD, x86asm.ADDSS, x86asm.SUBSD, x86asm.SUBSS,
		x86asm.MULSD, x86asm.MULSS, x86asm.DIVSD, x86asm.DIVSS, x86asm.UCOMISD, x86asm.UCOMISS, x86asm.COMISD, x86asm.COMISS,
		x86asm.CVTSI2SD, x86asm.CVTSI2SS, x86asm.CVTTSD2SI, x86asm.CVTTSS2SI, x86asm.CVTSS2SD, x86asm.CVTSD2SS, x86asm.SQRTSD, x86asm.SQRTSS,
		x86asm.PUNPCKLQDQ, x86asm.MOVHPS, x86asm.MOVLPS,
	} {
		m[o] = true
	}
	return m
}()

// changesStackX86 finds the stack pointer loaded from memory that is not of the frame, or from a register that a caller may have passed it in;
// and system calls, which may be sigaltstack.
func changesStackX86(b []byte) (changes bool, length int) {
	e, ok := encodeX86(b)
	if !ok {
		return false, 0
	}
	i, ok := decodeX86(b) // one of AVX that it does not know changes no stack
	return ok && takesStack(i), e.length
}

func takesStack(i x86asm.Inst) bool {
	switch i.Op {
	case x86asm.SYSCALL, x86asm.SYSENTER:
		return true
	case x86asm.INT:
		return i.Args[0] != x86asm.Imm(3) // which a debugger's is
	case x86asm.XCHG:
		return i.Args[0] == x86asm.RSP || i.Args[1] == x86asm.RSP
	}
	if i.Args[0] != x86asm.RSP {
		return false
	}
	switch from := i.Args[1].(type) {
	case x86asm.Mem:
		// LEA of the frame pointer, or of r10 or r13 in a frame that was aligned anew, is how frames end.
		if i.Op == x86asm.LEA {
			return from.Base != x86asm.RSP && from.Base != x86asm.RBP && from.Base != x86asm.R10 && from.Base != x86asm.R13
		}
		return i.Op == x86asm.MOV && from.Base != x86asm.RBP && from.Base != x86asm.RSP
	case x86asm.Reg:
		// An array of variable length ends by a copy of the stack pointer, in a register that is kept across calls.
		return i.Op == x86asm.MOV && !slices.Contains([]x86asm.Reg{x86asm.RBP, x86asm.RBX, x86asm.R12, x86asm.R13, x86asm.R14, x86asm.R15}, from)
	}
	return i.Op == x86asm.POP
}

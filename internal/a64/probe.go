// SPDX-License-Identifier: Apache-2.0

package a64

import "errors"

// hints are those of the instructions that do nothing on an older processor which the kernel runs elsewhere
// (aarch64_insn_is_steppable_hint) and that functions begin with: by CRm and op2.
var hints = map[int]bool{
	0:  true,                               // NOP
	24: true, 25: true, 26: true, 27: true, // PACIAZ, PACIASP, PACIBZ, PACIBSP
	32: true, 34: true, 36: true, 38: true, // BTI
}

// Probeable says why a breakpoint on this instruction is refused. The kernel runs the instruction elsewhere, or does itself what it would have
// done (arch/arm64/kernel/probes/decode-insn.c); it refuses some that cannot be had either way, and takes others wrongly for
// such as can: all those that depend on their address, and all that are not known to be safe, are refused here.
func (i Instruction) Probeable() error {
	switch i.Kind() {
	case Unallocated:
		return errors.New("it is no instruction that is known")
	case Trap:
		return errors.New("it is one that ends in an exception")
	case Call, Jump, Return, Conditional:
		return i.probeableBranch()
	}
	switch {
	case i.is(0x3b000000, 0x18000000):
		return errors.New("it loads what lies beside the code, which the kernel cannot do in its place")
	case i.IsExclusive():
		return errors.New("it is part of an exclusive access, which a breakpoint interrupts for ever")
	case i.is(0xfffff01f, 0xd503201f):
		if !hints[i.Field(5, 7)] {
			return errors.New("it is a hint that the kernel does not run elsewhere")
		}
		return nil
	case i.is(0xfe000000, 0xd4000000):
		if i.is(0xfff00000, 0xd5300000) && !i.is(0xffffffe0, 0xd53b4220) { // MRS, but of DAIF
			return nil
		}
		return errors.New("it changes the state of the processor, or calls the kernel")
	case i.is(0xffff8000, 0xdac18000), i.is(0xff80001f, 0xf380001f): // PACIASPPC and its like
		return errors.New("it signs or proves an address together with its own, which the kernel cannot do in its place")
	case i.isMemoryAccess() && !i.isOrdinaryAccess():
		return errors.New("it is none of the loads and stores known to be safe")
	}
	if i.Field(25, 4) <= 3 {
		return errors.New("it is none of the instructions known to be safe") // SVE, SME
	}
	return nil
}

// probeableBranch: those that the kernel does in their place.
func (i Instruction) probeableBranch() error {
	plain := i.is(0x7c000000, 0x14000000) || i.is(0xff000010, 0x54000000) || i.is(0x7c000000, 0x34000000) ||
		i.is(0xfffffc1f, 0xd61f0000) || i.is(0xfffffc1f, 0xd63f0000) || i.is(0xfffffc1f, 0xd65f0000)
	if !plain {
		return errors.New("it is a branch that the kernel does not do in its place, such as one that authenticates an address")
	}
	return nil
}

func (i Instruction) isMemoryAccess() bool { return i.is(0x0a000000, 0x08000000) }

// isOrdinaryAccess recognises the loads and stores that are done in one step.
func (i Instruction) isOrdinaryAccess() bool {
	switch {
	case i.is(0x3a000000, 0x28000000): // of pairs
		return true
	case i.is(0x3b000000, 0x39000000): // with an unsigned offset
		return true
	case i.is(0x3b200000, 0x38000000): // with a signed offset
		return true
	case i.is(0x3b200c00, 0x38200800): // with a register for an offset
		return true
	case i.is(0x3f200c00, 0x38200000): // read, change and write at once
		return true
	case i.is(0x3f800000, 0x08800000): // in order with others; compare and swap
		return true
	case i.is(0xbe000000, 0x0c000000): // of several vectors
		return true
	}
	return false
}

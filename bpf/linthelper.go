// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// helper checks what the kernel is called with, and notes what it changes.
func (l *linter) helper(i *asm.Instruction, s *state) error {
	r := s.regs
	result := unknown(0)
	switch f := asm.BuiltinFunc(i.Constant); f {
	case asm.FnMapLookupElem:
		if r[1].kind != mapItself {
			return errors.New("looks into what is no map")
		}
		result = pointer(mapValue, r[1].name())
		result.null = true
	case asm.FnMapDeleteElem:
		if r[1].kind != mapItself || r[1].name() != "kh_calls" && r[1].name() != "kh_tops" {
			return fmt.Errorf("deletes from the map %s", r[1].name())
		}
	case asm.FnMapUpdateElem:
		if err := l.update(s, r); err != nil {
			return err
		}
	case asm.FnProbeReadUser, asm.FnProbeReadUserStr, asm.FnProbeReadKernel, asm.FnProbeReadKernelStr:
		if err := l.read(s, r, f == asm.FnProbeReadUser); err != nil {
			return err
		}
		if r[2].bounded() {
			result.most = r[2].hi
		}
	case asm.FnRingbufOutput:
		data, size, flags := r[2], r[3], r[4]
		switch out := l.layout.out; {
		case r[1].kind != mapItself || r[1].name() != "kh_ring":
			return fmt.Errorf("a record goes to %s", r[1].name())
		case data.kind != mapValue || data.name() != scratchMap || data.lo != out.from || data.hi != out.from || s.slot&held == 0:
			return errors.New("what leaves is not the output part of a claimed slot")
		case !size.bounded() || size.hi > l.layout.mostOut:
			return fmt.Errorf("a record of up to %d bytes; want at most %d", size.hi, l.layout.mostOut)
		case !flags.bounded() || flags.hi > 2:
			return errors.New("unknown flags")
		case (size.taint|flags.taint)&fromInput != 0:
			return errors.New("its length or flags come from the input")
		}
	case asm.FnRingbufQuery:
		if r[1].kind != mapItself || r[1].name() != "kh_ring" {
			return fmt.Errorf("asks about %s", r[1].name())
		}
	}
	for n := asm.R1; n <= asm.R5; n++ {
		s.regs[n] = value{kind: nothing}
	}
	s.regs[asm.R0], s.pace = result, pace{}
	return nil
}

// read checks a read of memory that is not the program's, and notes what it fills.
func (l *linter) read(s *state, r [11]value, plain bool) error {
	to, size := r[1], r[2]
	if !size.bounded() || size.hi > l.layout.out.to-l.layout.out.from {
		return fmt.Errorf("reads up to %d bytes", size.hi)
	}
	if size.taint&fromInput != 0 {
		return errors.New("reads as many bytes as the input says")
	}
	zeroes := plain && r[3].isConstant() && r[3].lo == -1
	switch {
	case to.kind == stack:
		first := to.lo + 512
		if size.most != 0 { // an op's
			size.hi = min(size.hi, size.most)
		}
		if to.lo != to.hi || first < 0 || first+size.hi > 512 {
			return errors.New("reads to a place of the stack that is not known")
		}
		s.forget(s.own(to.at), first, max(size.hi, 1), fromTarget)
		return nil
	case to.kind != mapValue || to.name() != scratchMap:
		return fmt.Errorf("reads to what is neither scratch nor stack (%s)", to.name())
	case s.slot&held == 0:
		return errors.New("reads to a slot that is not claimed")
	}
	if zeroes {
		for i := range l.layout.parts {
			p := &l.layout.parts[i]
			if p.clean == 0 || to.lo != p.from || to.hi != p.from || size.hi > p.to-p.from {
				continue
			}
			if p.counted == untagged && size.lo == p.to-p.from || p.counted != untagged && size.tag == p.counted {
				s.slot |= p.clean
				return nil
			}
		}
		return errors.New("zeroes what is no part of a slot, or not as much as was used")
	}
	if size.hi > l.layout.most+2 {
		return fmt.Errorf("reads up to %d bytes; want at most %d", size.hi, l.layout.most+2)
	}
	in, out := l.layout.in, l.layout.out
	if to.lo < in.from || to.lo == in.from && to.hi == in.from && size.hi > in.to-in.from || to.hi > out.to-size.hi {
		return fmt.Errorf("reads %d bytes to [%d, %d] of a slot, beyond where values are", size.hi, to.lo, to.hi)
	}
	if to.lo < out.from && to.lo != in.from || to.lo == in.from && to.hi != in.from && to.hi < out.from {
		return fmt.Errorf("reads to [%d, %d] of a slot, where no value begins", to.lo, to.hi)
	}
	s.slot &^= cleanIn | cleanOut
	return nil
}

// update checks what is put into a map.
func (l *linter) update(s *state, r [11]value) error {
	m := l.maps[r[1].name()]
	if r[1].kind != mapItself || m == nil || r[1].name() == scratchMap {
		return fmt.Errorf("changes the map %s", r[1].name())
	}
	for what, a := range map[string]struct {
		from value
		n    uint32
	}{"key": {r[2], m.KeySize}, "value": {r[3], m.ValueSize}} {
		taint, n := uint8(0), int64(a.n)
		switch from := a.from; {
		case from.kind == stack && from.lo == from.hi && from.lo >= -512 && from.lo+n <= 0:
			for b := from.lo + 512; b < from.lo+512+n; b++ {
				taint |= s.frames[from.at][b/4].taint
			}
		case from.kind == mapValue && from.name() == scratchMap && from.lo == from.hi && from.lo >= l.layout.waiting.from && from.lo+n <= l.layout.out.to:
			taint = fromTarget
		default:
			return fmt.Errorf("the %s for the map %s is from elsewhere than the stack or the record", what, r[1].name())
		}
		if err := l.mayHold(r[1].name(), taint); err != nil {
			return err
		}
	}
	if flags := r[4]; !flags.isConstant() || flags.lo < 0 || flags.lo > 1 {
		return errors.New("unknown flags")
	}
	return nil
}

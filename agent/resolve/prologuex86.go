// SPDX-License-Identifier: Apache-2.0

package resolve

import "golang.org/x/arch/x86/x86asm"

// readPrologueX86 runs the code of a function symbolically up to its first branch or anything it does not know.
func readPrologueX86(m *machine, text []byte) *prologue {
	p := newPrologue(m)
	for range maxPrologue {
		i, ok := decodeX86(text)
		if !ok || !p.runX86(i) {
			return p
		}
		text = text[i.Len:]
	}
	return p
}

// runX86 reports false where it stops to follow.
func (p *prologue) runX86(i x86asm.Inst) bool {
	sp := &p.registers[p.machine.stackPointer]
	switch i.Op {
	case x86asm.NOP:
	case x86asm.PUSH:
		r, size, ok := general(i.Args[0])
		if !ok || size != 8 || !sp.address {
			return false
		}
		sp.offset -= 8
		p.store(sp.offset, 8, p.registers[r])
	case x86asm.SUB, x86asm.ADD:
		return p.add(i)
	case x86asm.LEA:
		r, size, ok := general(i.Args[0])
		m, _ := i.Args[1].(x86asm.Mem)
		if !ok {
			return false
		}
		at, known := p.addressX86(m)
		p.set(r, content{address: known && size == 8, offset: at})
	case x86asm.MOV:
		return p.move(i)
	case x86asm.MOVSS, x86asm.MOVSD_XMM, x86asm.MOVAPS, x86asm.MOVUPS, x86asm.MOVAPD, x86asm.MOVUPD, x86asm.MOVQ, x86asm.MOVD, x86asm.MOVDQA, x86asm.MOVDQU:
		return p.moveVector(i)
	case x86asm.XOR, x86asm.AND, x86asm.OR, x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD:
		// What they leave in a register is nothing that was passed; in memory they are not followed.
		r, _, ok := general(i.Args[0])
		if !ok {
			return false
		}
		p.set(r, content{})
	case x86asm.TEST, x86asm.CMP:
	default:
		return false
	}
	return true
}

func (p *prologue) add(i x86asm.Inst) bool {
	r, size, ok := general(i.Args[0])
	if !ok {
		return false
	}
	n, isNumber := i.Args[1].(x86asm.Imm)
	c := p.registers[r]
	if !isNumber || size != 8 || !c.address {
		p.set(r, content{})
		return true
	}
	if i.Op == x86asm.SUB {
		n = -n
	}
	c.offset += int64(n)
	p.set(r, c)
	return true
}

func (p *prologue) move(i x86asm.Inst) bool {
	if m, ok := i.Args[0].(x86asm.Mem); ok {
		at, known := p.addressX86(m)
		if !known {
			return true // not into the frame, where nobody has an address yet
		}
		if r, size, ok := general(i.Args[1]); ok {
			p.store(at, size, p.registers[r])
		} else {
			p.store(at, max(i.MemBytes, 1), content{})
		}
		return true
	}
	r, size, ok := general(i.Args[0])
	if !ok {
		return false
	}
	from, fromSize, ok := general(i.Args[1])
	if !ok || fromSize != size || size < 4 {
		p.set(r, content{})
		return true
	}
	c := p.registers[from]
	if size == 4 {
		c.address = false
		c.bytes = min(c.bytes, 4)
	}
	p.set(r, c)
	return true
}

func (p *prologue) moveVector(i x86asm.Inst) bool {
	if m, ok := i.Args[0].(x86asm.Mem); ok {
		if at, known := p.addressX86(m); known {
			for n := range int64(max(i.MemBytes, 1)) {
				p.first(at+n, source{vector: true})
			}
		}
		return true
	}
	if r, _, ok := general(i.Args[0]); ok {
		p.set(r, content{})
	}
	return true
}

func (p *prologue) addressX86(m x86asm.Mem) (int64, bool) {
	if m.Index != 0 || m.Segment != 0 {
		return 0, false
	}
	r, size, ok := general(m.Base)
	if !ok || size != 8 || !p.registers[r].address {
		return 0, false
	}
	return p.registers[r].offset + displacement(m), true
}

// general is a general register: its DWARF number and the bytes of it that the operand names.
func general(a x86asm.Arg) (number, size int, ok bool) {
	r, ok := a.(x86asm.Reg)
	if !ok {
		return 0, 0, false
	}
	// x86asm's order is ax, cx, dx, bx, sp, bp, si, di; DWARF's is ax, dx, cx, bx, si, di, bp, sp.
	order := [16]int{0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15}
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		return order[r-x86asm.RAX], 8, true
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return order[r-x86asm.EAX], 4, true
	case r >= x86asm.AX && r <= x86asm.R15W:
		return order[r-x86asm.AX], 2, true
	case r >= x86asm.AL && r <= x86asm.BL:
		return order[r-x86asm.AL], 1, true
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return order[r-x86asm.SPB+4], 1, true
	}
	return 0, 0, false
}

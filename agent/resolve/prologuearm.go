// SPDX-License-Identifier: Apache-2.0

package resolve

import "github.com/keyhole-dev/keyhole/internal/a64"

// readPrologueARM64 runs the code of a function symbolically up to its first branch or anything it does not know.
func readPrologueARM64(m *machine, text []byte) *prologue {
	p := newPrologue(m)
	for range maxPrologue {
		i, ok := a64.At(text)
		if !ok || !p.runARM64(i) {
			return p
		}
		text = text[a64.Size:]
	}
	return p
}

// runARM64 reports false where it stops to follow.
func (p *prologue) runARM64(i a64.Instruction) bool {
	const zero = 31 // the same number as the stack pointer's, in other instructions
	if i.Kind() != a64.Straight {
		return false
	}
	to := i.Field(0, 5)
	switch {
	case i&0xfffff01f == 0xd503201f: // a hint
		p.set(a64.Link, content{}) // which may sign it
	case i&0x0a000000 == 0x08000000:
		return p.access(i)
	case i&0xffe0ffe0 == 0xaa0003e0, i&0xffe0ffe0 == 0x2a0003e0: // mov
		c := p.registers[i.Field(16, 5)]
		if i.Field(16, 5) == zero {
			c = content{}
		}
		if i.Field(31, 1) == 0 {
			c.address, c.bytes = false, min(c.bytes, 4)
		}
		if to != zero {
			p.set(to, c)
		}
	case i&0x1f800000 == 0x11000000: // add and sub of a number
		if _, from, n, ok := i.AddImmediate(); ok && p.registers[from].address {
			p.set(to, content{address: true, offset: p.registers[from].offset + n})
		} else if i.Field(29, 1) == 0 {
			p.set(to, content{})
		} else if to != zero {
			p.set(to, content{})
		}
	case i&0x1c000000 == 0x10000000, i&0x0e000000 == 0x0a000000: // computing with numbers and registers
		if to == a64.StackPointer && (i&0x1f800000 == 0x12000000 || i&0x1fe00000 == 0x0b200000) {
			return false // these can change the stack pointer
		}
		if to != zero {
			p.set(to, content{})
		}
	default:
		return false
	}
	return true
}

// access follows the loads and stores of one register or of a pair.
func (p *prologue) access(i a64.Instruction) bool {
	const (
		post = 1
		pre  = 3
	)
	base, first, vector := i.Field(5, 5), i.Field(0, 5), i.Field(26, 1) == 1
	size := 1 << i.Field(30, 2)
	if vector && i.Field(23, 1) == 1 {
		size = 16
	}
	var at int64
	load, mode := i.Field(22, 1) == 1 || !vector && i.Field(22, 2) != 0, 0
	registers := []int{first}
	switch {
	case i&0x3b000000 == 0x39000000: // with an unsigned offset
		at = int64(i.Field(10, 12) * size)
	case i&0x3b200000 == 0x38000000: // with a signed offset
		at, mode = int64(int32(i<<11)>>23), i.Field(10, 2)
	case i&0x3a000000 == 0x28000000: // of a pair
		size, mode, load = 4<<i.Field(31, 1), i.Field(23, 2), i.Field(22, 1) == 1
		if vector {
			size = 4 << i.Field(30, 2)
		}
		at = int64(int32(i<<10)>>25) * int64(size)
		registers = append(registers, i.Field(10, 5))
	default:
		return false
	}
	address := p.registers[base]
	if mode == pre || mode == post {
		moved := content{address: address.address, offset: address.offset + at}
		p.set(base, moved)
		if mode == pre {
			address = moved
		}
		at = 0
	}
	for n, r := range registers {
		p.moved(r, address, at+int64(n*size), size, load, vector)
	}
	return true
}

// moved notes that a register of so many bytes was loaded, or stored at an offset from an address.
func (p *prologue) moved(r int, address content, at int64, size int, load, vector bool) {
	const zero = 31
	switch {
	case load && (vector || r == zero):
	case load:
		p.set(r, content{})
	case !address.address: // not into the frame, where nobody has an address yet
	case vector:
		for n := range int64(size) {
			p.first(address.offset+at+n, source{vector: true})
		}
	case r == zero:
		p.store(address.offset+at, size, content{})
	default:
		p.store(address.offset+at, size, p.registers[r])
	}
}

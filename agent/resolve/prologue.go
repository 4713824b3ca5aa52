// SPDX-License-Identifier: Apache-2.0

package resolve

import "github.com/keyhole-dev/keyhole/internal/target"

// maxPrologue bounds the instructions in which a function stores its arguments.
const maxPrologue = 96

// A prologue is what the first instructions of a function do, as far as they run in a straight line: which register's value, as it was
// at the call, is the first to be stored at each place of the frame. Without optimisation a compiler names such a place as an
// argument's only one, although at the first instruction nothing is there yet; the register is where it is then.
type prologue struct {
	slots map[int64]source // by offset from the canonical frame address, one byte each
	frame int64            // what the frame pointer was made, from there
	// hasFrame says that the frame pointer was set up.
	hasFrame bool

	machine   *machine
	registers [32]content
}

// A source is a byte of a register at the call; vector for those that a probe cannot see, unknown for any other value.
type source struct {
	register, index int
	vector, unknown bool
}

// A content is what a general register holds: nothing known, the low bytes of what a register held at the call, or
// an address in the frame.
type content struct {
	register int // at the call
	bytes    int // of it that are still there, the lowest; 0: none
	address  bool
	offset   int64 // from the canonical frame address
}

// newPrologue is the state at a call.
func newPrologue(m *machine) *prologue {
	p := &prologue{machine: m, slots: make(map[int64]source)}
	for r := range p.registers {
		p.registers[r] = content{register: r, bytes: 8}
	}
	p.registers[m.stackPointer] = content{address: true, offset: -m.returnAddress} // from the canonical frame address
	return p
}

func (p *prologue) set(r int, c content) {
	if r == p.machine.framePointer && c.address && !p.hasFrame {
		p.frame, p.hasFrame = c.offset, true
	}
	p.registers[r] = c
}

func (p *prologue) store(at int64, size int, c content) {
	for n := range size {
		if c.address || n >= c.bytes {
			p.first(at+int64(n), source{unknown: true})
		} else {
			p.first(at+int64(n), source{register: c.register, index: n})
		}
	}
}

// first notes what is stored at a place: what comes later is not what was passed.
func (p *prologue) first(at int64, s source) {
	if _, ok := p.slots[at]; !ok {
		p.slots[at] = s
	}
}

// pieces says in which registers the size bytes are at the call that the prologue stores at an offset from the canonical frame address.
func (p *prologue) pieces(at, size int64) []piece {
	var list []piece
	for n := int64(0); n < size; {
		s, ok := p.slots[at+n]
		run := int64(1)
		for n+run < size && ok {
			next, more := p.slots[at+n+run]
			if !more || next.vector != s.vector || next.unknown != s.unknown || next.register != s.register || !s.vector && next.index != s.index+int(run) {
				break
			}
			run++
		}
		q := piece{from: n, size: run, register: s.register}
		switch {
		case !ok || s.unknown || s.index != 0 && !s.vector:
			q.missing = optimizedOut("its only place is one where the function has not stored it yet at the attach point")
		case !s.vector && !target.HasRegister(p.machine.arch, s.register):
			q.missing = unsupported("the register that holds it is none that a probe reads")
		case s.vector:
			q.missing = vectorRegister()
		}
		list = append(list, q)
		n += run
	}
	return list
}

// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
)

// decode reads one instruction. x86asm answers a prefix alone, without an operation, where it does not know what follows.
func decode(b []byte) (x86asm.Inst, bool) {
	if len(b) >= 4 && b[0] == 0xf3 && b[1] == 0x0f && b[2] == 0x1e && (b[3] == 0xfa || b[3] == 0xfb) {
		return x86asm.Inst{Op: x86asm.NOP, Len: 4, Mode: 64}, true // endbr64, endbr32: unknown to x86asm
	}
	i, err := x86asm.Decode(b, 64)
	return i, err == nil && i.Op != 0 && i.Len > 0 && i.Len <= len(b)
}

// isVector recognises the encodings of AVX (VEX) and AVX-512 (EVEX). x86asm knows most of them, and has been seen to be
// wrong about the length of some.
func isVector(b []byte) bool {
	for _, x := range b {
		switch x {
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x67:
			continue
		case 0xc4, 0xc5, 0x62:
			return true
		}
		return false
	}
	return false
}

// branchTarget is where a branch or call leads whose instruction says it.
func branchTarget(i x86asm.Inst, pc uint64) (to uint64, ok bool) {
	rel, ok := i.Args[0].(x86asm.Rel)
	return pc + uint64(i.Len) + uint64(int64(rel)), ok
}

// A reach collects what might lead to a site.
type reach struct {
	c        *code
	site     uint64
	end      uint64 // of the instruction at the site
	back     map[uint64]bool
	indirect []uint64 // jumps to an address that is computed
	tables   []uint64 // addresses that the function refers to, where a table of such addresses might be
	blind    bool     // a part was not decoded: tables may be incomplete
}

// unreached proves that nothing in the function leads to the n bytes at a site but the instructions before it (and the jumps in
// back, which lead to the function's first instruction). A call is no such thing: it is a call of the function.
func (c *code) unreached(site uint64, n int, back map[uint64]bool) error {
	r := &reach{c: c, site: site, end: site + uint64(n), back: back}
	for _, s := range c.spans {
		if err := r.walk(s); err != nil {
			return err
		}
	}
	return r.jumpTables()
}

// walk decodes a span from its begin. From the first instruction on whose length is not beyond doubt it takes every byte for the begin of one.
func (r *reach) walk(s span) error {
	for at := 0; at < len(s.text); {
		i, ok := decode(s.text[at:])
		if !ok || isVector(s.text[at:]) {
			r.blind = true
			return r.everyByte(span{s.address + uint64(at), s.text[at:]})
		}
		pc := s.address + uint64(at)
		at += i.Len
		to, direct := branchTarget(i, pc)
		switch {
		case direct && i.Op == x86asm.CALL:
			if r.isSite(to) && to != r.c.spans[0].address {
				return fmt.Errorf("a call at +%#x leads to the place for the probe", pc-r.c.spans[0].address)
			}
		case direct:
			if err := r.branch(pc, to); err != nil {
				return err
			}
		case i.Op == x86asm.JMP || i.Op == x86asm.LJMP:
			r.indirect = append(r.indirect, pc)
		}
		r.references(i, pc)
	}
	return nil
}

func (r *reach) isSite(to uint64) bool { return to >= r.site && to < r.end }

func (r *reach) branch(pc, to uint64) error {
	if !r.isSite(to) || r.back[pc] {
		return nil
	}
	if r.site == r.c.spans[0].address {
		return fmt.Errorf("its first instruction is the head of a loop (the branch at +%#x leads back to it): every turn would count as a call", pc-r.site)
	}
	return fmt.Errorf("the branch at +%#x leads to the place for the probe", pc-r.c.spans[0].address)
}

// everyByte looks at every encoding of a branch at every byte, so that no branch is missed wherever instructions begin. It can
// see branches that are none: then a site is refused that would have been safe.
func (r *reach) everyByte(s span) error {
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

// references notes the addresses in an instruction's operands, a jump table's among them.
func (r *reach) references(i x86asm.Inst, pc uint64) {
	for _, a := range i.Args {
		m, ok := a.(x86asm.Mem)
		if !ok {
			continue
		}
		switch at := displacement(m); {
		case m.Base == x86asm.RIP:
			r.tables = append(r.tables, pc+uint64(i.Len)+uint64(at))
		case at > 0xfff: // an absolute address; what is less is a field of something
			r.tables = append(r.tables, uint64(at))
		}
	}
}

// displacement is what a memory operand adds. x86asm does not extend the sign of one of 32 bits, and x86-64 has no longer
// ones (but in moves of the accumulator, which no compiler emits).
func displacement(m x86asm.Mem) int64 { return int64(int32(m.Disp)) }

// jumpTables proves that no computed jump leads to the site. Such a jump is a switch, which goes on in the same stack frame, or a call in the
// place of a return, which has left it. By the frame information the stack at a site, which is before the function's own
// frame, is as deep as at its call: a jump from inside of a frame goes elsewhere. From a jump without a frame around it only
// a table could lead to the site; all that the function refers to are searched for the site's address.
func (r *reach) jumpTables() error {
	var doubtful []uint64
	for _, pc := range r.indirect {
		if !r.inFrame(pc) {
			doubtful = append(doubtful, pc)
		}
	}
	if len(doubtful) == 0 {
		return nil
	}
	offset := doubtful[0] - r.c.spans[0].address
	if r.blind {
		return fmt.Errorf("the jump at +%#x may lead to the place for the probe, and not all of the function can be decoded", offset)
	}
	for _, table := range r.tables {
		if r.inTable(table) {
			return fmt.Errorf("a jump table at %#x may lead from +%#x to the place for the probe", table, offset)
		}
	}
	return nil
}

// inFrame says whether the stack at an instruction is proved to be another than at the site, where nothing but the return
// address was pushed.
func (r *reach) inFrame(pc uint64) bool {
	const stackPointer, atCall = 7, 8
	register, offset, ok := r.c.p.cfa(pc)
	return ok && (register != stackPointer || offset != atCall)
}

// Bounds of the search in what may be a jump table.
const (
	maxTable = 64 << 10 // bytes of one
	maxGap   = 64       // entries in a row that lead out of the function
)

// inTable searches for the site in what may be a table: offsets from its begin, addresses, or addresses that the dynamic linker writes
// into it. All entries of a jump table lead into the function; it ends where they stop to do so for long.
func (r *reach) inTable(table uint64) bool {
	b, err := r.c.p.file.Memory(table, maxTable)
	if err != nil {
		return false // no memory of the file: no table
	}
	le := binary.LittleEndian
	relocated := r.c.p.relocated()
	return r.search(len(b)/4, func(i int) uint64 { return table + uint64(int64(int32(le.Uint32(b[4*i:])))) }) ||
		r.search(len(b)/4, func(i int) uint64 { return uint64(le.Uint32(b[4*i:])) }) ||
		r.search(len(b)/8, func(i int) uint64 { return le.Uint64(b[8*i:]) }) ||
		len(relocated) > 0 && r.search(len(b)/8, func(i int) uint64 { return relocated[table+8*uint64(i)] })
}

func (r *reach) search(n int, entry func(int) uint64) bool {
	gap := 0
	for i := 0; i < n && gap < maxGap; i++ {
		to := entry(i)
		if r.isSite(to) {
			return true
		}
		if gap++; r.c.holds(to) {
			gap = 0
		}
	}
	return false
}

// holds says whether an address is in the function.
func (c *code) holds(address uint64) bool {
	for _, s := range c.spans {
		if address >= s.address && address-s.address < uint64(len(s.text)) {
			return true
		}
	}
	return false
}

// relocated is what the dynamic linker writes where: a position-independent executable's tables of addresses are not in the
// file.
func (p *program) relocated() map[uint64]uint64 {
	if p.relocations != nil {
		return p.relocations
	}
	p.relocations = make(map[uint64]uint64)
	b, _, err := p.file.Section(".rela.dyn")
	if err != nil {
		return p.relocations // the dynamic linker could not read them either
	}
	const entry, relative = 24, 8 // Elf64_Rela; R_X86_64_RELATIVE
	le := binary.LittleEndian
	for ; len(b) >= entry; b = b[entry:] {
		if uint32(le.Uint64(b[8:])) == relative {
			p.relocations[le.Uint64(b)] = le.Uint64(b[16:])
		}
	}
	return p.relocations
}

// cfa is what the frame information says of an instruction.
func (p *program) cfa(pc uint64) (register int, offset int64, ok bool) {
	if p.frames == nil {
		p.frames = debuginfo.ReadFrames(p.file)
	}
	return p.frames.CFA(pc)
}

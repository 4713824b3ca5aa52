// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"encoding/binary"
	"fmt"

	"github.com/keyhole-dev/keyhole/internal/debuginfo"
)

// A reach collects what might lead to a site.
type reach struct {
	c        *code
	site     uint64
	end      uint64 // of the instruction at the site
	back     map[uint64]bool
	indirect []uint64 // jumps to an address that is computed
	tables   []uint64 // addresses that the function refers to, where a table of such addresses might be
	bases    []uint64 // addresses of code that the function refers to, from which the entries of a table might count
	pages    [32]uint64
	blind    bool // a part was not decoded: tables may be incomplete
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

// walk decodes a span from its begin. From the first instruction on that cannot be decoded it takes every byte for the begin of one.
func (r *reach) walk(s span) error {
	m := r.c.p.machine
	for at := 0; at < len(s.text); {
		pc, text := s.address+uint64(at), s.text[at:]
		i, ok := m.decode(text, pc)
		if !ok && m.branches != nil {
			r.blind = true
			return m.branches(r, span{pc, text})
		}
		if !ok {
			at += m.size
			continue
		}
		at += i.length
		switch {
		case i.direct && i.flow == flowCall:
			if r.isSite(i.to) && i.to != r.c.spans[0].address {
				return fmt.Errorf("a call at +%#x leads to the place for the probe", pc-r.c.spans[0].address)
			}
		case i.direct:
			if err := r.branch(pc, i.to); err != nil {
				return err
			}
		case i.flow == flowJump:
			r.indirect = append(r.indirect, pc)
		}
		m.references(r, text, pc)
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
	m := r.c.p.machine
	register, offset, ok := r.c.p.cfa(pc)
	return ok && (register != m.stackPointer || offset != m.returnAddress)
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
	for _, base := range r.bases {
		// Numbers of instructions, of 1, 2 or 4 bytes.
		if r.search(len(b), func(i int) uint64 { return base + uint64(4*int64(int8(b[i]))) }) ||
			r.search(len(b), func(i int) uint64 { return base + 4*uint64(b[i]) }) ||
			r.search(len(b)/2, func(i int) uint64 { return base + uint64(4*int64(int16(le.Uint16(b[2*i:])))) }) ||
			r.search(len(b)/2, func(i int) uint64 { return base + 4*uint64(le.Uint16(b[2*i:])) }) ||
			r.search(len(b)/4, func(i int) uint64 { return base + uint64(4*int64(int32(le.Uint32(b[4*i:])))) }) {
			return true
		}
	}
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
	const entry = 24 // Elf64_Rela
	le := binary.LittleEndian
	for ; len(b) >= entry; b = b[entry:] {
		if uint32(le.Uint64(b[8:])) == p.machine.relative {
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

// SPDX-License-Identifier: Apache-2.0

package debuginfo

import (
	"debug/elf"
	"encoding/binary"
	"sort"

	"github.com/go-delve/delve/pkg/dwarf/frame"

	"github.com/keyhole-dev/keyhole/internal/objfile"
)

// Frames is the frame information of an executable; a stripped C program has it too. It finds the one entry that a question is
// about by itself, since reading all of them takes longer than all the rest of an analysis.
type Frames struct {
	debug          []byte // .debug_frame
	eh             []byte // .eh_frame
	ehAddress      uint64
	index          []byte // .eh_frame_hdr
	indexAddress   uint64
	indexOf, count int // where the sorted table is in index, and its entries
}

// ReadFrames reads the sections of frame information. What cannot be read is left out: a caller learns that nothing covers its
// address.
func ReadFrames(f *objfile.File) *Frames {
	var s Frames
	s.debug = section(f, ".debug_frame", nil)
	s.eh = section(f, ".eh_frame", &s.ehAddress)
	s.index = section(f, ".eh_frame_hdr", &s.indexAddress)
	s.readIndex()
	return &s
}

// readIndex finds the table in the index, if it has the form that linkers write: version 1, an offset to .eh_frame, a count, and pairs of offsets
// from the section, sorted.
func (s *Frames) readIndex() {
	if len(s.index) >= 12 && s.index[0] == 1 && s.index[1] == 0x1b && s.index[2] == 0x03 && s.index[3] == 0x3b {
		n := binary.LittleEndian.Uint32(s.index[8:])
		if uint64(n) <= uint64(len(s.index)-12)/8 {
			s.indexOf, s.count = 12, int(n)
		}
	}
}

func section(f *objfile.File, name string, address *uint64) []byte {
	b, at, err := f.Section(name)
	if err != nil {
		return nil
	}
	if address != nil {
		*address = at
	}
	return b
}

// maxGeneral is the largest DWARF number of a general register: arm64's stack pointer.
const maxGeneral = 31

// CFA says what the canonical frame address is at an instruction: a register (DWARF number) plus an offset. ok is false
// where no frame information covers the address or it says it in a way that is not such a sum.
func (s *Frames) CFA(pc uint64) (register int, offset int64, ok bool) {
	err := objfile.Barrier("read frame information", func() error {
		entry := s.find(pc)
		if entry == nil {
			return nil
		}
		ctx, err := entry.EstablishFrame(pc)
		if err == nil && ctx.CFA.Rule == frame.RuleCFA {
			register, offset, ok = int(ctx.CFA.Reg), ctx.CFA.Offset, ctx.CFA.Reg <= maxGeneral
		}
		return err
	})
	return register, offset, ok && err == nil
}

// KeepsFrame says whether the frame of the function at an instruction is where frame pointers lead: its caller's frame pointer, and behind
// it the address that it returns to. known is false where no frame information says it.
func (s *Frames) KeepsFrame(pc uint64, machine elf.Machine) (keeps, known bool) {
	err := objfile.Barrier("read frame information", func() error {
		entry := s.find(pc)
		if entry == nil {
			return nil
		}
		ctx, err := entry.EstablishFrame(pc)
		if err != nil {
			return err
		}
		known = true
		if machine == elf.EM_AARCH64 {
			// Compilers count from the stack pointer there, whether or not x29 has been set to where x29 and x30 lie, one behind the other.
			const pointer, link = 29, 30
			p, l := ctx.Regs[pointer], ctx.Regs[link]
			keeps = p.Rule == frame.RuleOffset && l.Rule == frame.RuleOffset && l.Offset == p.Offset+addressSize
			return nil
		}
		const pointer = 6 // rbp
		keeps = ctx.CFA.Rule == frame.RuleCFA && ctx.CFA.Reg == pointer
		return nil
	})
	return keeps && err == nil, known && err == nil
}

func (s *Frames) find(pc uint64) *frame.FrameDescriptionEntry {
	if e := s.findDebug(pc); e != nil {
		return e
	}
	return s.findEH(pc)
}

// maxEntry bounds one entry.
const maxEntry = 1 << 20

// record is the entry at an offset of a section: its bytes with the length in front. nil: there is none.
func record(b []byte, at uint64) []byte {
	if at >= uint64(len(b)) || uint64(len(b))-at < 8 {
		return nil
	}
	n := uint64(binary.LittleEndian.Uint32(b[at:])) + 4
	if n < 8 || n > maxEntry || n > uint64(len(b))-at {
		return nil // 0 ends the section; the largest mean the 64-bit form, which no compiler writes for x86-64
	}
	return b[at : at+n]
}

// findDebug walks over .debug_frame. Addresses there are absolute, and pointers to the common entry are offsets in the section.
func (s *Frames) findDebug(pc uint64) *frame.FrameDescriptionEntry {
	le := binary.LittleEndian
	const common = 0xffffffff
	for at := uint64(0); ; {
		e := record(s.debug, at)
		if e == nil {
			return nil
		}
		at += uint64(len(e))
		id := le.Uint32(e[4:])
		if id == common || len(e) < 24 || pc-le.Uint64(e[8:]) >= le.Uint64(e[16:]) {
			continue
		}
		c := record(s.debug, uint64(id))
		if c == nil {
			return nil
		}
		entry := append([]byte{}, e...)
		le.PutUint32(entry[4:], 0) // the common entry is at the begin of the two
		return only(append(append([]byte{}, c...), entry...), 0, pc)
	}
}

// findEH looks up the entry for an address in the index of .eh_frame or, in a statically linked program, which has none, walks over them.
func (s *Frames) findEH(pc uint64) *frame.FrameDescriptionEntry {
	if s.count == 0 {
		for at := uint64(0); ; {
			e := record(s.eh, at)
			if e == nil {
				return nil
			}
			if found := s.entryEH(at, pc); found != nil {
				return found
			}
			at += uint64(len(e))
		}
	}
	le := binary.LittleEndian
	pair := func(i int) (from, entry uint64) {
		b := s.index[s.indexOf+8*i:]
		return s.indexAddress + uint64(int64(int32(le.Uint32(b)))), s.indexAddress + uint64(int64(int32(le.Uint32(b[4:]))))
	}
	i := sort.Search(s.count, func(i int) bool { from, _ := pair(i); return from > pc })
	if i == 0 {
		return nil
	}
	_, address := pair(i - 1)
	return s.entryEH(address-s.ehAddress, pc)
}

// entryEH reads the entry at an offset of .eh_frame. There a pointer to the common entry counts back from itself, and addresses count from
// where they stand.
func (s *Frames) entryEH(at, pc uint64) *frame.FrameDescriptionEntry {
	le := binary.LittleEndian
	e := record(s.eh, at)
	if e == nil {
		return nil
	}
	back := uint64(le.Uint32(e[4:]))
	if back == 0 || back > at+4 {
		return nil // a common entry
	}
	c := record(s.eh, at+4-back)
	address := s.ehAddress + at
	if c == nil || uint64(len(c)) > address {
		return nil
	}
	entry := append([]byte{}, e...)
	le.PutUint32(entry[4:], uint32(len(c)+4))
	return only(append(append([]byte{}, c...), entry...), address-uint64(len(c)), pc)
}

// only parses a section made of one common entry and one entry, and returns the latter if it covers the address.
func only(b []byte, ehAddress, pc uint64) *frame.FrameDescriptionEntry {
	entries, err := frame.Parse(b, binary.LittleEndian, 0, addressSize, ehAddress)
	if err != nil || len(entries) != 1 || !entries[0].Cover(pc) {
		return nil
	}
	return entries[0]
}

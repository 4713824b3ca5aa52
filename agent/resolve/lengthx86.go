// SPDX-License-Identifier: Apache-2.0

package resolve

import "encoding/binary"

// maxLengthX86 bounds an instruction: Intel SDM, volume 2, section 2.3.11.
const maxLengthX86 = 15

// An encodingX86 is what an instruction's bytes say without its meaning.
type encodingX86 struct {
	length       int
	straight     bool  // it can only go on behind it, whatever else it does: a vector instruction, a hint or one that saves state
	vector       bool  // VEX or EVEX
	memory       bool  // it has an operand in memory, or names the address of one
	relative     bool  // which counts from the instruction's end
	displacement int32 // of that operand, if it has 32 bits; shorter ones are 0
}

// encodeX86 measures the instruction that b begins with, in 64-bit mode. Sources are Intel's SDM, volume 2: sections 2.1 and 2.2 (prefixes, ModR/M,
// SIB, displacement, immediate), 2.3 (VEX), 2.7 (EVEX) and appendix A (the opcode maps, with the immediates of each opcode). ok is false
// for what is undefined, privileged, of APX or XOP, or measured otherwise by different processors.
func encodeX86(b []byte) (e encodingX86, ok bool) {
	b = b[:min(len(b), maxLengthX86)]
	r := readerX86{b: b}
	for {
		x, ok := r.peek()
		if !ok {
			return e, false
		}
		switch x {
		case 0x66:
			r.data16 = true
		case 0x67:
			r.address32 = true
		case 0xf2, 0xf3:
			r.repeat = x
		case 0xf0:
			r.lock = true
		case 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65:
		default:
			return r.opcode()
		}
		r.at++
	}
}

// A readerX86 stands in an instruction.
type readerX86 struct {
	b         []byte
	at        int
	data16    bool
	address32 bool
	lock      bool
	repeat    byte // the last prefix of 0xf2 and 0xf3
	wide      bool // REX.W
	e         encodingX86
}

func (r *readerX86) peek() (byte, bool) {
	if r.at >= len(r.b) {
		return 0, false
	}
	return r.b[r.at], true
}

func (r *readerX86) next() (byte, bool) {
	x, ok := r.peek()
	r.at++
	return x, ok
}

// A shapeX86 is what follows an opcode.
type shapeX86 uint8

const (
	hasModRM   shapeX86 = 1 << iota
	imm8                // an immediate of 8 bits
	imm16               // 16 bits
	immZ                // 32 bits; 16 where the operand has 16
	rel32               // 32 bits; what processors of AMD take for 16 behind the prefix of a short operand is refused
	isStraight          // see encodingX86.straight
	undefined
)

func (r *readerX86) opcode() (encodingX86, bool) {
	x, _ := r.next()
	switch x {
	case 0xc4, 0xc5, 0x62:
		if r.data16 || r.lock || r.repeat != 0 {
			return r.e, false
		}
		return r.vector(x)
	}
	if x&0xf0 == 0x40 { // REX counts right before the opcode
		r.wide = x&8 != 0
		var ok bool
		if x, ok = r.next(); !ok || x&0xf0 == 0x40 || x == 0xc4 || x == 0xc5 || x == 0x62 {
			return r.e, false
		}
	}
	if x != 0x0f {
		return r.primary(x)
	}
	x, ok := r.next()
	if !ok {
		return r.e, false
	}
	switch x {
	case 0x38, 0x3a:
		if _, ok := r.next(); !ok {
			return r.e, false
		}
		if x == 0x38 {
			return r.finish(hasModRM | isStraight)
		}
		return r.finish(hasModRM | imm8 | isStraight)
	}
	return r.secondary(x)
}

// primary are the opcodes of one byte: table A-2.
func (r *readerX86) primary(x byte) (encodingX86, bool) {
	switch {
	case x >= 0xb8 && x <= 0xbf && r.wide: // a number of 64 bits
		r.at += 8
		return r.finish(0)
	case x >= 0xa0 && x <= 0xa3: // an address of its own size
		if r.at += 8; r.address32 {
			r.at -= 4
		}
		return r.finish(0)
	case x == 0xc8: // ENTER
		return r.finish(imm16 | imm8)
	case x == 0x8f: // POP; else XOP
		if m, ok := r.peek(); !ok || m>>3&7 != 0 {
			return r.e, false
		}
	case x == 0xf6 || x == 0xf7: // TEST has an immediate, the others of the group have none
		m, ok := r.peek()
		switch {
		case !ok:
			return r.e, false
		case m>>3&7 > 1:
			return r.finish(hasModRM)
		case x == 0xf6:
			return r.finish(hasModRM | imm8)
		}
		return r.finish(hasModRM | immZ)
	}
	return r.finish(primaryX86[x])
}

var primaryX86 = tableX86(map[shapeX86]string{
	hasModRM: "00-03 08-0b 10-13 18-1b 20-23 28-2b 30-33 38-3b 63 84-8f d0-d3 d8-df fe ff",
	imm8:     "04 0c 14 1c 24 2c 34 3c 6a 70-7f a8 b0-b7 cd e0-e7 eb",
	immZ:     "05 0d 15 1d 25 2d 35 3d 68 a9 b8-bf",
	0:        "50-5f 6c-6f 90-99 9b-9f a4-a7 aa-af c3 c9 cb cc cf d7 ec-ef f1 f4 f5 f8-fd",
	imm16:    "c2 ca",
	rel32:    "e8 e9",

	hasModRM | imm8: "6b 80 83 c0 c1 c6",
	hasModRM | immZ: "69 81 c7",
})

// secondary are the opcodes behind 0x0f: table A-3.
func (r *readerX86) secondary(x byte) (encodingX86, bool) {
	switch x {
	case 0x01: // a group of all sorts: those that programs use are XGETBV, XEND, XTEST, SERIALIZE, RDPKRU, WRPKRU and RDTSCP
		switch m, _ := r.peek(); m {
		case 0xd0, 0xd5, 0xd6, 0xe8, 0xee, 0xef, 0xf9:
			return r.finish(hasModRM | isStraight)
		}
		return r.e, false
	case 0x78, 0x79: // SSE4a has two immediates
		return r.e, false
	}
	return r.finish(secondaryX86[x])
}

var secondaryX86 = tableX86(map[shapeX86]string{
	hasModRM: "00 02 03 40-4f 90-9f a3 a5 ab ad af-b9 bb-bf c0 c1 c3 ff",
	0:        "05 0b 31 a0-a2 a8-a9 c8-cf",
	rel32:    "80-8f",

	hasModRM | imm8:              "a4 ac ba",
	hasModRM | isStraight:        "0d 10-1f 28-2f 50-6f 74-76 7c-7f ae c7 d0-fe",
	hasModRM | imm8 | isStraight: "70-73 c2 c4-c6",
	isStraight:                   "77",
})

// vectorX86 are those of the same opcodes that VEX and EVEX have.
var vectorX86 = tableX86(map[shapeX86]string{
	hasModRM:        "10-17 28-2f 41-4b 50-6f 74-76 78-7f 90-93 98-99 ae d0-fe",
	hasModRM | imm8: "70-73 c2 c4-c6",
	0:               "77",
})

// tableX86 reads ranges of opcodes; all others are undefined.
func tableX86(shapes map[shapeX86]string) (table [256]shapeX86) {
	for x := range table {
		table[x] = undefined
	}
	hex := func(s string) int {
		const digits = "0123456789abcdef"
		n := 0
		for i := range s {
			for d := range digits {
				if digits[d] == s[i] {
					n = n<<4 | d
				}
			}
		}
		return n
	}
	for shape, ranges := range shapes {
		for ; len(ranges) >= 2; ranges = ranges[min(3, len(ranges)):] {
			low := hex(ranges[:2])
			high := low
			if len(ranges) >= 5 && ranges[2] == '-' {
				high, ranges = hex(ranges[3:5]), ranges[3:]
			}
			for x := low; x <= high; x++ {
				if table[x] != undefined {
					panic("an opcode has two shapes")
				}
				table[x] = shape
			}
		}
	}
	return table
}

// vector reads VEX and EVEX from behind their first byte. No instruction of theirs is a branch but two of Knights Corner, which
// are refused.
func (r *readerX86) vector(first byte) (encodingX86, bool) {
	r.e.vector = true
	width := map[byte]int{0xc5: 1, 0xc4: 2, 0x62: 3}[first]
	if r.at+width >= len(r.b) {
		return r.e, false
	}
	p, x := r.b[r.at:r.at+width], r.b[r.at+width]
	r.at += width + 1
	opcodes, pp := byte(1), p[width-1]&3 // which map; the prefix that it stands for
	switch first {
	case 0xc4:
		opcodes = p[0] & 0x1f
	case 0x62:
		opcodes, pp = p[0]&7, p[1]&3
		if p[0]&8 != 0 || p[1]&4 == 0 { // APX
			return r.e, false
		}
	}
	switch {
	case opcodes == 1 && (x < 0x74 || x > 0x76 || pp == 1) && (first != 0x62 || x != 0x77):
		if vectorX86[x] == undefined {
			return r.e, false
		}
		return r.finish(vectorX86[x] | isStraight)
	case opcodes == 2 || first == 0x62 && (opcodes == 5 || opcodes == 6):
		return r.finish(hasModRM | isStraight)
	case opcodes == 3:
		return r.finish(hasModRM | imm8 | isStraight)
	}
	return r.e, false
}

// finish measures what follows an opcode.
func (r *readerX86) finish(s shapeX86) (encodingX86, bool) {
	if s&undefined != 0 || s&hasModRM != 0 && !r.modRM() {
		return r.e, false
	}
	if s&imm8 != 0 {
		r.at++
	}
	if s&imm16 != 0 {
		r.at += 2
	}
	if s&immZ != 0 {
		if r.at += 4; r.data16 && !r.wide {
			r.at -= 2
		}
	}
	if s&rel32 != 0 {
		if r.data16 && !r.wide {
			return r.e, false
		}
		r.at += 4
	}
	r.e.length, r.e.straight = r.at, s&isStraight != 0
	return r.e, r.at <= len(r.b)
}

// modRM reads an operand, as tables 2-2 and 2-3 have it.
func (r *readerX86) modRM() bool {
	m, ok := r.next()
	mod, rm := m>>6, m&7
	if !ok || mod == 3 {
		return ok
	}
	r.e.memory = true
	size := [3]int{0, 1, 4}[mod]
	if rm == 4 {
		sib, ok := r.next()
		if !ok {
			return false
		}
		if mod == 0 && sib&7 == 5 {
			size = 4
		}
	} else if mod == 0 && rm == 5 {
		size, r.e.relative = 4, true
	}
	if r.at+size > len(r.b) {
		return false
	}
	if size == 4 {
		r.e.displacement = int32(binary.LittleEndian.Uint32(r.b[r.at:]))
	}
	r.at += size
	return true
}

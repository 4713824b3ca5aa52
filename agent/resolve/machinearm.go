// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"

	"github.com/keyhole-dev/keyhole/internal/a64"
	"github.com/keyhole-dev/keyhole/internal/goabi"
)

// arm64 has DWARF's numbers from DWARF for the Arm 64-bit Architecture, 4.1: 0 to 30 are x0 to x30, 31 is sp, 64 to 95 are V0 to V31.
var arm64 = machine{
	arch: "arm64", stackPointer: a64.StackPointer, framePointer: a64.FramePointer, firstVector: 64,
	relative: 1027, // R_AARCH64_RELATIVE
	golang:   &goabi.ARM64, convention: aapcs64{},
	size: a64.Size, decode: instructionARM64, safe: safeARM64, references: referencesARM64,
	rewrittenNOP: func([]byte) int { return 0 }, repeated: repeatedARM64,
	data:     dataARM64,
	prologue: readPrologueARM64,
}

func instructionARM64(b []byte, pc uint64) (instruction, bool) {
	a, ok := a64.At(b)
	if !ok || pc%a64.Size != 0 || a.Kind() == a64.Unallocated {
		return instruction{}, false
	}
	i := instruction{length: a64.Size}
	i.to, i.direct = a.Target(pc)
	i.flow = map[a64.Kind]flow{a64.Call: flowCall, a64.Jump: flowJump, a64.Conditional: flowConditional, a64.Return: flowReturn}[a.Kind()]
	return i, true
}

// repeatedARM64 recognises by the assembler's own register what it has made of one instruction of its language (isRestartable in
// src/cmd/internal/obj/arm64/asm7.go): such a sequence is not continued after an asynchronous preemption (isAsyncSafePoint in
// src/runtime/preempt.go).
func repeatedARM64(b []byte) bool {
	i, ok := a64.At(b)
	hasThird := i.Field(25, 3) == 5 || i&0x3b200c00 == 0x38200800 // computing, or a load or store with a register for an offset
	return ok && i.Kind() == a64.Straight && (i.Field(0, 5) == goabi.TemporaryARM64 || i.Field(5, 5) == goabi.TemporaryARM64 ||
		hasThird && i.Field(16, 5) == goabi.TemporaryARM64)
}

func safeARM64(b []byte) error {
	i, ok := a64.At(b)
	if !ok {
		return errors.New("the place for the probe has no instruction")
	}
	if [a64.Size]byte(b) == a64.Breakpoint {
		return errors.New("a breakpoint is in the file itself at the place for the probe")
	}
	if err := i.Probeable(); err != nil {
		return fmt.Errorf("the instruction at the place for the probe (%08x) is refused: %w", uint32(i), err)
	}
	return nil
}

// referencesARM64 notes the addresses that are made of ADRP and what is added to it, by whichever way the code goes, and those of ADR.
func referencesARM64(r *reach, b []byte, pc uint64) {
	i, _ := a64.At(b)
	if register, page, ok := i.Page(pc); ok {
		r.pages[register] = page
		r.tables = append(r.tables, page)
	} else if _, label, ok := i.Label(pc); ok {
		r.bases = append(r.bases, label)
		r.tables = append(r.tables, label)
	} else if _, from, n, ok := i.AddImmediate(); ok && r.pages[from] != 0 {
		r.tables = append(r.tables, r.pages[from]+uint64(n))
	}
}

// dataARM64 finds the words in a function that its instructions load from beside them. Each is either that or an instruction.
func dataARM64(c *code) (map[uint64]bool, error) {
	words := make(map[uint64]bool)
	for range 2 { // what is a load by its looks only, since it is itself loaded, counts no more in the second turn
		found := make(map[uint64]bool)
		each(c, words, func(i a64.Instruction, pc uint64) {
			if at, n, ok := i.Literal(pc); ok {
				for word := at &^ (a64.Size - 1); word < at+uint64(n); word += a64.Size {
					found[word] = true
				}
			}
		})
		words = found
	}
	var err error
	indirect := false
	var labels []uint64
	each(c, words, func(i a64.Instruction, pc uint64) {
		to, direct := i.Target(pc)
		switch _, label, ok := i.Label(pc); {
		case i.Kind() == a64.Unallocated:
			err = fmt.Errorf("what is at +%#x is neither an instruction nor known to be data", pc-c.spans[0].address)
		case direct && words[to]:
			err = fmt.Errorf("a branch at +%#x leads to what is loaded as data", pc-c.spans[0].address)
		case i.Kind() == a64.Jump && !direct:
			indirect = true
		case ok && c.holds(label) && label != c.spans[0].address:
			labels = append(labels, label)
		}
	})
	// Where a jump is computed, an address in the code is what its offsets count from; else there might be a table of data.
	if err == nil && len(labels) > 0 && !indirect {
		err = fmt.Errorf("it takes the address of what is at +%#x in it, which may be data", labels[0]-c.spans[0].address)
	}
	return words, err
}

// each visits the words of a function that are not data.
func each(c *code, data map[uint64]bool, visit func(i a64.Instruction, pc uint64)) {
	for _, s := range c.spans {
		for at := 0; at+a64.Size <= len(s.text); at += a64.Size {
			pc := s.address + uint64(at)
			if i, ok := a64.At(s.text[at:]); ok && !data[pc] {
				visit(i, pc)
			}
		}
	}
}

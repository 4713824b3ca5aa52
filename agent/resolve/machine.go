// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"debug/elf"

	"github.com/keyhole-dev/keyhole/internal/goabi"
)

// A machine is what has to be known of one architecture. It is chosen by the executable, not by the machine that this runs on. Registers
// have DWARF's numbers.
type machine struct {
	arch          string // Go's name of it
	stackPointer  int
	framePointer  int
	returnAddress int64      // the bytes of stack that a call takes
	firstVector   int        // registers from this one on are none that the kernel shows to a probe
	relative      uint32     // the relocation that adds where the executable was loaded
	golang        *goabi.ABI // Go's convention
	convention    convention // C's

	// size is that of each instruction; 0: they differ.
	size int
	// decode reads the instruction at the begin of b, whose address is pc.
	decode func(b []byte, pc uint64) (instruction, bool)
	// rewrittenNOP is the length of an instruction that a kernel may rewrite at the cost of what the function keeps below its stack
	// pointer; 0: it is none.
	rewrittenNOP func(b []byte) int
	// repeated says whether an instruction of Go's begins or continues a sequence that Go's runtime runs again from its begin when it
	// stops the goroutine inside of it; nil: it never does.
	repeated func(b []byte) bool
	// safe says why a breakpoint on an instruction is refused.
	safe func(b []byte) error
	// references notes the addresses that an instruction names, a jump table's among them.
	references func(r *reach, b []byte, pc uint64)
	// branches finds all that could be branches in bytes of which it is not known where instructions begin; nil where that is always known.
	branches func(r *reach, s span) error
	// data finds what is no instruction in a function's code.
	data func(c *code) (map[uint64]bool, error)
	// changesStack says whether an instruction may go on on another stack, as compilers let none, and how long it is, 0 if that is not known;
	// nil: the kernel's return probe is not used on this machine.
	changesStack func(b []byte) (changes bool, length int)
	// prologue follows what the first instructions of a function store.
	prologue func(m *machine, text []byte) *prologue
}

// A convention is where C's functions get and leave values.
type convention interface {
	// passedIn is the register in which a function is passed a number or pointer or, as byAddress, where a struct is; ok is false where
	// that is not known.
	passedIn(v *values, wanted int) (register int, byAddress, ok bool)
	// returned is where the i-th result is at a return.
	returned(v *values, i int) (place, *missing)
}

var machines = map[elf.Machine]*machine{elf.EM_X86_64: &amd64, elf.EM_AARCH64: &arm64}

// A flow is where execution goes from an instruction.
type flow int

const (
	flowStraight flow = iota // on behind it
	flowCall
	flowJump
	flowConditional // a jump, or on behind it
	flowReturn
	flowUnusual // out of the function, but not as calls end
)

// An instruction is what a site's proof needs to know of one.
type instruction struct {
	length int
	flow   flow
	to     uint64 // where it leads, if it says so itself
	direct bool   // it does
}

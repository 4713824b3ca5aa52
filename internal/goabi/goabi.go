// SPDX-License-Identifier: Apache-2.0

// Package goabi knows what is special about programs that Go's compiler made: which version made them, what their functions
// do before their own code, where the running goroutine is found and where arguments are. The facts are of Go 1.17 (arm64: 1.18) and
// later (ABIInternal), from src/cmd/compile/abi-internal.md and the stacksplit of src/cmd/internal/obj.
package goabi

import (
	"debug/buildinfo"
	"fmt"
	"io"
	"strings"
)

// An ABI is ABIInternal on one architecture. Registers have DWARF's numbers.
type ABI struct {
	G        int   // holds the running goroutine's runtime.g in every function
	Integers []int // for arguments and results, in this order
	// FirstFloat is the first of the Floats registers for floating-point numbers.
	FirstFloat, Floats int

	find func(text []byte, low uint64) (StackCheck, bool)
}

// The architectures. Arguments that are in no register begin 8 bytes above the stack pointer on both: above the return address, or where
// the caller has saved its own.
var (
	AMD64 = ABI{ // rax, rbx, rcx, rdi, rsi, r8 to r11; X0 to X14; r14
		G: 14, Integers: []int{0, 3, 2, 5, 4, 8, 9, 10, 11}, FirstFloat: 17, Floats: 15, find: findAMD64,
	}
	ARM64 = ABI{ // R0 to R15; F0 to F15; R28
		G: 28, Integers: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, FirstFloat: 64, Floats: 16, find: findARM64,
	}
)

// FindStackCheck recognises the check in the code of a function that begins at low. The code that makes the stack larger moves
// registers to the stack, calls, moves them back and jumps to low: all of that is proved here.
func (a *ABI) FindStackCheck(text []byte, low uint64) (StackCheck, bool) { return a.find(text, low) }

// ABI0Suffix ends the symbols of functions of the older convention, which are written in assembly: arguments are on
// the stack and the register for the goroutine holds anything.
const ABI0Suffix = ".abi0"

// Version is what built an executable, "go1.26.8"; the error says that it is not Go's, or does not say so.
func Version(r io.ReaderAt) (string, error) {
	info, err := buildinfo.Read(r)
	if err != nil {
		return "", fmt.Errorf("read build information: %w", err)
	}
	version, _, _ := strings.Cut(info.GoVersion, " ") // experiments follow
	return version, nil
}

// A StackCheck is the code at the begin of a function that makes the stack larger when it is too small for the function, and then
// runs the function from its first instruction again: who counts calls does so behind it.
type StackCheck struct {
	End  uint64 // the instruction behind it
	Call uint64 // what makes the stack larger: runtime.morestack, or one like it
	Back uint64 // the jump back to the first instruction
}

// maxGrowth bounds the instructions that save and restore the arguments around the call.
const maxGrowth = 64

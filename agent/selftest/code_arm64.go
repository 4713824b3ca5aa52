// SPDX-License-Identifier: Apache-2.0

package selftest

// registers are the DWARF numbers of those that callSite fills.
var registers = [2]int{0, 1}

// callNOP is not called: no kernel rewrites a NOP of this architecture, and nothing is kept below the stack pointer (AAPCS64).
func callNOP(uintptr, uint64) (corrupt uint64) { return 0 }

func nops() []nop { return nil }

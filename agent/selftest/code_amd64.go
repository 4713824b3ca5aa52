// SPDX-License-Identifier: Apache-2.0

package selftest

import "github.com/keyhole-dev/keyhole/internal/doctor"

// registers are the DWARF numbers of those that callSite fills.
var registers = [2]int{5, 4} // rdi, rsi

func nop5()  //nolint:unused // called from assembly
func nop10() //nolint:unused // called from assembly

// callNOP calls one of them so many times, at least once, and says in how many the caller's values were changed that lay where a
// function that calls no other may keep them.
func callNOP(address uintptr, times uint64) (corrupt uint64)

func nopAddresses() (five, ten uintptr)

// nops are the functions that begin with a NOP that a kernel might rewrite.
func nops() []nop {
	five, ten := nopAddresses()
	return []nop{{doctor.CheckNOP5, 5, five}, {doctor.CheckNOP10, 10, ten}}
}
